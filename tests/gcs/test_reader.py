"""Ranged reads of one generation, when Cloud Storage answers oddly, slowly or not at all."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from dcm2bq import config
from dcm2bq.errors import (
    ReadFailedError,
    RejectedEventError,
    SupersededError,
    UnreadableDicomError,
)
from dcm2bq.events import Kind, ObjectEvent
from dcm2bq.gcs import Store

CONTENT = bytes(range(256)) * 40

type Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Gives the next answer of the script, then right ones."""

    protocol_version = "HTTP/1.1"
    content = CONTENT

    def do_GET(self) -> None:
        self.server.requests.append(self)  # type: ignore[attr-defined]
        script: list[Answer] = self.server.script  # type: ignore[attr-defined]
        (script.pop(0) if script else right)(self)

    def answer(
        self, status: int, body: bytes = b"", length: int | None = None, **more: str
    ) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    @property
    def range(self) -> tuple[int, int]:
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        return int(first), int(last) + 1

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def right(handler: Handler) -> None:
    first, end = handler.range
    end = min(end, len(handler.content))
    where = f"bytes {first}-{end - 1}/{len(handler.content)}"
    handler.answer(206, handler.content[first:end], Content_Range=where)


def elsewhere(handler: Handler) -> None:
    first, end = handler.range
    where = f"bytes {first + 1}-{end}/{len(handler.content)}"
    handler.answer(206, handler.content[first + 1 : end + 1], Content_Range=where)


def whole(handler: Handler) -> None:
    handler.answer(200, handler.content)


def cut(handler: Handler) -> None:
    """Promise more than comes."""
    first, end = handler.range
    where = f"bytes {first}-{end - 1}/{len(handler.content)}"
    body = handler.content[first:end]
    handler.answer(206, body[: len(body) // 2], length=len(body), Content_Range=where)
    handler.close_connection = True


def shorter(handler: Handler) -> None:
    first, end = handler.range
    where = f"bytes {first}-{end - 2}/{end - 1}"
    handler.answer(206, handler.content[first : end - 1], Content_Range=where)


def stall(handler: Handler) -> None:
    time.sleep(3)
    handler.close_connection = True


def drip_head(handler: Handler) -> None:
    """Send the head a byte now and then."""
    for _ in range(60):
        handler.wfile.write(b"H")
        time.sleep(0.1)


def drip(handler: Handler) -> None:
    """Send a byte now and then: no single wait is long."""
    first, end = handler.range
    handler.send_response_only(206)
    handler.send_header("Content-Length", str(end - first))
    handler.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(handler.content)}")
    handler.end_headers()
    for _ in range(60):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def status(code: int) -> Answer:
    return lambda handler: handler.answer(code)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Answer] = []
        self.requests: list[Handler] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are what the tests are about."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{found.server_address[1]}")
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def event(**changes: Any) -> ObjectEvent:
    given: dict[str, Any] = {
        "event_id": "1",
        "kind": Kind.FINALIZED,
        "time": datetime.now(UTC),
        "bucket": "scans",
        "name": "a b/ü#?%.dcm",
        "generation": 17,
        "size": len(CONTENT),
    }
    return ObjectEvent(**{**given, **changes})


def read(
    seconds: float = 2, offset: int = 100, n: int = 5000, options: Any = None, **changes: Any
) -> bytes:
    store = Store(config.from_overrides(options or {}))
    return store.open(event(**changes), time.monotonic() + seconds).read_at(offset, n)


def test_a_range_of_exactly_one_generation_is_asked_for(server: Server) -> None:
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


def test_the_end_of_the_object_shortens_a_read(server: Server) -> None:
    assert read(offset=len(CONTENT) - 3, n=100) == CONTENT[-3:]
    assert read(offset=len(CONTENT), n=100) == b""
    assert len(server.requests) == 1


def test_a_whole_answer_serves_for_a_range_that_is_the_whole(server: Server) -> None:
    server.script = [whole]
    assert read(offset=0, n=len(CONTENT)) == CONTENT


