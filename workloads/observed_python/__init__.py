"""observed_python: the observed function in Python, for a chain of functions in two languages."""

IMAGE = "faasmesh.test/faasmesh/observed-python:1"
