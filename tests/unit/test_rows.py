"""The row types equal the schema files; insert ids identify a change."""

import base64
import json
import re
import types
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag

from dcm2bq import lifted, rows
from dcm2bq.delivery import Delivery
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.backfill import staged_files as backfill
from tests.dicom.build import converted, dicom, element

SCHEMA = Path(rows.__file__).parent / "schema" / "tables"
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
EVENT = ObjectEvent(
    event_id="1",
    kind=EventKind.FINALIZED,
    time=NOW,
    object=StoredObject(
        bucket="scans",
        name="a.dcm",
        generation=12,
        size=34,
    ),
)
TYPES = {
    str: {"STRING", "JSON", "DATE", "TIME", "INTEGER"},
    int: {"INTEGER", "INT64"},
    datetime: {"TIMESTAMP"},
    bytes: {"BYTES"},
}


def check(struct: type, fields: list[dict[str, Any]], where: str) -> None:
    """Assert that a row type has exactly the columns of a schema."""
    members = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    assert members.keys() == {field["name"] for field in fields}, where
    for field in fields:
        kind, name = members[field["name"]], f"{where}.{field['name']}"
        if get_origin(kind) in {Union, types.UnionType}:
            kind, optional = get_args(kind)[0], True
        else:
            optional = False
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            assert field["type"] in {"RECORD", "STRUCT"}, name
            check(kind, field["fields"], name)
        elif get_args(kind):
            assert field["mode"] == "REPEATED", name
        else:
            assert field["type"] in TYPES[kind], name
            if field.get("mode") == "REQUIRED":
                assert not optional, name


@pytest.mark.parametrize(
    ("struct", "table"), [(rows.InstanceRow, "instances"), (rows.DeadLetterRow, "dead_letter")]
)
def test_a_row_type_has_exactly_the_columns_of_its_table(struct: type, table: str) -> None:
    resource = json.loads((SCHEMA / f"{table}.json").read_text())
    check(struct, resource["schema"]["fields"], table)


VALUES = {
    "STRING": ("1.2.3", "1.2.3"),
    "DATE": ("20240229", "2024-02-29"),
    "TIME": ("235958.5", "23:59:58.5"),
    "INTEGER": ("-7", "-7"),
}
"""A value in the header and in the row, by the type of the column."""
LIFTED = {
    field["name"]: (int(found[1] + found[2], 16), *VALUES[field["type"]])
    for field in json.loads((SCHEMA / "instances.json").read_text())["schema"]["fields"]
    if (found := re.match(r"\((\w{4}),(\w{4})\) from the header", field["description"]))
}
"""For each column its tag, and its value in the header and in the row, from the schema alone."""


@pytest.mark.parametrize("column", LIFTED)
def test_every_column_from_the_header_arrives_in_a_row(column: str) -> None:
    """In streamed rows and in those of load jobs."""
    tag, written, expected = LIFTED[column]
    content = dicom(element(tag, dictionary_VR(tag), written))
    done = converted(content)
    row = rows.instance_row(
        EVENT, now=NOW, info=rows.info(EVENT), columns=done.columns, metadata=done.text
    )
    assert msgspec.to_builtins(row)[column] == expected
    assert msgspec.json.decode(backfill.encode(row))[column] == expected
    assert keyword_for_tag(tag) == column


def test_the_columns_from_the_header_are_those_that_are_lifted() -> None:
    assert [column.keyword for column in lifted.LIFTED] == list(LIFTED)


def test_a_row_has_the_form_that_insert_all_takes() -> None:
    made = rows.instance_row(
        EVENT,
        now=NOW,
        info=rows.info(EVENT, bytes_read=5, warnings=("w",)),
        columns={"Modality": "CT", "StudyDate": "2026-01-01"},
        metadata='{"Modality":"CT"}',
    )
    row = msgspec.to_builtins(made)
    assert json.loads(json.dumps(row))["info"]["input"] == row["info"]["input"]
    assert row["timestamp"] == "2026-01-02T03:04:05.678901Z"
    assert (row["event"], row["path"], row["version"]) == ("finalized", "gs://scans/a.dcm", "12")
    assert (row["Modality"], row["StudyDate"], row["PatientID"]) == ("CT", "2026-01-01", None)
    assert row["info"]["input"]["type"] == "GCS"
    assert list(row["info"]["warnings"]) == ["w"]
    assert row["metadata"] == '{"Modality":"CT"}'


def test_an_insert_id_is_the_same_for_each_delivery_of_a_change() -> None:
    def insert_id(event: ObjectEvent) -> str:
        return rows.instance_row(event, now=datetime.now(UTC), info=rows.info(event)).insert_id

    again = replace(EVENT, event_id="2")
    others = [
        replace(EVENT, kind=EventKind.DELETED),
        replace(EVENT, object=replace(EVENT.object, generation=13)),
        replace(EVENT, object=replace(EVENT.object, name="b.dcm")),
        replace(EVENT, time=datetime(2026, 1, 3, tzinfo=UTC)),
    ]
    assert insert_id(again) == insert_id(EVENT)
    assert len({insert_id(event) for event in [EVENT, *others]}) == 5
    assert len(insert_id(EVENT)) <= 128


def test_each_member_of_an_archive_has_an_insert_id() -> None:
    made = rows.instance_row(EVENT, now=NOW, info=rows.info(EVENT, member_size=7), member="a")
    assert (made.member, made.info.input.size) == ("a", 7)
    names = ["a", "b/a", "a\nb", "2026-01-02T03:04:05.678901+00:00", None]
    ids = {msgspec.structs.replace(made, member=name).insert_id for name in names}
    assert len(ids) == len(names)


def test_an_expanded_row_counts_the_members_of_its_archive() -> None:
    counts = rows.ArchiveInfo(members=9, instances=5, dead_letters=1, others=3)
    row = rows.expanded_row(EVENT, counts, now=NOW)
    assert (row.event, row.path, row.version) == ("expanded", "gs://scans/a.dcm", "12")
    assert (row.metadata, row.member, row.info.archive) == (None, None, counts)
    assert row.info.input.size == 34
    marker = rows.instance_row(EVENT, now=NOW, info=rows.info(EVENT))
    assert row.insert_id != marker.insert_id


def test_a_dead_letter_keeps_the_delivery_and_the_reason() -> None:
    delivery = Delivery({"ce-id": "7", "ce-type": "t"}, b'{"name": "a"}')
    row = rows.dead_letter_row(delivery, now=NOW, error_type="NotDicomError", error="why")
    content = msgspec.to_builtins(row)
    assert content["message_id"] == "7"
    assert base64.b64decode(content["data"]) == delivery.data
    assert json.loads(content["attributes"]) == {
        "ce-id": "7",
        "ce-type": "t",
        "error_type": "NotDicomError",
        "error": "why",
    }
    member = rows.dead_letter_row(
        delivery, now=NOW, error_type="NotDicomError", error="why", member="a"
    )
    assert json.loads(member.attributes)["member"] == "a"
    assert member.insert_id != row.insert_id
