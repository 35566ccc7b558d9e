"""The generator, as a reader would tell it; imports the configuration, how pixels are had from an
image, `ops`, and of models their interface and precision.
"""
