"""The networks as the papers have them: know no family, no generator and no files, and import each
other only.
"""
