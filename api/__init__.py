"""The gRPC API: messages, translation and services.  It reaches the daemon only through its own Protocol."""
