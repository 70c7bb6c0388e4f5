"""The kernel boundary: netlink through pyroute2's sockets, and nothing else."""
