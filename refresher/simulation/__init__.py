"""What a quota does for a fleet: the daemon's own decisions under a virtual clock.

`plan` says what is simulated, `steady_fleet` makes a fleet from two numbers, `engine` works it.
`tally` counts what happens and `demand` computes what would have to; both go into a `forecast`.
`report` and `plot` show it. No database and no network.
"""
