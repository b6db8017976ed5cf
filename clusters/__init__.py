"""How a cluster comes to be: host, images, providers and components. Knows no function and no check."""
