"""Elements become JSON that fits into a row."""
