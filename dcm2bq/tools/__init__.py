"""What operators run: `backfill`, `dead_letters`, `dump`, `init` and `verify`, as the command line.

The other modules are what these share.
"""
