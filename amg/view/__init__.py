"""Masks to look at: overlays, and the report of a run; imports `runs`, `evaluate` and what they
stand on.
"""
