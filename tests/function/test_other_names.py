"""With `input.otherNames: sniff`, rows are exactly the DICOM objects, whatever their names."""

import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import BytesIO

import pytest

from dcm2bq.tools.verify.comparison import Comparison
from tests.dicom.build import dicom, element, identity
from tests.support.cloud import Event
from tests.support.function_stack import Stack, function_stack
from tests.support.patience import scaled

PATIENT = element(0x00100020, "LO", "ID")
FILE = dicom(identity(), PATIENT)
NAMES = (
    *("{0}/IM{0:04}", "1.2.840.113619.2.{0}", "{0}/DICOM/{0:08}", "scan {0}.img", "{0}.ima"),
    *("{0}.IMA", "{0}.dcm", "{0}/胸部 ü", "{0}%2F#?.txt", "{0}", "MR.{0}", "{0}.dcm.part"),
    *("a.b/{0}.", "-{0}", "{0}.pdf"),
)
"""Names of DICOM objects; each is used ten times."""


def zipped() -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("scan.dcm", FILE)
    return stream.getvalue()


OTHERS = {
    "{0}/REPORT{0:04}": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" * 30,
    "notes {0}": b"CT of the thorax, to be saved as DICM\n" * 9,
    "{0}.empty": b"",
    "pictures/{0}.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(300),
    "{0}.zip": zipped(),
    "{0}/NULs": bytes(3000),
    "2.25.{0}": b"\x08",
    "gcloud/tmp/parallel_composite_uploads/{0}": FILE,
    "{0}/folder/": b"",
    "{0}.json": b'{"00080018": {"vr": "UI", "Value": ["1.2.3.4"]}}' * 9,
}
"""What is ignored, by name; each name is used 14 times."""
FORGED = bytes(128) + b"DICM" + b"\xff junk" * 50


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, bigquery_url: str, storage_url: str
) -> Iterator[Stack]:
    overrides = {
        "bigQuery": {"timeoutSeconds": scaled(5)},
        "input": {"otherNames": "sniff"},
        "log": {"level": "DEBUG"},
    }
    folder = tmp_path_factory.mktemp("names")
    with function_stack(folder, bigquery_url, storage_url, overrides) as stack:
        yield stack


def contents() -> tuple[dict[str, bytes], dict[str, bytes], dict[str, bytes]]:
    """Return 150 DICOM objects, 140 others, and 10 that begin with DICM but are broken."""
    scans = {
        # Every third has neither preamble nor prefix.
        name.format(number): FILE[132:] if number % 3 == 0 else FILE
        for name in NAMES
        for number in range(10)
    }
    others = {
        name.format(number): content for name, content in OTHERS.items() for number in range(14)
    }
    return scans, others, {f"forged/{number}": FORGED for number in range(10)}


def post_all(stack: Stack, events: list[Event]) -> None:
    with ThreadPoolExecutor(32) as pool:
        statuses = set(pool.map(lambda event: event.post(stack.url).status_code, events))
    assert statuses == {200}


def names(stack: Stack, view: str) -> set[str]:
    rows = stack.dataset.query(f"SELECT path FROM {view}")
    found = [row["path"].removeprefix(f"gs://{stack.bucket.name}/") for row in rows]
    assert len(found) == len(set(found))
    return set(found)


def test_a_bucket_of_all_kinds_of_names_and_content(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forged preamble is the one exception: it begins with DICM, and may be a broken file."""
    scans, others, forged = contents()
    assert (len(scans), len(others), len(forged)) == (150, 140, 10)
    everything = list((scans | others | forged).items())
    with ThreadPoolExecutor(8) as pool:
        events = list(pool.map(lambda item: stack.bucket.upload(*item), everything))
    post_all(stack, events)
    assert names(stack, "instances_live") == set(scans)
    assert names(stack, "dead_letters") == set(forged)
    (event,) = (event for event in events if event.data["name"] == "5/REPORT0005")
    (line,) = stack.log_lines(event.id)
    assert (line["outcome"], line["ignored"]) == ("ignored", "content")
    assert line["bytes_read"] == len(OTHERS["{0}/REPORT{0:04}"])

    # Verify decides by the same rule, reading what has neither a row nor a dead letter.
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", stack.storage.url)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", stack.bigquery.url)
    stack.bucket.upload("late/IM0001", FILE)
    stack.bucket.upload("late/letter", b"text")
    stack.bucket.upload("late/scanned long ago", FILE, storage_class="ARCHIVE")
    comparison = Comparison(
        stack.dataset, stack.config, f"gs://{stack.bucket.name}", settle=timedelta()
    )
    differences = [(entry.finding, entry.object.name) for entry in comparison]
    assert differences == sorted(
        [*(("dead-lettered", name) for name in forged), ("missing", "late/IM0001")],
        key=lambda entry: entry[1],
    )
    assert (comparison.objects, comparison.ignored, comparison.unread) == (303, 141, 1)

    # A delete of any name leaves a marker.
    post_all(stack, [stack.bucket.delete(name) for name in ("notes 3", "3/IM0003")])
    assert names(stack, "instances_live") == set(scans) - {"3/IM0003"}
    assert len(stack.dataset.query("SELECT path FROM instances WHERE event = 'deleted'")) == 2


def test_a_name_of_dicom_with_other_content_is_still_a_dead_letter(stack: Stack) -> None:
    event = stack.bucket.upload("letter.dcm", b"text")
    assert event.post(stack.url).status_code == 200
    (line,) = stack.log_lines(event.id)
    assert (line["outcome"], line["error_type"]) == ("dead_lettered", "NotDicomError")
