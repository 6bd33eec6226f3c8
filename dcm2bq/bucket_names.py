"""Cloud Storage's rule for bucket names, for every module that accepts one."""

import re

PATTERN = r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"
RULE = (
    "a bucket's name has 3 to 222 characters (lowercase letters, digits, '-', '_' and '.') and "
    "begins and ends with a letter or digit"
)
"""`PATTERN` in words, for messages."""
_NAME = re.compile(PATTERN)


def is_bucket_name(text: str) -> bool:
    """Return whether Cloud Storage could have a bucket with this name."""
    return bool(_NAME.fullmatch(text))
