"""Convert a DICOM object to the JSON of its header."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, BinaryIO

from dcm2bq.config import Config, from_overrides
from dcm2bq.dicom.attributes import lift
from dcm2bq.dicom.file import read_file
from dcm2bq.dicom.fold import encode_within
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.output import Writer, format_of
from dcm2bq.dicom.privacy import privacy_rules
from dcm2bq.dicom.sop_classes import may_have_pixels
from dcm2bq.dicom.source import Deadline, Source, as_source
from dcm2bq.dicom.tree import ALL_PIXEL_DATA, PIXEL_DATA_PROVIDER_URL, ROWS, Item, find

_DEFAULTS = Config()
_MOST_LEVELS = 500
"""Nesting that BigQuery allows in a JSON value."""
_LEVELS_OF_ELEMENT = 4
_PIXELS = (*ALL_PIXEL_DATA, PIXEL_DATA_PROVIDER_URL)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of an object.

    `metadata` is the header as a JSON object, `text` the same encoded; `attributes` holds
    the columns lifted from it by keyword; `warnings` and `dropped_tags` name tags, never
    values.
    """

    metadata: dict[str, Any]
    text: str
    warnings: tuple[str, ...]
    dropped_tags: tuple[str, ...]
    transfer_syntax_uid: str | None
    attributes: Mapping[str, str | None]


def convert(
    stream: BinaryIO | Source,
    options: Config | Mapping[str, Any] = _DEFAULTS,
    *,
    root: str = "",
    deadline: float | None = None,
) -> Conversion:
    """Return the header of a DICOM object as JSON, without reading its bulk values.

    `stream` is a seekable binary stream or a `Source`, `options` the configuration or its
    overrides, `root` what BulkDataURIs begin with if `jsonOutput.explicitBulkDataRoot` is
    on: `gs://bucket/name?generation=G`. Past `deadline`, by `time.monotonic`, it raises
    `ReadFailedError`. Raises `NotDicomError` for what is no DICOM, `UnreadableDicomError`
    for what is broken beyond help or exceeds a limit, `ConfigError` for privacy options that
    can not be followed; what the source raises passes.
    """
    config = options if isinstance(options, Config) else from_overrides(options)
    output = config.json_output
    source = as_source(stream)
    notes = Notes()
    form = format_of(output)
    depth = min(config.limits.depth, (_MOST_LEVELS - _LEVELS_OF_ELEMENT) // form.levels)
    limit = Deadline(deadline)
    file = read_file(source, config, notes, depth=depth, deadline=limit)
    if rules := privacy_rules(config.privacy):
        rules.apply(file.meta, notes)
        rules.apply(file.data_set, notes)
    metadata: dict[str, Any] = {}
    most_text = config.bulk_data.text_max_bytes
    new_writer = partial(Writer, output, notes, root=root, most_text=most_text, deadline=limit)
    written = []
    if form.has_meta and not output.ignore_meta_header:
        written.append((new_writer(), file.meta))
    suffix = "&deflated=true" if file.deflated else ""
    written.append((new_writer(suffix=suffix), file.data_set))
    for writer, elements in written:
        writer.write(elements, metadata)
    text = encode_within(config.limits.output_bytes, metadata, written, notes, limit)
    attributes = lift(file.data_set, notes)
    _note_missing_pixels(file.data_set, attributes["SOPClassUID"], notes)
    return Conversion(
        metadata,
        text,
        notes.warnings,
        notes.dropped_tags,
        file.transfer_syntax_uid,
        MappingProxyType(attributes),
    )


def _note_missing_pixels(data_set: Item, sop_class: str | None, notes: Notes) -> None:
    """Note an image without pixels: the object may be cut between two elements."""
    if (
        find(data_set, ROWS)
        and not any(find(data_set, tag) for tag in _PIXELS)
        and may_have_pixels(sop_class)
    ):
        notes.add("Rows without pixel data: the object may be cut", tag=ROWS)
