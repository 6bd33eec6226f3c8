"""DICOM headers from Cloud Storage to BigQuery."""

__version__ = "0.1.0"
