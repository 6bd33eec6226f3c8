"""The key of the pseudonyms: from the environment, or from a secret, and its digest.

This module has no network: `secret_manager` reads the secret, once per process, and keeps its
content here. A key never leaves the process; only its digest does.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping

from dcm2bq.config import Privacy
from dcm2bq.errors import ConfigError

_LEAST_BYTES = 16
"""128 bits: a shorter key could be guessed."""
_DIGEST_MESSAGE = b"dcm2bq\0digest of the key"
"""What the digest is the HMAC of: no value of a header contains a NUL, so none has this digest."""
_DIGEST_CHARS = 16
"""64 bits: enough to tell keys apart, and the longest that a label of a table needs to be."""

_contents: dict[str, bytes] = {}
"""The content of each secret that was read, by its name in `privacy.hashKeySecret`."""


def keep(secret: str, content: bytes) -> None:
    """Keep the content of a secret for the rest of this process."""
    _contents[secret] = content


def is_kept(secret: str) -> bool:
    """Return whether the content of a secret is kept."""
    return secret in _contents


def hash_key(options: Privacy, environ: Mapping[str, str] | None = None) -> bytes:
    """Return the key of the hash; empty if none is set.

    The secret takes precedence over the variable, which must hold the same key if it is set.
    One newline at the end is ignored: a secret written by a pipe has one, and a shell that passes
    it on strips it. Both must give the same key.

    Raises `ConfigError` if the two differ, or if the secret has not been read.
    """
    environ = os.environ if environ is None else environ
    given = os.fsencode(environ.get(options.hash_key_variable, "")).removesuffix(b"\n")
    secret = options.hash_key_secret
    if secret is None:
        return given
    if secret not in _contents:
        raise ConfigError(
            "privacy.hashKeySecret: the secret has not been read: call "
            "dcm2bq.secret_manager.provide_hash_key first, or use privacy.hashKeyVariable"
        )
    key = _contents[secret].removesuffix(b"\n")
    if given and not hmac.compare_digest(given, key):
        raise ConfigError(
            f"privacy.hashKeySecret: {secret} and the variable {options.hash_key_variable} hold "
            "different keys: unset the variable"
        )
    return key


def required_key(options: Privacy) -> bytes:
    """Return the key of the hash; raise `ConfigError` if it is missing or too short."""
    key = hash_key(options)
    if len(key) < _LEAST_BYTES:
        rule = f"must hold {_LEAST_BYTES} bytes or more"
        if options.hash_key_secret:
            raise ConfigError(f"privacy.hashKeySecret: {options.hash_key_secret} {rule}")
        variable = options.hash_key_variable
        fault = "is too short" if variable in os.environ else "is not set"
        raise ConfigError(
            f"privacy.hashKeyVariable: the environment variable {variable} {fault}: it {rule}"
        )
    return key


def digest(options: Privacy) -> str | None:
    """Return hex digits that identify the key but do not reveal it.

    Returns None if no value is hashed, or if the key is not known to this process. Raises
    `ConfigError` for a key that is too short or ambiguous.
    """
    secret = options.hash_key_secret
    if not options.needs_key or (secret is not None and secret not in _contents):
        return None
    if not hash_key(options):
        return None
    made = hmac.digest(required_key(options), _DIGEST_MESSAGE, hashlib.sha256)
    return made.hex()[:_DIGEST_CHARS]
