"""The generator, as a reader would tell it; imports the configuration, `ops`, and of models their
interface and precision.
"""
