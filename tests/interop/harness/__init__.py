"""Real BGP daemons in namespaces, driven and read through their own clients."""
