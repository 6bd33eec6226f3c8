"""Part of the build: README.md as the description of the package.

Its links and pictures lead to the files as tagged, since an index has no files beside it.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(?<=\]\()(?!https?:|#)")
_PICTURE = re.compile(r'(?<=src="|set=")(?!https?:)')


class PackageReadme(MetadataHookInterface):
    """Sets `readme`, which `pyproject.toml` leaves to it."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set it in the fields of the project."""
        root = Path(self.root)
        (version,) = re.findall(
            '__version__ = "(.+)"', (root / "dcm2bq" / "__init__.py").read_text()
        )
        text = (root / "README.md").read_text()
        text = linked(text, metadata["urls"]["Homepage"], f"v{version}")
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def linked(text: str, homepage: str, tag: str) -> str:
    """Return Markdown whose relative links lead to a tag of the repository."""
    text = _LINK.sub(f"{homepage}/blob/{tag}/", text)
    return _PICTURE.sub(f"{homepage}/raw/{tag}/", text)
