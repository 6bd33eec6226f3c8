"""Convert a DICOM object to the JSON of its header."""

import difflib
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO, TextIOBase
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import quote

import msgspec

from dcm2bq.config import Config, from_overrides, with_overrides
from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.dicom.columns import lift
from dcm2bq.dicom.elements import (
    ALL_PIXEL_DATA,
    PIXEL_DATA_PROVIDER_URL,
    ROWS,
    Item,
    find,
)
from dcm2bq.dicom.memory import ROW, Claim, GiveWayError, budget_of
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.privacy import privacy_rules
from dcm2bq.dicom.read.part10 import read_file
from dcm2bq.dicom.read.source import Source, as_source
from dcm2bq.dicom.sop_classes import may_have_pixels
from dcm2bq.dicom.write.fit_row import encode_within
from dcm2bq.dicom.write.formats import format_of
from dcm2bq.dicom.write.writer import Writer
from dcm2bq.files import open_regular

_DEFAULTS = Config()
_MOST_LEVELS = 500
"""Nesting that BigQuery allows in a JSON value."""
_LEVELS_OF_ELEMENT = 4
"""Levels that are not of sequences: the metadata itself and, in DICOM JSON, a name, which is an
object in an array in an object."""
_WIDE = 2
"""Bytes that a Python string with characters beyond ASCII takes for each byte of its UTF-8."""
_PIXELS = (*ALL_PIXEL_DATA, PIXEL_DATA_PROVIDER_URL)

type Readable = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Source
"""A path, the content itself, a seekable binary stream, or a source that is read by range."""
type Configuration = Config | Mapping[str, Any]
"""A configuration, or its overrides as in `DCM2BQ_CONFIG`: nested, in camelCase."""


