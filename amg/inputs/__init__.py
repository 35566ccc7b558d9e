"""From a location to RGB pixels; imports `storage`, and knows nothing of a run."""
