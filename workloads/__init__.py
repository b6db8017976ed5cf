"""What runs on a cluster: sample functions, their manifests and the clients that drive them."""
