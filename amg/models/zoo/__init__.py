"""Models by name, with the files, sums and keys of their weights; on top of the models, it may
import all of them, and `storage` for its locks.
"""
