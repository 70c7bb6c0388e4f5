"""The daemon: everything that touches a socket, a clock, a file or the kernel."""
