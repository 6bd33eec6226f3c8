"""Foreign exceptions become errors of the taxonomy, none of them missing and none quoted."""

import inspect
import re
from pathlib import Path
from types import ModuleType

import google.api_core.exceptions
import google.auth.exceptions
import pytest
import requests.exceptions
import urllib3.exceptions

from dcm2bq import emulators, errors
from dcm2bq.errors import Dcm2BqError, ServiceError
from dcm2bq.google_errors import FAILURES, mapped
from dcm2bq.transport import NO_ANSWER, Transport

NEVER_RAISED = {
    "ProxySchemeUnsupported",  # by ProxyManager, which is not used
    "AsyncRestUnsupportedParameterError",  # by asynchronous clients
    "MessageDefect",  # of the standard library's email, imported there
    "httplib_IncompleteRead",  # of http.client, the base of urllib3's IncompleteRead
    "BaseHTTPError",  # urllib3's: requests turns it into its own
    "CompatJSONDecodeError",  # of json, the base of requests' JSONDecodeError
}
"""What the modules hold and no request raises."""


def exceptions(module: ModuleType) -> dict[str, type[Exception]]:
    return {
        name: kind
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and issubclass(kind, Exception) and not issubclass(kind, Warning)
    }


@pytest.mark.parametrize(
    ("module", "table"),
    [
        (urllib3.exceptions, NO_ANSWER),
        (google.auth.exceptions, NO_ANSWER),
        (google.auth.exceptions, FAILURES),
        (google.api_core.exceptions, FAILURES),
        (requests.exceptions, FAILURES),
    ],
    ids=lambda each: each.__name__ if isinstance(each, ModuleType) else "",
)
def test_every_exception_of_a_library_is_in_its_table(
    module: ModuleType, table: tuple[type[Exception], ...]
) -> None:
    missing = {name for name, kind in exceptions(module).items() if not issubclass(kind, table)}
    assert missing <= NEVER_RAISED


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (google.api_core.exceptions.Forbidden("SECRET"), "BigQuery: HTTP 403"),
        (
            google.api_core.exceptions.RetryError(
                "SECRET", google.api_core.exceptions.ServiceUnavailable("SECRET")
            ),
            "BigQuery: HTTP 503",
        ),
        (google.auth.exceptions.RefreshError("SECRET"), "BigQuery: no answer (RefreshError)"),
        (requests.exceptions.ReadTimeout("SECRET"), "BigQuery: no answer (ReadTimeout)"),
    ],
)
def test_a_failure_names_the_service_and_quotes_nothing(raised: Exception, message: str) -> None:
    with pytest.raises(ServiceError) as caught, mapped("BigQuery"):
        raise raised
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "content",
    [None, "SECRET", "{}", '["SECRET"]', '{"type": "service_account", "private_key": "SECRET"}'],
)
def test_an_unusable_credentials_file_is_reported_by_the_name_of_its_variable(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key.json"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with pytest.raises(ServiceError) as caught:
        Transport("https://storage.googleapis.com", emulators.STORAGE)
    assert str(caught.value) == (
        "GOOGLE_APPLICATION_CREDENTIALS: the file is missing or is not a credentials file: "
        "correct the variable, or unset it"
    )


def test_missing_credentials_are_reported_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(ServiceError, match="run gcloud auth"), mapped("BigQuery"):
        raise google.auth.exceptions.DefaultCredentialsError("SECRET")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/none")
    with pytest.raises(ServiceError, match="GOOGLE_APPLICATION_CREDENTIALS: "), mapped("BigQuery"):
        raise google.auth.exceptions.DefaultCredentialsError("SECRET")


def test_errors_of_this_package_pass_through_unchanged() -> None:
    with pytest.raises(errors.ConfigError, match=r"^an option$"), mapped("BigQuery"):
        raise errors.ConfigError("an option")


def test_the_tree_in_the_docstring_is_the_taxonomy() -> None:
    """A node's depth is its number of bars and dashes before the name."""
    parents: dict[int, str] = {}
    shown: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.fullmatch(r"    ([ |-]*)(\w+Error)(?: .*)?", line):
            depth = len(match[1]) // 3
            parents[depth] = match[2]
            shown[match[2]] = parents[depth - 1] if depth else "Exception"
    assert shown == {
        name: kind.__base__.__name__
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, Dcm2BqError) and kind.__base__
    }
