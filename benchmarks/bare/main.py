"""A function that does nothing, with the libraries that the work needs."""

import functions_framework
import pydicom  # noqa: F401
from cloudevents.http import CloudEvent
from google.cloud import bigquery, storage  # noqa: F401


@functions_framework.cloud_event
def ingest(event: CloudEvent) -> None:
    """Do nothing."""
