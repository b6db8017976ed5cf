"""greeter_python: the sample function in Python."""

IMAGE = "faasmesh.test/faasmesh/greeter-python:1"