@pytest.mark.parametrize("once", [cut, stall, status(429), status(500), status(503), status(504)])
def test_what_passes_is_tried_again(server: Server, once: Answer) -> None:
    server.script = [once]
    assert read(seconds=4) == CONTENT[100:5100]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (status(403), ReadFailedError, "Cloud Storage: HTTP 403"),
        (status(412), ReadFailedError, "Cloud Storage: HTTP 412"),
        (status(416), ReadFailedError, "Cloud Storage: HTTP 416"),
        (status(302), ReadFailedError, "Cloud Storage: HTTP 302"),
        (status(404), SupersededError, "that generation no longer exists"),
        (elsewhere, ReadFailedError, "Cloud Storage: not the range 100-5099"),
        (shorter, ReadFailedError, "Cloud Storage: not the range 100-5099"),
        (whole, ReadFailedError, "Cloud Storage: not the range 100-5099"),
    ],
)
def test_a_wrong_answer_is_told_by_its_status(
    server: Server, answer: Answer, error: type[Exception], message: str
) -> None:
    server.script = [answer]
    with pytest.raises(error) as raised:
        read()
    assert str(raised.value) == message


@pytest.mark.parametrize("answer", [stall, drip, drip_head, cut, status(503)])
def test_the_deadline_holds_however_slowly_the_answer_comes(server: Server, answer: Answer) -> None:
    server.script = [answer] * 50
    start = time.monotonic()
    with pytest.raises(ReadFailedError):
        read(seconds=1)
    assert time.monotonic() - start < 2


def test_without_a_size_the_objects_metadata_is_asked(server: Server) -> None:
    server.script = [lambda handler: handler.answer(200, b'{"size": "10240"}')]
    assert read(size=None) == CONTENT[100:5100]
    assert parse_qs(urlsplit(server.requests[0].path).query)["generation"] == ["17"]


@pytest.mark.usefixtures("server")
def test_a_gzipped_object_is_read_whole_and_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "content", gzip.compress(CONTENT))
    changes: dict[str, Any] = {"size": len(Handler.content), "content_encoding": "gzip"}
    assert read(**changes) == CONTENT[100:5100]
    with pytest.raises(UnreadableDicomError, match=r"above limits.headerBytes \(1000\)"):
        read(options={"limits": {"headerBytes": 1000}}, **changes)


def test_an_object_that_only_claims_to_be_gzipped_is_read_as_it_is(server: Server) -> None:
    assert read(content_encoding="gzip") == CONTENT[100:5100]
    assert len(server.requests) == 2


def test_nobody_listening_is_told_when_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(ReadFailedError, match="Cloud Storage: no answer, NewConnectionError"):
        read(seconds=0.5)


def test_an_unknown_host_is_told_when_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.invalid")
    with pytest.raises(ReadFailedError, match="Cloud Storage: no answer, NameResolutionError"):
        read(seconds=0.5)


@pytest.mark.usefixtures("server")
def test_a_gzip_file_may_have_several_members(monkeypatch: pytest.MonkeyPatch) -> None:
    members = gzip.compress(CONTENT[:3000]) + gzip.compress(CONTENT[3000:])
    monkeypatch.setattr(Handler, "content", members)
    assert read(size=len(members), content_encoding="gzip") == CONTENT[100:5100]


@pytest.mark.usefixtures("server")
def test_a_cut_gzip_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "content", gzip.compress(CONTENT)[:-20])
    with pytest.raises(UnreadableDicomError, match="the object's gzip encoding is cut"):
        read(size=len(Handler.content), content_encoding="gzip")


@pytest.mark.parametrize(
    ("reason", "error", "message"),
    [
        (
            "resourceIsEncryptedWithCustomerEncryptionKey",
            RejectedEventError,
            "the object is encrypted with a customer-supplied key",
        ),
        ("required", ReadFailedError, "Cloud Storage: HTTP 400 (required): input.userProject?"),
        ("invalid", ReadFailedError, "Cloud Storage: HTTP 400 (invalid)"),
    ],
)
def test_a_refused_read_is_told_by_its_reason(
    server: Server, reason: str, error: type[Exception], message: str
) -> None:
    body = b'{"error": {"errors": [{"reason": "%s", "message": "PATIENT"}]}}' % reason.encode()
    server.script = [lambda handler: handler.answer(400, body)]
    with pytest.raises(error) as raised:
        read()
    assert str(raised.value) == message
