"""Bytes become elements: an object is read only as far as its header needs."""
