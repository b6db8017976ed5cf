module faasmesh/receiver

go 1.26
