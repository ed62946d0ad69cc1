"""The CSV files of `accounts import` and `videos import`."""
