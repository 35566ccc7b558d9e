"""SAM 2 through time: what it remembers of a video's frames, and one frame of it; imports
`modules`.
"""
