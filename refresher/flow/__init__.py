"""The flow: what is due is claimed, asked for, written back and released."""
