module faasmesh/runtime

go 1.26.6
