module faasmesh/greeter

go 1.26
