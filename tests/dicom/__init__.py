"""Tests of the converter, on bytes that are written element by element."""
