"""How this process connects: to Google's services, or to local servers in their place.

The variables are those that Google's own client libraries read.
"""

import os

from google.auth.credentials import AnonymousCredentials

BIGQUERY = "BIGQUERY_EMULATOR_HOST"
STORAGE = "STORAGE_EMULATOR_HOST"

PROJECT = "local"
"""The project of the local servers."""

NO_CREDENTIALS = (
    "no Google credentials: run gcloud auth application-default login, or run as a service account"
)


def url(variable: str) -> str | None:
    """Return the URL of the local server that stands in for a service, or None."""
    return os.environ.get(variable) or None


def credentials() -> AnonymousCredentials:
    """Return the credentials for a local server, which checks none."""
    return AnonymousCredentials()
