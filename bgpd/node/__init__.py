"""What the agent sets up on its host besides routes: CNI configuration, sysctls, packet filter."""
