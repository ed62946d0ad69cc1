"""Attaches tables of applications: the catalogue is read, and SQL is made of it."""
