"""The data sets of `python -m benchmarks accuracy`, one a file."""
