"""Bytes become elements: a byte source is read as far as a header needs it."""
