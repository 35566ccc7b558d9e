"""From pixels to candidate masks, by room; only `interface` and `precision` are for the generator,
and all may import `ops`.
"""
