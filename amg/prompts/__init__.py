"""Prompts from files: what is asked of which image, streamed as Arrow batches, matched to planned
images and put in their order on disk; imports `inputs` and `storage`.
"""
