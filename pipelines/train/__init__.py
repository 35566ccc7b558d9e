"""Makes the built-in model; imports `models` and `ops`."""
