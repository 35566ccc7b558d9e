"""Makes the built-in model; imports `models`, `ops` and the corpus run's `parent`."""
