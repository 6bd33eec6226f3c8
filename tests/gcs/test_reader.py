"""Ranged reads of one generation, with answers that are odd, slow or missing."""

import copy
import gzip
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from dcm2bq import config
from dcm2bq.deadline import Deadline
from dcm2bq.errors import (
    ReadFailedError,
    RejectedEventError,
    SupersededError,
    UnreadableDicomError,
)
from dcm2bq.gcs.store import Store
from dcm2bq.stored_object import StoredObject
from tests.support.cloud import google_error, media_refusal
from tests.support.http_server import Exchange, serving
from tests.support.leaping import leaping
from tests.support.patience import patience

CONTENT = bytes(range(256)) * 40
LONG = 60
"""Seconds that a broken server takes, longer than any deadline here."""

type Answer = Callable[["Requested"], None]


@dataclass(frozen=True)
class Requested:
    """A request of an object's range, and the content that is stored."""

    exchange: Exchange
    content: bytes

    @property
    def path(self) -> str:
        return self.exchange.path

    @property
    def range(self) -> tuple[int, int]:
        first, last = self.exchange.headers["Range"].removeprefix("bytes=").split("-")
        return int(first), min(int(last) + 1, len(self.content))

    def where(self, first: int, end: int) -> dict[str, str]:
        return {"Content-Range": f"bytes {first}-{end - 1}/{len(self.content)}"}


def right(request: Requested) -> None:
    first, end = request.range
    request.exchange.answer(206, request.content[first:end], request.where(first, end))


def elsewhere(request: Requested) -> None:
    first, end = request.range
    where = request.where(first + 1, end + 1)
    request.exchange.answer(206, request.content[first + 1 : end + 1], where)


def whole(request: Requested) -> None:
    request.exchange.answer(200, request.content)


