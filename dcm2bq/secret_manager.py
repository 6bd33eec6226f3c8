"""Read the key of the hash from Secret Manager, by the name in `privacy.hashKeySecret`."""

import binascii
from http import HTTPStatus

import msgspec

from dcm2bq import emulators, hash_key
from dcm2bq.config import Privacy
from dcm2bq.deadline import Deadline
from dcm2bq.errors import ConfigError, ServiceError
from dcm2bq.transport import Answer, NoAnswerError, Transport

SERVICE = "https://secretmanager.googleapis.com"

_SECONDS = 20.0
"""Time for one reading with retries: it takes some 100 ms, and the function starts after it."""
_NOT_OURS = frozenset(
    {HTTPStatus.UNAUTHORIZED, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
)
"""Statuses below 500 that say nothing about the secret or the rights to it."""


class _Payload(msgspec.Struct):
    data: bytes = b""  # base64 in JSON


class _SecretVersion(msgspec.Struct):
    payload: _Payload


def provide_hash_key(options: Privacy) -> None:
    """Read the secret of `privacy.hashKeySecret`, if it is set, and keep it for this process.

    Does nothing if it was read before. Raises `ConfigError` if the secret does not exist or may
    not be read, and `ServiceError` if Secret Manager does not answer.
    """
    secret = options.hash_key_secret
    if secret is None or hash_key.is_kept(secret):
        return
    hash_key.keep(secret, _read(secret))


def _read(secret: str) -> bytes:
    """Return the content of a secret's version, by default of the latest one."""
    version = secret if "/versions/" in secret else f"{secret}/versions/latest"
    transport = Transport(SERVICE, emulators.SECRET_MANAGER)
    try:
        answer = transport.request(
            "GET", f"/v1/{version}:access", deadline=Deadline.after(_SECONDS)
        )
    except NoAnswerError as error:
        raise ServiceError(f"Secret Manager: {version}: {error}") from None
    if answer.status != HTTPStatus.OK:
        raise _failure(version, answer)
    try:
        return msgspec.json.decode(answer.body, type=_SecretVersion).payload.data
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error):
        raise ServiceError(f"Secret Manager: {version}: the answer is not a secret") from None


def _failure(version: str, answer: Answer) -> ConfigError | ServiceError:
    is_refusal = HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR
    if not is_refusal or answer.status in _NOT_OURS:
        return ServiceError(f"Secret Manager: {version}: {answer}")
    return ConfigError(
        f"privacy.hashKeySecret: {version}: {answer}: the secret does not exist, its version is "
        "disabled, or this identity lacks roles/secretmanager.secretAccessor on it"
    )
