"""Convert a DICOM object to the JSON of its header."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, BinaryIO, cast

import msgspec

from dcm2bq.config import Config, from_overrides
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
from dcm2bq.dicom.write.writer import Writer, format_of

_DEFAULTS = Config()
_MOST_LEVELS = 500
"""Nesting that BigQuery allows in a JSON value."""
_LEVELS_OF_ELEMENT = 4
_WIDE = 2
"""Bytes for each byte of JSON, as Python's text, where characters beyond ASCII are in it."""
_PIXELS = (*ALL_PIXEL_DATA, PIXEL_DATA_PROVIDER_URL)


@dataclass(frozen=True)
class Conversion:
    """What became of an object.

    `text` is the header as JSON; `attributes` holds the columns lifted from it by keyword;
    `warnings` and `dropped_tags` name tags, never values.
    """

    text: str
    warnings: tuple[str, ...]
    dropped_tags: tuple[str, ...]
    transfer_syntax_uid: str | None
    attributes: Mapping[str, str | None]

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The header as a JSON object; decoded from `text` when it is asked for."""
        return cast("dict[str, Any]", msgspec.json.decode(self.text))


def convert(
    stream: BinaryIO | Source,
    options: Config | Mapping[str, Any] = _DEFAULTS,
    *,
    root: str = "",
    deadline: Deadline = NO_DEADLINE,
    memory: Claim | None = None,
) -> Conversion:
    """Return the header of a DICOM object as JSON, without reading its bulk values.

    `stream` is a seekable binary stream or a `Source`, `options` the configuration or its
    overrides, `root` what BulkDataURIs begin with if `jsonOutput.explicitBulkDataRoot` is
    on: `gs://bucket/name?generation=G`. Past `deadline` it raises
    `ReadFailedError`, or `UnreadableDicomError` where the time went into the object itself.
    `memory` is a claim to the budget; without one, it has one while it converts. Raises
    `NotDicomError` for what is no DICOM, `UnreadableDicomError` for what is broken beyond
    help or exceeds a limit, `ConfigError` for options that cannot be followed; what the
    source raises passes.
    """
    config = options if isinstance(options, Config) else from_overrides(options)
    if memory is None:
        with budget_of(config.limits).claim(deadline) as claim:
            return convert(stream, config, root=root, deadline=deadline, memory=claim)
    source = as_source(stream)
    while True:
        try:
            conversion = _convert(source, config, root, deadline.restarted(), memory)
        except GiveWayError:
            pass  # the exception holds what was read: not here
        except Exception as error:
            _let_go(error)
            raise
        else:
            width = 1 if conversion.text.isascii() else _WIDE
            memory.settle(ROW * len(conversion.text) * width)
            return conversion
        memory.begin_again()


def _let_go(error: BaseException | None) -> None:
    """Forget what was read, which an error's frames hold for as long as it is handled."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _convert(
    source: Source, config: Config, root: str, limit: Deadline, memory: Claim
) -> Conversion:
    output = config.json_output
    notes = Notes()
    form = format_of(output)
    depth = min(config.limits.depth, (_MOST_LEVELS - _LEVELS_OF_ELEMENT) // form.levels)
    file = read_file(source, config, notes, depth=depth, deadline=limit, memory=memory)
    if rules := privacy_rules(config.privacy):
        rules.apply(file.meta, notes, limit)
        rules.apply(file.data_set, notes, limit)
    metadata: dict[str, Any] = {}
    most_text = config.bulk_data.text_max_bytes
    new_writer = partial(
        Writer, output, notes, root=root, most_text=most_text, deadline=limit, memory=memory
    )
    written = []
    if form.has_meta and not output.ignore_meta_header:
        written.append((new_writer(), file.meta))
    suffix = "&deflated=true" if file.deflated else ""
    written.append((new_writer(suffix=suffix), file.data_set))
    memory.charge(form.weight * memory.read)
    for writer, elements in written:
        writer.write(elements, metadata)
    most = config.limits.output_bytes
    text = encode_within(most, metadata, written, notes, deadline=limit, memory=memory)
    attributes = lift(file.data_set, notes, limit)
    _note_missing_pixels(file.data_set, attributes["SOPClassUID"], notes)
    return Conversion(
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
