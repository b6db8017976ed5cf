module faasmesh/issuer

go 1.26
