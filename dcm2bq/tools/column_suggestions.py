"""A file for `dcm2bq columns` with what a sample of objects holds: attributes, never values."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dcm2bq.config import Config
from dcm2bq.dicom import dictionary
from dcm2bq.errors import ConfigError, Dcm2BqError, NotDicomError, describe
from dcm2bq.tools.attribute_paths import AttributePath, PrivateElement, parse_path, parse_private
from dcm2bq.tools.column_file import COUNTS, KEYS, VARYING, Level
from dcm2bq.tools.dump import File, Files
from dcm2bq.tools.sampling import Sample
from dcm2bq.tools.wording import counted

_LEFT_OUT = frozenset({"ContentSequence", "PerFrameFunctionalGroupsSequence"})
"""Sequences of which one item says little; the view `sr_content` has all of the former."""
_TAKEN = frozenset({*KEYS[Level.INSTANCE], *COUNTS.values(), VARYING})
_CREATORS = range(0x10, 0x100)


@dataclass(frozen=True, slots=True)
class ColumnSuggestion:
    """The text of the file, and a line for each object that could not be converted."""

    text: str
    failures: tuple[str, ...]


type Source = AttributePath | PrivateElement


def suggest(path: str, config: Config, objects: int) -> ColumnSuggestion:
    """Return a file with the attributes of a sample of up to `objects` objects under a path.

    Raises `ConfigError` if none of them could be converted.
    """
    counts: Counter[Source] = Counter()
    failures = []
    converted = 0
    for file in _sample(Files(config).find([path]), objects):
        try:
            metadata = file.convert().metadata
        except NotDicomError:
            continue
        except (Dcm2BqError, OSError) as error:
            reason = describe(error) if isinstance(error, Dcm2BqError) else error.strerror or error
            failures.append(f"{file.name}: {reason}")
            continue
        converted += 1
        counts.update(set(_sources(metadata)))
    if not converted:
        raise ConfigError("\n".join([*failures, f"{path}: no object could be converted"]))
    return ColumnSuggestion(_text(counts, converted), tuple(failures))


def _sample(files: Iterable[File], size: int) -> Iterator[File]:
    """Yield some of the files, spread evenly over them."""
    sample: Sample[File] = Sample(size)
    for file in files:
        if file.member is None:
            sample.add(file.path, file)
    for _, file in sample:
        yield file


def _sources(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[Source]:
    """Yield what can be a column: of a sequence, the attributes in its first item."""
    for key, value in metadata.items():
        tag = dictionary.tags_by_keyword().get(key)
        if tag is None:
            if not prefix and (private := _private(key, metadata)):
                yield private
        elif dictionary.public_vr(tag) == "SQ":
            if isinstance(value, list) and value and key not in _LEFT_OUT:
                yield from _sources(value[0], f"{prefix}{key}[0].")
        elif prefix or key not in _TAKEN:
            try:
                yield parse_path(prefix + key)
            except ConfigError:  # binary
                continue


def _private(key: str, metadata: Mapping[str, Any]) -> PrivateElement | None:
    """Return a private element if the dictionary knows it: other creators might be anything."""
    tag = int(key, 16)
    if not dictionary.is_private(tag) or tag & 0xFFFF <= dictionary.CREATOR_LAST:
        return None
    written = metadata.get(f"{dictionary.creator_tag(tag):08X}")
    creator = dictionary.known_creator(written) if isinstance(written, str) else ""
    if (tag >> 8 & 0xFF) not in _CREATORS or not creator:
        return None
    if not dictionary.private_name(tag, creator):
        return None
    try:
        return parse_private(creator, f"{tag >> 16:04X}xx{tag & 0xFF:02X}")
    except ConfigError:  # a sequence, or binary
        return None


def _text(counts: Counter[Source], converted: int) -> str:
    lines = [
        f"# The attributes of {counted(converted, 'object')}, and in how many of them they occur.",
        "# Delete what you do not need, then: dcm2bq columns --create FILE",
        'view = "my_columns"',
        'level = "instance" # or "series" or "study"',
    ]
    names: Counter[str] = Counter(name.casefold() for name in _TAKEN)
    for source, count in sorted(counts.items(), key=_order):
        name = _name(source)
        names[name.casefold()] += 1
        if (same := names[name.casefold()]) > 1:
            name = f"{name}_{same}"
        lines += ["", f"[[columns]] # {100 * count / converted:.0f} % ({source.description})"]
        if isinstance(source, AttributePath):
            lines.append(f"attribute = {json.dumps(source.text)}")
        else:
            lines.append(f"creator = {json.dumps(source.creator)}")
            lines.append(f'element = "{source.group}xx{source.tag & 0xFF:02X}"')
        if isinstance(source, PrivateElement) or name != source.keyword:
            lines.append(f'name = "{name}"')
    return "\n".join(lines) + "\n"


def _order(entry: tuple[Source, int]) -> tuple[int, str]:
    """Sort by tag, and what is within a sequence by the tag of that."""
    source, _ = entry
    if isinstance(source, PrivateElement):
        return source.tag, source.creator
    return dictionary.tags_by_keyword()[str(source.steps[0])], source.text


def _name(source: Source) -> str:
    if isinstance(source, AttributePath):
        return source.keyword
    name = dictionary.private_name(source.tag, source.creator)
    plain = "_".join("".join(c if c.isascii() and c.isalnum() else " " for c in name).split())
    return plain.lower() if plain[:1].isalpha() else f"private_{plain.lower()}"
