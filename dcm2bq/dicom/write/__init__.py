"""The output: elements become JSON that fits into a row."""
