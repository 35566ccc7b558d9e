"""A run over a corpus, from its plan to its commits; may import all of `amg`, nothing else of
`pipelines`.
"""
