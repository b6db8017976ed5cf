module faasmesh/caller

go 1.26
