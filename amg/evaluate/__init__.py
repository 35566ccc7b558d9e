"""How good masks are, and how equal; imports `runs`, `storage` and `ops`."""
