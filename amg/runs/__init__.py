"""What a run's folder holds, for those who write it and those who read it; imports `inputs`,
`storage` and `ops`.
"""
