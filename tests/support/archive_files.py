"""Archives in memory, for tests of what becomes of their members."""

import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

type Members = Mapping[str, bytes] | Sequence[tuple[str, bytes]]
"""The content of each member by its name; a sequence may have a name several times."""


def zip_of(
    members: Members, *, compression: int = zipfile.ZIP_DEFLATED, comment: bytes = b""
) -> bytes:
    """Return a ZIP of the members, in their order."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in _pairs(members):
            archive.writestr(name, content)
        archive.comment = comment
    return file.getvalue()


def tar_of(members: Members, *, is_compressed: bool = False, **options: Any) -> bytes:
    """Return a TAR of the members, in their order; `options` are those of tarfile."""
    file = io.BytesIO()
    mode: Literal["w:", "w:gz"] = "w:gz" if is_compressed else "w:"
    with tarfile.open(fileobj=file, mode=mode, **options) as archive:
        for name, content in _pairs(members):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _pairs(members: Members) -> Iterable[tuple[str, bytes]]:
    return members.items() if isinstance(members, Mapping) else members
