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
_EMULATOR_VARIABLES = {"BigQuery": emulators.BIGQUERY}


@contextmanager
def mapped(service: str) -> Iterator[None]:
    """Turn what a request of the block raises into `ServiceError`, which names `service`.

    `service` may go on after a colon, with the name of a table for instance.
    """
    try:
        yield
    except FAILURES as error:
        variable = _EMULATOR_VARIABLES.get(service.partition(":")[0], "")
        status = error.code if isinstance(error, GoogleAPICallError) else None
        raise ServiceError(f"{service}: {cause(error, variable)}", status=status) from None


def cause(error: BaseException, emulator_variable: str = "") -> str:
    """Return why a request failed, by status and type alone: texts can quote values.

    If nothing answered at the local server that `emulator_variable` names, return its address too.
    """
    if isinstance(error, RetryError) and error.cause is not None:
        return cause(error.cause, emulator_variable)
    if isinstance(error, GoogleAPICallError):
        return f"HTTP {error.code}"
    if isinstance(error, DefaultCredentialsError):
        return emulators.no_credentials()
    return f"no answer ({type(error).__name__}){emulators.place(emulator_variable)}"
