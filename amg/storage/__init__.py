"""Where bytes are kept, on this machine or on an object store, and how they are reached; imports
errors only.
"""