@dataclass(frozen=True, repr=False)
class Conversion:
    """The header of an object, converted.

    `text` is the header as JSON, `columns` the columns of `instances` that are filled from it, by
    keyword. `warnings` and `dropped_tags` name tags, never values.
    """

    text: str
    warnings: tuple[str, ...]
    dropped_tags: tuple[str, ...]
    transfer_syntax_uid: str | None
    columns: Mapping[str, str | None]

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The header as a dict: `text`, decoded on first use."""
        return cast("dict[str, Any]", msgspec.json.decode(self.text))

    def __repr__(self) -> str:
        """Return sizes and counts alone: values may identify a patient."""
        filled = sum(value is not None for value in self.columns.values())
        return (
            f"<Conversion: {len(self.text)} characters of JSON, {len(self.warnings)} warnings, "
            f"{len(self.dropped_tags)} dropped tags, {filled} of {len(self.columns)} columns>"
        )


def convert(
    source: Readable,
    config: Configuration | None = None,
    *,
    bulk_data_root: str = "",
    timeout: float | None = None,
    sniff: bool = False,
    **options: Any,
) -> Conversion:
    """Convert the header of a DICOM object to JSON, without reading its pixels.

    >>> scan = convert("scan.dcm", ignore_private=True, timeout=10)
    >>> scan.metadata["Modality"], scan.columns["StudyDate"], scan.warnings
    ('CT', '2004-01-19', ())

    source: a path, bytes, a seekable binary stream or a `Source`.
    config: a `Config`, or overrides: {"jsonOutput": {"ignorePrivate": True}}.
    options: options by their Python names, as above; they override `config`.
    bulk_data_root: start of BulkDataURIs with `explicit_bulk_data_root`.
    timeout: in seconds.
    sniff: raise UnlikeDicomError if the first bytes do not look like DICOM.
    Raises NotDicomError, UnreadableDicomError, ConfigError, ReadFailedError
    (another attempt may succeed), and errors of the source as they are.
    """
    config = _configuration(config, options)
    deadline = NO_DEADLINE if timeout is None else Deadline.after(timeout)
    with budget_of(config.limits).claim(deadline) as memory:
        # hasattr: isinstance with abstract classes would cost 1 % of a small file
        if isinstance(source, str) or hasattr(source, "__fspath__"):
            with open_regular(_local(cast("str | os.PathLike[str]", source))) as stream:
                return convert_within(
                    memory, stream, config, bulk_data_root=bulk_data_root, sniff=sniff
                )
        return convert_within(
            memory, _readable(source), config, bulk_data_root=bulk_data_root, sniff=sniff
        )


def convert_within(
    memory: Claim,
    source: BinaryIO | Source,
    config: Config,
    *,
    bulk_data_root: str = "",
    member: str | None = None,
    sniff: bool = False,
) -> Conversion:
    """Convert as `convert` does, within the deadline and budget of a claim that the caller holds.

    BulkDataURIs name the `member` if the source is one of an archive. The function keeps its claim
    until the row is stored, because the text is in memory until then.
    """
    handled = sys.exception()
    reader = as_source(source)
    uri = _UriParts(bulk_data_root, "" if member is None else f"member={quote(member)}&")
    while True:
        try:
            deadline = (
                memory.deadline.restarted()
            )  # the CPU time of earlier attempts does not count
            conversion = _convert(reader, config, uri, deadline, memory, sniff=sniff)
        except GiveWayError:
            pass  # the error holds what was read until this block ends: begin again after it
        except Exception as error:
            _release_frames(error, handled)
            raise
        else:
            width = 1 if conversion.text.isascii() else _WIDE
            memory.settle(ROW * len(conversion.text) * width)
            return conversion
        memory.begin_again()


_GROUPS = frozenset({"json_output", "bulk_data", "limits", "privacy"})
_NOT_OF_ONE_OBJECT = frozenset({"deadline_seconds", "members"})
"""Limits of events, for which `convert` has `timeout`, and of archives."""


def _option_paths() -> dict[str, tuple[str, str]]:
    """Return the group and name, in camelCase, of each option that a conversion obeys."""
    groups = (field for field in msgspec.structs.fields(Config) if field.name in _GROUPS)
    return {
        option.name: (group.encode_name, option.encode_name)
        for group in groups
        for option in msgspec.structs.fields(group.type)
        if option.name not in _NOT_OF_ONE_OBJECT
    }


_OPTIONS = _option_paths()
"""Keyword arguments of `convert`; a test ensures that no two groups have options of one name."""


def _configuration(config: Configuration | None, options: dict[str, Any]) -> Config:
    """Return the configuration that the arguments of `convert` make up."""
    if config is None and isinstance(options.get("options"), Config | Mapping):
        config = options.pop("options")  # the name that `config` had before `privacy.options`
    if config is None:
        config = _DEFAULTS
    elif not isinstance(config, Config):
        config = from_overrides(config)
    if not options:
        return config
    overrides: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        if name not in _OPTIONS:
            raise TypeError(f"convert() has no option {name!r}{_suggestion(name)}")
        group, option = _OPTIONS[name]
        overrides.setdefault(group, {})[option] = value
    return with_overrides(config, overrides)


def _suggestion(name: str) -> str:
    """Return a hint at the argument that a wrong name may stand for."""
    if name == "deadline_seconds":
        return ": use timeout"
    close = difflib.get_close_matches(
        name, [*_OPTIONS, "config", "bulk_data_root", "timeout", "sniff"], n=1
    )
    return f": did you mean {close[0]!r}?" if close else ""


def _local(path: str | os.PathLike[str]) -> Path:
    """Return a local path."""
    if isinstance(path, str) and path[:5].casefold() == "gs://":
        raise ValueError(
            "convert() opens local paths only: for an object in Cloud Storage pass a stream, such "
            "as google.cloud.storage's Blob.open('rb'), or use the command dcm2bq dump"
        )
    return Path(path)


def _readable(source: Readable) -> BinaryIO | Source:
    """Return content as a stream; return streams and sources unchanged."""
    if hasattr(source, "encoding") and isinstance(source, TextIOBase):
        raise TypeError("convert() needs a binary stream: open the file in mode 'rb'")
    if hasattr(source, "read_at") or hasattr(source, "read"):
        return cast("BinaryIO | Source", source)
    if isinstance(source, bytes | bytearray | memoryview):
        return BytesIO(source)
    raise TypeError(
        f"convert() needs a path, bytes, a binary stream or a Source, not {type(source).__name__}"
    )


def _release_frames(error: BaseException | None, handled: BaseException | None) -> None:
    """Release what was read, which the frames of an error hold while it is being handled.

    `handled` is what the caller was handling before: its frames stay as they are.
    """
    while error is not None and error is not handled:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


class _UriParts(NamedTuple):
    """What BulkDataURIs of one source have in common: their root, and the start of the query."""

    root: str
    query: str


def _convert(
    source: Source,
    config: Config,
    uri: _UriParts,
    deadline: Deadline,
    memory: Claim,
    *,
    sniff: bool,
) -> Conversion:
    """Read, apply the privacy rules, write, fit into a row, and lift the columns."""
    output = config.json_output
    notes = Notes()
    format_ = format_of(output)
    depth = min(config.limits.depth, (_MOST_LEVELS - _LEVELS_OF_ELEMENT) // format_.levels)
    file = read_file(
        source, config, notes, depth=depth, deadline=deadline, memory=memory, sniff=sniff
    )
    if rules := privacy_rules(config.privacy):
        rules.apply(file.meta, notes, deadline)
        rules.apply(file.data_set, notes, deadline)
    metadata: dict[str, Any] = {}
    most_text = config.bulk_data.text_max_bytes
    new_writer = partial(
        Writer,
        output,
        notes,
        root=uri.root,
        query=uri.query,
        most_text=most_text,
        deadline=deadline,
        memory=memory,
    )
    data_sets = []
    if format_.has_meta and not output.ignore_meta_header:
        data_sets.append((new_writer(), file.meta))
    suffix = "&deflated=true" if file.deflated else ""
    data_sets.append((new_writer(suffix=suffix), file.data_set))
    memory.charge(format_.weight * memory.read)
    for writer, elements in data_sets:
        writer.write(elements, metadata)
    limit = config.limits.output_bytes
    text = encode_within(limit, metadata, data_sets, notes, deadline=deadline, memory=memory)
    columns = lift(file.data_set, notes, deadline)
    _note_missing_pixels(file.data_set, columns["SOPClassUID"], notes)
    return Conversion(
        text,
        notes.warnings,
        notes.dropped_tags,
        file.transfer_syntax_uid,
        MappingProxyType(columns),
    )


def _note_missing_pixels(data_set: Item, sop_class: str | None, notes: Notes) -> None:
    """Warn of an image without pixel data: the object may be cut between two elements."""
    if (
        find(data_set, ROWS)
        and not any(find(data_set, tag) for tag in _PIXELS)
        and may_have_pixels(sop_class)
    ):
        notes.add("Rows without pixel data: the object may be cut", tag=ROWS)
