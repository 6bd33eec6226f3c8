"""Attributes as people write them: keywords, paths into sequences, elements of private creators."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dcm2bq.dicom import dictionary
from dcm2bq.errors import ConfigError

_STEP = re.compile(r"(?P<keyword>\w+)(?:\[(?P<index>\d{1,9})\])?", re.ASCII)
_ELEMENT = re.compile(r"(?P<group>[0-9A-F]{4})xx(?P<element>[0-9A-F]{2})", re.IGNORECASE)
_REFERENCED_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})
"""VRs with binary values: the metadata has only references to them."""
_EXAMPLE = "RequestAttributesSequence[0].ScheduledStationAETitle"


@dataclass(frozen=True, slots=True)
class AttributePath:
    """A public attribute at the top of a header, or in items of sequences.

    `steps` are the keywords, each sequence's followed by the number of the item, from 0 on.
    `index` is the number of the value, or None if the path names none. `text` is the path as
    written.
    """

    text: str
    steps: tuple[str | int, ...]
    tag: int
    index: int | None = None

    @property
    def keyword(self) -> str:
        """The keyword of the attribute itself."""
        return str(self.steps[-1])

    @property
    def vr(self) -> str:
        """The VR, as the dictionary has it (PS3.6)."""
        return dictionary.public_vr(self.tag)

    @property
    def description(self) -> str:
        """The name of the attribute (PS3.6) and its tag."""
        place = f", {self.text}" if len(self.steps) > 1 or self.index is not None else ""
        return f"{dictionary.attribute_name(self.tag)} {_tag_text(self.tag)}{place}"

    def find(self, metadata: Mapping[str, Any]) -> Any:
        """Return the value in a header of the format `flat`; None if it is empty or absent."""
        value: Any = metadata
        for step in self.steps:
            if isinstance(step, str):
                value = value.get(step) if isinstance(value, dict) else None
            else:
                value = _item(value, step)
        if self.index is None:
            return value
        if isinstance(value, list):
            return _item(value, self.index)
        return None if self.index else value


@dataclass(frozen=True, slots=True)
class PrivateElement:
    """An element of a private creator, in whichever block the object has it (PS3.5 7.8.1).

    `tag` is that of the element in the first block, 10.
    """

    creator: str
    tag: int

    @property
    def vr(self) -> str:
        """The VR, as pydicom's dictionary of private elements has it; UN if it is unknown."""
        return dictionary.private_vr(self.tag, self.creator)

    @property
    def description(self) -> str:
        """The element as in the standard, (gggg,xxee), with its name if it is known."""
        name = dictionary.private_name(self.tag, self.creator)
        place = f"({self.group},xx{self.tag & 0xFF:02X}) of {self.creator}"
        return f"{name} {place}" if name else place

    @property
    def group(self) -> str:
        """The group in hex."""
        return f"{self.tag >> 16:04X}"


def parse_path(text: str) -> AttributePath:
    """Return an attribute given by its keyword or path.

    >>> parse_path("PixelSpacing[1]").find({"PixelSpacing": [0.5, 0.7]})
    0.7
    >>> parse_path("ProcedureCodeSequence[0].CodeValue").steps
    ('ProcedureCodeSequence', 0, 'CodeValue')

    Raises `ConfigError` for an unknown keyword, with those that are most like it, and for a path
    that leads to no value.
    """
    *parents, last = text.split(".")
    steps: list[str | int] = []
    for part in parents:
        keyword, tag, index = _step(part, text)
        if dictionary.public_vr(tag) != "SQ":
            raise ConfigError(f"{text}: {keyword} is not a sequence, so nothing can follow it")
        if index is None:
            raise ConfigError(f"{text}: {keyword} is a sequence: write {keyword}[0] for an item")
        steps += [keyword, index]
    keyword, tag, index = _step(last, text)
    vr = dictionary.public_vr(tag)
    if vr == "SQ":
        raise ConfigError(f"{text}: is a sequence: name an attribute of an item, as in {_EXAMPLE}")
    if vr in _REFERENCED_VRS:
        raise ConfigError(f"{text}: has binary values, which are not in the metadata")
    return AttributePath(text, (*steps, keyword), tag, index)


def parse_private(creator: str, element: str) -> PrivateElement:
    """Return an element of a private creator, given as in pydicom's dictionary: `0019xx0C`.

    >>> parse_private("SIEMENS MR HEADER", "0019xx0C").description
    'B_value (0019,xx0C) of SIEMENS MR HEADER'

    Raises `ConfigError` if that is not a private element, or has no value in the metadata.
    """
    match = _ELEMENT.fullmatch(element)
    group = int(match["group"], 16) if match else 0
    if match is None or not group & 1:
        raise ConfigError(
            f"{element}: is not a private element: write an odd group, xx for the block, and the "
            "last two digits, as in 0019xx0C"
        )
    if not creator.strip():
        raise ConfigError(f"{element}: the creator is empty")
    private = PrivateElement(creator.strip(), group << 16 | 0x1000 | int(match["element"], 16))
    if private.vr == "SQ" or private.vr in _REFERENCED_VRS:
        raise ConfigError(f"{element}: has VR {private.vr}, which has no single value")
    return private


def parse_paths(text: str) -> tuple[AttributePath, ...]:
    """Return attributes given with commas between them; raise `ConfigError` with every mistake."""
    paths: list[AttributePath] = []
    errors: list[str] = []
    for part in text.split(","):
        if not part.strip():
            errors.append(
                "an attribute is missing: write keywords or paths with one comma between them"
            )
            continue
        try:
            paths.append(parse_path(part.strip()))
        except ConfigError as error:
            errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    return tuple(paths)


def alternatives(word: str, known: Mapping[str, Any]) -> str:
    """Return the known words most like one that is unknown, as the end of a message.

    >>> alternatives("slice thickness", dictionary.tags_by_keyword())
    ': did you mean SliceThickness?'
    """
    plain = "".join(word.split()).casefold()
    by_plain = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(plain, by_plain, n=3, cutoff=0.75)
    if plain in by_plain:
        close = [plain]
    return f": did you mean {' or '.join(by_plain[each] for each in close)}?" if close else ""


def _step(part: str, text: str) -> tuple[str, int, int | None]:
    """Return keyword, tag and number of a part of a path."""
    match = _STEP.fullmatch(part)
    keyword = match["keyword"] if match else part
    tag = dictionary.tags_by_keyword().get(keyword)
    if tag is None:
        place = "" if part == text else f"{text}: "
        similar = alternatives(keyword, dictionary.tags_by_keyword())
        advice = similar or f": write a keyword of PS3.6, or a path such as {_EXAMPLE}"
        raise ConfigError(f"{place}{keyword} is not a keyword{advice}")
    return keyword, tag, int(match["index"]) if match and match["index"] else None


def _item(value: Any, index: int) -> Any:
    return value[index] if isinstance(value, list) and index < len(value) else None


def _tag_text(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
