"""The folder for what may be kept between runs, and may be deleted at any time."""

import os
from pathlib import Path


def user_cache() -> Path:
    """Return `dcm2bq` in the user's cache folder (XDG Base Directory Specification)."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "dcm2bq")
