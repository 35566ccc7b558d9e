"""Masks for prompts that somebody gives: boxes, points, masks. Beside the generator, which asks
with a grid, and whose encoding, measuring and run lengths these are too.
"""
