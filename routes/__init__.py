"""What is known and what is decided: the pure core.

Nothing in this package opens a socket, reads a clock, logs or draws a random number.  Facts arrive
as arguments (with the time, where time matters), decisions leave as values that carry their reason.
"""
