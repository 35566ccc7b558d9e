"""Runs in other people's formats; imports `runs`, `storage` and `ops`."""
