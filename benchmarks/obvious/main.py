"""The obvious function: what one writes in half an hour, and what many have deployed."""

import json
import warnings

import functions_framework
import pydicom
from cloudevents.http import CloudEvent
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery, storage
from pydicom.filebase import DicomBytesIO

warnings.simplefilter("ignore")
CLIENTS: list[tuple[storage.Client, bigquery.Client]] = []


@functions_framework.cloud_event
def ingest(event: CloudEvent) -> None:
    """Download the object, convert its header, insert a row."""
    if not CLIENTS:
        credentials = AnonymousCredentials()
        CLIENTS.append(
            (storage.Client("local", credentials), bigquery.Client("local", credentials))
        )
    gcs, bq = CLIENTS[0]
    data = event.data
    content = gcs.bucket(data["bucket"]).blob(data["name"]).download_as_bytes(checksum=None)
    header = pydicom.dcmread(DicomBytesIO(content), stop_before_pixels=True)
    row = {
        "timestamp": event["time"],
        "path": f"gs://{data['bucket']}/{data['name']}",
        "version": data["generation"],
        "metadata": json.dumps(header.to_json_dict()),
    }
    errors = bq.insert_rows_json("local.dicom.instances", [row], row_ids=[event["id"]])
    if errors:
        raise RuntimeError("not inserted")
