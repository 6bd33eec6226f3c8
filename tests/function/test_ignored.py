"""Ignored events are counted by reason in the log at INFO, without a line for each event."""

import json
from collections import Counter
from pathlib import Path

from tests.support.function_stack import Stack, function_stack
from tests.support.patience import scaled

SENTINEL = "SENTINEL^PATIENT"
IGNORED = {
    f"{SENTINEL}.txt": (b"text", "name"),
    f"{SENTINEL}.dcm.tmp": (b"text", "name"),
    f"{SENTINEL}.dcm": (b"", "empty"),
    f"{SENTINEL}/": (b"", "folder"),
    f"gcloud/tmp/parallel_composite_uploads/{SENTINEL}.dcm": (b"text", "temporary"),
}


def test_ignored_events_are_counted_by_reason_and_never_named(
    tmp_path: Path, bigquery_url: str, storage_url: str
) -> None:
    overrides = {"bigQuery": {"timeoutSeconds": scaled(3)}}
    with function_stack(tmp_path, bigquery_url, storage_url, overrides, has_tables=False) as stack:
        for name, (content, _) in IGNORED.items():
            assert stack.bucket.upload(name, content).post(stack.url).status_code == 200
        touched = stack.bucket.upload(f"{SENTINEL}.dcm", b"text").as_type("metadataUpdated")
        assert touched.post(stack.url).status_code == 200
        log = stack.log_file
        at_once = [json.loads(line) for line in log.read_text().splitlines()]
        assert [line["ignored"] for line in at_once if "ignored" in line] == [{"name": 1}]
    text = log.read_text()  # the rest is logged when the process ends
    lines = [line for line in map(json.loads, text.splitlines()) if "ignored" in line]
    counts: Counter[str] = sum((Counter(line["ignored"]) for line in lines), Counter())
    assert len(lines) == 2
    assert counts == Counter([reason for _, reason in IGNORED.values()] + ["metadata"])
    assert all(line.keys() == {"severity", "time", "message", "ignored"} for line in lines)
    assert SENTINEL not in text


def test_the_line_of_an_ignored_event_says_why(stack: Stack) -> None:
    """At DEBUG."""
    event = stack.bucket.upload("notes.txt", b"text")
    assert event.post(stack.url).status_code == 200
    (line,) = stack.log_lines(event.id)
    assert (line["severity"], line["outcome"], line["ignored"]) == ("DEBUG", "ignored", "name")
