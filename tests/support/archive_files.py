"""Archives in memory, for tests of what becomes of their members."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Literal


def zip_of(members: Mapping[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a ZIP of the members, in their order."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tar_of(members: Mapping[str, bytes], *, is_compressed: bool = False) -> bytes:
    """Return a TAR of the members, in their order."""
    file = io.BytesIO()
    mode: Literal["w:", "w:gz"] = "w:gz" if is_compressed else "w:"
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()
