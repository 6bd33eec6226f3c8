"""How this process connects: to Google's services, or to local servers in their place.

The variables are those that Google's own client libraries read; for Secret Manager, which has none
there, it is our own. The function does not start in the cloud if one of them is set.
"""

import os
from typing import TYPE_CHECKING

from dcm2bq.errors import ConfigError

if TYPE_CHECKING:
    from google.auth.credentials import AnonymousCredentials

BIGQUERY = "BIGQUERY_EMULATOR_HOST"
STORAGE = "STORAGE_EMULATOR_HOST"
SECRET_MANAGER = "DCM2BQ_SECRET_MANAGER_EMULATOR_HOST"  # noqa: S105 - the name of a variable

PROJECT = "local"
"""The project of the local servers."""

_CREDENTIALS_FILE = "GOOGLE_APPLICATION_CREDENTIALS"


def url(variable: str) -> str | None:
    """Return the URL of the local server that stands in for a service, or None.

    Raises `ConfigError` if the variable holds anything but an HTTP URL.
    """
    value = os.environ.get(variable) or None
    if value and not value.lower().startswith(("http://", "https://")):
        raise ConfigError(f"{variable}: must begin with http:// or https://, or be unset")
    return value


def check() -> None:
    """Raise `ConfigError` if one of the variables holds anything but an HTTP URL."""
    for variable in (BIGQUERY, STORAGE, SECRET_MANAGER):
        url(variable)


def place(variable: str) -> str:
    """Return the local server as the end of a message, " at URL (VARIABLE)"; "" for Google's."""
    address = os.environ.get(variable)
    return f" at {address} ({variable})" if address else ""


def no_credentials() -> str:
    """Return why Google's library found no credentials: its own texts quote paths and contents."""
    if os.environ.get(_CREDENTIALS_FILE):
        return (
            f"{_CREDENTIALS_FILE}: the file is missing or is not a credentials file: correct the "
            "variable, or unset it"
        )
    return (
        "no Google credentials: run gcloud auth application-default login, or run as a service "
        "account"
    )


def credentials() -> "AnonymousCredentials":
    """Return the credentials for a local server, which checks none."""
    from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415 - slow to import

    return AnonymousCredentials()
