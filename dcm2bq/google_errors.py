"""What Google's client libraries raise, as errors of this package.

For the tools alone: the function sends its requests through `transport`, and importing these
libraries would slow its start.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError, RetryError
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

from dcm2bq import emulators
from dcm2bq.errors import ServiceError

FAILURES = (GoogleAPIError, GoogleAuthError, OSError)
"""Everything that the libraries raise for a request; `requests` and `socket` raise `OSError`s."""


@contextmanager
def mapped(service: str) -> Iterator[None]:
    """Turn what a request of the block raises into `ServiceError`, which names `service`."""
    try:
        yield
    except FAILURES as error:
        raise ServiceError(f"{service}: {cause(error)}") from None


def cause(error: BaseException) -> str:
    """Return why a request failed, by status and type alone: texts can quote values."""
    if isinstance(error, RetryError) and error.cause is not None:
        return cause(error.cause)
    if isinstance(error, GoogleAPICallError):
        return f"HTTP {error.code}"
    if isinstance(error, DefaultCredentialsError):
        return emulators.NO_CREDENTIALS
    return f"no answer ({type(error).__name__})"
