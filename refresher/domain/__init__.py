"""Pure decisions: no I/O, no clock, no library of the outside world."""
