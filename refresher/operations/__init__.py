"""The operations endpoint: is the process alive, is it ready, how is the fleet."""
