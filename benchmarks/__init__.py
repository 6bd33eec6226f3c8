"""What is measured, against the obvious way in the same run: `make bench`."""
