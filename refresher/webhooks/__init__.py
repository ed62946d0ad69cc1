"""Tells the application, by signed HTTP requests, what only it can mend."""
