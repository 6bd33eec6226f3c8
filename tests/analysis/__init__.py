"""The views for analysts, against what pydicom computes from the same files."""
