"""How this process connects: to Google's services, or to local servers in their place.

The variables are those that Google's own client libraries read; for Secret Manager, which has none
there, it is our own. The function does not start in the cloud if one of them is set.
"""

import os

from google.auth.credentials import AnonymousCredentials

BIGQUERY = "BIGQUERY_EMULATOR_HOST"
STORAGE = "STORAGE_EMULATOR_HOST"
SECRET_MANAGER = "DCM2BQ_SECRET_MANAGER_EMULATOR_HOST"  # noqa: S105 - the name of a variable

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
