"""A routed pod network in network namespaces: the demo and the end-to-end tests stand on it."""