def cut(request: Requested) -> None:
    """Promise more bytes than are sent."""
    first, end = request.range
    request.exchange.head(206, end - first, request.where(first, end))
    request.exchange.wfile.write(request.content[first : (first + end) // 2])
    request.exchange.hang_up()


def shorter(request: Requested) -> None:
    first, end = request.range
    where = {"Content-Range": f"bytes {first}-{end - 2}/{end - 1}"}
    request.exchange.answer(206, request.content[first : end - 1], where)


def stall(request: Requested) -> None:
    time.sleep(LONG)
    request.exchange.hang_up()


def drip_head(request: Requested) -> None:
    """Send the head slowly, byte by byte."""
    request.exchange.drip(b"H" * 10_000, LONG)


def drip(request: Requested) -> None:
    """Send the body slowly, byte by byte: no single wait is long."""
    first, end = request.range
    request.exchange.head(206, end - first, request.where(first, end))
    request.exchange.drip(b"x" * 10_000, LONG)


def status(code: int) -> Answer:
    return lambda request: request.exchange.answer(code)


def metadata(**resource: Any) -> Answer:
    return lambda request: request.exchange.answer(200, json.dumps(resource).encode())


def refused(code: int, reason: str, message: str) -> Answer:
    """Refuse like the service: reads of content in plain text, other requests in JSON."""

    def answer(request: Requested) -> None:
        error = google_error(code, reason, message)
        body = media_refusal(error) if "alt=media" in request.path else error
        request.exchange.answer(code, body)

    return answer


class ScriptedStorage:
    """Gives the next answer of the script, and correct answers after its end."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.script: list[Answer] = []
        self.requests: list[Exchange] = []

    def serve(self, exchange: Exchange) -> None:
        # A copy, since one exchange serves all requests of a connection.
        self.requests.append(copy.copy(exchange))
        answer = self.script.pop(0) if self.script else right
        answer(Requested(exchange, self.content))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedStorage]:
    storage = ScriptedStorage()
    with serving(storage.serve) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        yield storage


def stored(**changes: Any) -> StoredObject:
    given: dict[str, Any] = {
        "bucket": "scans",
        "name": "a b/ü#?%.dcm",
        "generation": 17,
        "size": len(CONTENT),
    }
    return StoredObject(**{**given, **changes})


def described() -> StoredObject:
    store = Store(config.from_overrides({}))
    return store.described(stored(size=None), Deadline.after(60))


def read(
    seconds: float = 60, offset: int = 100, n: int = 5000, options: Any = None, **changes: Any
) -> bytes:
    store = Store(config.from_overrides(options or {}))
    return store.open(stored(**changes), Deadline.after(seconds)).read_at(offset, n)


def test_a_range_of_exactly_one_generation_is_requested(server: ScriptedStorage) -> None:
    assert read(options={"input": {"userProject": "payer"}}) == CONTENT[100:5100]
    (request,) = server.requests
    split = urlsplit(request.path)
    assert unquote(split.path) == "/storage/v1/b/scans/o/a b/ü#?%.dcm"
    assert "/o/a%20b%2F%C3%BC%23%3F%25.dcm" in split.path
    assert parse_qs(split.query) == {
        "alt": ["media"],
        "generation": ["17"],
        "userProject": ["payer"],
    }
    assert request.headers["Range"] == "bytes=100-5099"


def test_the_end_of_the_object_shortens_a_read(server: ScriptedStorage) -> None:
    assert read(offset=len(CONTENT) - 3, n=100) == CONTENT[-3:]
    assert read(offset=len(CONTENT), n=100) == b""
    assert len(server.requests) == 1


def test_a_whole_answer_is_accepted_for_the_range_of_the_whole_object(
    server: ScriptedStorage,
) -> None:
    server.script = [whole]
    assert read(offset=0, n=len(CONTENT)) == CONTENT


@pytest.mark.parametrize("once", [cut, stall, status(429), status(500), status(503), status(504)])
def test_a_transient_failure_is_retried(server: ScriptedStorage, once: Answer) -> None:
    server.script = [once]
    assert read(seconds=4) == CONTENT[100:5100]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (status(403), ReadFailedError, "Cloud Storage: HTTP 403"),
        (status(412), ReadFailedError, "Cloud Storage: HTTP 412"),
        (
            status(416),
            ReadFailedError,
            "Cloud Storage: HTTP 416: the object is shorter than its event says",
        ),
        (status(302), ReadFailedError, "Cloud Storage: HTTP 302"),
        (status(404), SupersededError, "that generation no longer exists"),
        (elsewhere, ReadFailedError, "Cloud Storage: the answer is not the range 100-5099"),
        (shorter, ReadFailedError, "Cloud Storage: the answer is not the range 100-5099"),
        (whole, ReadFailedError, "Cloud Storage: the answer is not the range 100-5099"),
    ],
)
def test_a_wrong_answer_is_reported_by_its_status(
    server: ScriptedStorage, answer: Answer, error: type[Exception], message: str
) -> None:
    server.script = [answer]
    with pytest.raises(error) as raised:
        read()
    assert str(raised.value) == message


@pytest.mark.parametrize("answer", [stall, drip, drip_head, cut, status(503)])
def test_the_deadline_holds_however_slowly_the_answer_comes(
    server: ScriptedStorage, answer: Answer
) -> None:
    server.script = [answer] * 50
    with leaping() as clock:
        start = clock.monotonic()
        with pytest.raises(ReadFailedError):
            read(seconds=0.5)
        assert clock.monotonic() - start < 0.5 + patience()


def test_an_object_is_described_by_one_request(server: ScriptedStorage) -> None:
    """A notification without data only names the object."""
    resource = {
        "size": "10240",
        "contentType": "application/dicom",
        "contentEncoding": "GZip",
        "storageClass": "NEARLINE",
        "md5Hash": "m",
        "crc32c": "c",
        "customerEncryption": {"encryptionAlgorithm": "AES256"},
    }
    server.script = [metadata(**resource)]
    assert described() == stored(
        size=10240,
        content_type="application/dicom",
        content_encoding="GZip",
        storage_class="NEARLINE",
        md5_hash="m",
        crc32c="c",
        has_customer_key=True,
    )
    (request,) = server.requests
    query = parse_qs(urlsplit(request.path).query)
    assert query["generation"] == ["17"]
    assert query["fields"] == [",".join(resource)]


@pytest.mark.parametrize(
    "body", [b"{}", b'{"size": "x"}', b'{"size": []}', b"[]", b'{"size": "\xff"}', b"{"]
)
def test_metadata_without_a_size_is_a_failed_read(server: ScriptedStorage, body: bytes) -> None:
    server.script = [lambda request: request.exchange.answer(200, body)]
    with pytest.raises(ReadFailedError, match=r"metadata"):
        described()


def test_a_gzipped_object_is_inflated_as_it_is_read(server: ScriptedStorage) -> None:
    server.content = gzip.compress(CONTENT)
    changes: dict[str, Any] = {"size": len(server.content), "content_encoding": "gzip"}
    assert read(**changes) == CONTENT[100:5100]
    with pytest.raises(UnreadableDicomError, match=r"beyond limits.inflatedBytes, 1000"):
        read(options={"limits": {"inflatedBytes": 1000}}, **changes)


def test_an_object_that_only_claims_to_be_gzipped_is_read_unchanged(
    server: ScriptedStorage,
) -> None:
    assert read(content_encoding="gzip") == CONTENT[100:5100]
    assert len(server.requests) == 1


@pytest.mark.parametrize("is_gzipped", [True, False])
def test_detecting_a_gzipped_object_fetches_no_byte_twice(
    server: ScriptedStorage, *, is_gzipped: bool
) -> None:
    """A small object costs two reads, whether it is gzipped or not."""
    content = random.Random(1).randbytes(300_000)
    held = gzip.compress(content) if is_gzipped else content
    server.content = held
    store = Store(config.from_overrides({}))
    gzipped = stored(size=len(held), content_encoding="gzip")
    reader = store.open(gzipped, Deadline.after(5))
    assert reader.read_at(0, 65536) == content[:65536]
    assert reader.read_at(60_000, 240_000) == content[60_000:]
    assert reader.bytes_read == len(held)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("encoding", "is_inflated"),
    [
        ("GZIP", True),
        (" Gzip ", True),
        ("x-gzip", True),
        ("gzip, gzip", True),
        ("aws-chunked,GZip", True),
        ("identity", False),
        ("br", False),
        ("", False),
    ],
)
def test_content_codings_are_compared_without_regard_to_case(
    server: ScriptedStorage, encoding: str, *, is_inflated: bool
) -> None:
    """One layer is inflated, whatever other codings are listed (RFC 9110 8.4)."""
    stored = gzip.compress(CONTENT)
    server.content = stored
    found = read(offset=0, n=10, size=len(stored), content_encoding=encoding)
    assert found == (CONTENT if is_inflated else stored)[:10]


def test_a_refused_connection_is_reported_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with leaping(), pytest.raises(ReadFailedError, match="Cloud Storage: no answer") as error:
        read(seconds=0.5)
    assert str(error.value).endswith(
        "no answer (NewConnectionError) at http://127.0.0.1:9 (STORAGE_EMULATOR_HOST)"
    )


def test_an_unknown_host_is_reported_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.invalid")
    message = "Cloud Storage: no answer \\(NameResolutionError"
    with leaping(), pytest.raises(ReadFailedError, match=message):
        read(seconds=0.5)


def test_a_gzip_file_may_have_several_members(server: ScriptedStorage) -> None:
    members = gzip.compress(CONTENT[:3000]) + gzip.compress(CONTENT[3000:])
    server.content = members
    assert read(size=len(members), content_encoding="gzip") == CONTENT[100:5100]


def test_a_cut_gzip_file_is_refused(server: ScriptedStorage) -> None:
    server.content = gzip.compress(CONTENT)[:-20]
    with pytest.raises(UnreadableDicomError, match="the object's gzip encoding is cut"):
        read(size=len(server.content), content_encoding="gzip")


KEY = "resourceIsEncryptedWithCustomerEncryptionKey"
KEY_TEXT = "The target object is encrypted by a customer-supplied encryption key."
PAYS_TEXT = "Bucket is a requester pays bucket but no user project provided."
UNDER_KEY = (
    "the object is encrypted with a customer-supplied key: "
    "rewrite it with a key of Cloud KMS or of Google's own"
)
PAYS = "the bucket is requester-pays: set input.userProject to the project that pays for reads"
ENCRYPTED = metadata(customerEncryption={"encryptionAlgorithm": "AES256", "keySha256": "PATIENT"})


@pytest.mark.parametrize(
    ("answers", "error", "message"),
    [
        ([refused(400, KEY, KEY_TEXT), ENCRYPTED], RejectedEventError, UNDER_KEY),
        ([refused(400, KEY, KEY_TEXT), metadata()], RejectedEventError, UNDER_KEY),
        ([refused(400, KEY, KEY_TEXT), status(403)], RejectedEventError, UNDER_KEY),
        ([refused(400, KEY, "PATIENT"), ENCRYPTED], RejectedEventError, UNDER_KEY),
        (
            [refused(400, "required", PAYS_TEXT)] * 2,
            ReadFailedError,
            f"Cloud Storage: HTTP 400: {PAYS}",
        ),
        (
            [refused(400, "required", PAYS_TEXT.replace("a ", "")), status(403)],
            ReadFailedError,
            f"Cloud Storage: HTTP 400: {PAYS}",
        ),
        (
            [refused(400, "required", "PATIENT")] * 2,
            ReadFailedError,
            f"Cloud Storage: HTTP 400: {PAYS}",
        ),
        ([refused(400, "invalid", "PATIENT")] * 2, ReadFailedError, "Cloud Storage: HTTP 400"),
        ([refused(400, "x", "PATIENT"), metadata()], ReadFailedError, "Cloud Storage: HTTP 400"),
        ([refused(400, "x", "PATIENT"), status(404)], ReadFailedError, "Cloud Storage: HTTP 400"),
        (
            [refused(404, "notFound", "No such object: scans/PATIENT.dcm")],
            SupersededError,
            "that generation no longer exists",
        ),
        (
            [refused(412, "conditionNotMet", "At least one PATIENT did not hold.")],
            ReadFailedError,
            "Cloud Storage: HTTP 412",
        ),
        (
            [refused(416, "requestedRangeNotSatisfiable", "The requested range PATIENT")],
            ReadFailedError,
            "Cloud Storage: HTTP 416: the object is shorter than its event says",
        ),
    ],
)
def test_a_read_refused_in_plain_text_is_explained_by_the_metadata(
    server: ScriptedStorage, answers: list[Answer], error: type[Exception], message: str
) -> None:
    """The service's text is never quoted."""
    server.script = list(answers)
    with pytest.raises(error) as raised:
        read()
    assert str(raised.value) == message
    assert len(server.requests) == len(answers)


def test_the_text_of_a_refusal_counts_if_the_metadata_cannot_be_read(
    server: ScriptedStorage,
) -> None:
    """Well before the deadline."""
    server.script = [refused(400, KEY, KEY_TEXT), *[status(503)] * 50]
    with leaping() as clock:
        start = clock.monotonic()
        with pytest.raises(RejectedEventError):
            read(seconds=600)
        assert clock.monotonic() - start < 20 * patience()


def test_an_object_under_a_customers_key_is_rejected_unread(server: ScriptedStorage) -> None:
    with pytest.raises(RejectedEventError, match="customer-supplied key"):
        read(has_customer_key=True)
    assert server.requests == []


@pytest.mark.parametrize(
    ("code", "reason", "error", "message"),
    [
        (400, KEY, RejectedEventError, UNDER_KEY),
        (400, "required", ReadFailedError, f"Cloud Storage: HTTP 400 (required): {PAYS}"),
        (403, "required", ReadFailedError, "Cloud Storage: HTTP 403 (required)"),
        (400, "invalid", ReadFailedError, "Cloud Storage: HTTP 400 (invalid)"),
    ],
)
def test_refused_metadata_is_reported_by_its_reason(
    server: ScriptedStorage, code: int, reason: str, error: type[Exception], message: str
) -> None:
    server.script = [refused(code, reason, "PATIENT")]
    with pytest.raises(error) as raised:
        described()
    assert str(raised.value) == message


def test_a_listing_names_the_option_for_requester_pays(server: ScriptedStorage) -> None:
    store = Store(config.from_overrides({}))
    # The client may also read the metadata of the bucket.
    server.script = [refused(400, "required", f"{PAYS_TEXT} PATIENT")] * 2
    with pytest.raises(ReadFailedError) as raised:
        list(store.list("scans"))
    assert str(raised.value) == f"Cloud Storage: HTTP 400: {PAYS}"
