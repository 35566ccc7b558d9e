"""Numeric kernels on arrays, and the threads and processes that run them; imports records and
errors only.
"""
