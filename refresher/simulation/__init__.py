"""What a quota does for a fleet: the daemon's own decisions under a virtual clock.

`fleet` makes a fleet from two numbers, `engine` works it, `forecast` says what came of it, `plot`
draws that. No database and no network.
"""
