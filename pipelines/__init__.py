"""Programs made of the library: runs over a corpus, training, a demo; may import all of `amg`, and
Ray.
"""
