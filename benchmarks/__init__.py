"""Speed, accuracy and scale against peers: ``python -m benchmarks``.

Each benchmark is a file of this folder with a function ``main(argv)``; the first line of its docstring says what it
measures, and README.md what was found.
"""
