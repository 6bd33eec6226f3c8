"""What tf/ declares."""

from functools import cache
from typing import Any

import hcl2

from tests.support.function_stack import ROOT


@cache
def parsed() -> tuple[dict[str, Any], ...]:
    """Return the blocks of each file of tf/; parsing them takes two seconds."""
    return tuple(hcl2.loads(file.read_text()) for file in sorted((ROOT / "tf").glob("*.tf")))
