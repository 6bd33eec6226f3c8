"""Verify: compare a bucket's objects with their rows, and repair the differences."""
