"""BGP sessions: codec (ExaBGP), state machine (sans-I/O) and transport."""
