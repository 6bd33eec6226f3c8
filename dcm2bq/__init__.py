"""DICOM headers from Cloud Storage to BigQuery."""

__version__ = "1.0.0"
