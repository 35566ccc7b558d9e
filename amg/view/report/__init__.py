"""One static folder that shows what a run found and where it failed: `amg report`."""

DEFAULT_IMAGES = 300
"""Most images in the gallery."""
