"""greeter_node: the sample function in JavaScript."""

IMAGE = "faasmesh.test/faasmesh/greeter-node:1"
