"""Refuse to read a bucket with Autoclass unless that is wanted: reading moves its objects."""

from dcm2bq.errors import ConfigError
from dcm2bq.gcs.bucket_settings import PERMISSION, BucketSettings
from dcm2bq.tools.backfill.storage_classes import STANDARD, ClassCounts

FLAG = "--yes-autoclass"

_EFFECT = "reading an object moves it to Standard storage, where it stays for a month or longer"


def require_consent(bucket: str, settings: BucketSettings | None) -> None:
    """Raise `ConfigError` for a bucket that has Autoclass."""
    if settings is not None and settings.autoclass.enabled:
        raise ConfigError(
            f"gs://{bucket}: Autoclass is on, and {_EFFECT}. See with --dry-run what that costs, "
            f"and accept it with {FLAG}"
        )


def require_knowledge(bucket: str, settings: BucketSettings | None, chosen: ClassCounts) -> None:
    """Raise `ConfigError` if cold objects are to be read and the bucket may have Autoclass."""
    cold = sorted(name for name in chosen if name != STANDARD)
    if settings is None and cold:
        raise ConfigError(
            f"gs://{bucket}: its settings cannot be read, and it has objects in {', '.join(cold)}: "
            f"if Autoclass is on, {_EFFECT}. Grant {PERMISSION}, leave these objects out with "
            f"--classes {STANDARD}, or accept it with {FLAG}"
        )
