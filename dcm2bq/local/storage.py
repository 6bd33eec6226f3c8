"""The Cloud Storage of the local stack: the mirrored bucket, and another server for all others.

Serves the reading half of the JSON API for the bucket of `Mirror`: metadata, media by ranges,
listings. Requests for anything else, such as a staging bucket, are forwarded to the server at
`upstream`, and its answers are returned unchanged.
"""

import http
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote

import urllib3

from dcm2bq.local.mirror import CONTENT_TYPE, Mirror

_OBJECTS = re.compile(r"/(?:download/|upload/)?storage/v1/b/(?P<bucket>[^/]+)/o(?:/(?P<name>.*))?")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PAGE = 1000  # Cloud Storage's own limit
_CONNECTIONS = 32
_ANSWER_SECONDS = 60
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host"}


@contextmanager
def serving(mirror: Mirror, port: int, upstream: str) -> Iterator[None]:
    """Serve the bucket on 127.0.0.1 until the block ends."""
    pool = urllib3.connection_from_url(upstream, maxsize=_CONNECTIONS, retries=False)
    handler = type("Handler", (_Handler,), {"mirror": mirror, "pool": pool})
    with _Server(("127.0.0.1", port), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            pool.close()


class _Server(ThreadingHTTPServer):
    block_on_close = False  # clients may keep their connections open
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Print nothing: a client may close its connection at any time."""


class _Handler(BaseHTTPRequestHandler):
    mirror: ClassVar[Mirror]
    pool: ClassVar[urllib3.HTTPConnectionPool]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: do not delay the second

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        match = _OBJECTS.fullmatch(path)
        if match is None or unquote(match["bucket"]) != self.mirror.name:
            self._forward()
        elif self.command != "GET":
            self._refuse(http.HTTPStatus.FORBIDDEN, "the bucket mirrors a folder")
        else:
            self._read(match["name"], dict(parse_qsl(query, keep_blank_values=True)))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _read(self, name: str | None, query: Mapping[str, str]) -> None:
        if name is None:
            self._send_json(_page(self.mirror, query))
            return
        name = unquote(name)
        generation = int(query["generation"]) if query.get("generation", "").isdecimal() else None
        if query.get("alt") == "media":
            self._send_media(name, generation)
        elif (resource := self.mirror.get(name, generation)) is None:
            self._refuse(http.HTTPStatus.NOT_FOUND, "no such object")
        else:
            self._send_json(resource)

    def _send_media(self, name: str, generation: int | None) -> None:
        resource = self.mirror.get(name, generation)
        file = resource and self.mirror.open(name, int(resource["generation"]))
        if not resource or not file:
            self._refuse(http.HTTPStatus.NOT_FOUND, "no such object")
            return
        with file:
            size = int(resource["size"])
            part = _part(self.headers.get("Range"), size)
            if part is None:
                headers = {"Content-Range": f"bytes */{size}"}
                self._refuse(
                    http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "no such range", headers
                )
                return
            start, end = part
            headers = {"Content-Type": CONTENT_TYPE, "x-goog-generation": resource["generation"]}
            status = http.HTTPStatus.OK
            if "Range" in self.headers:
                status = http.HTTPStatus.PARTIAL_CONTENT
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            self._send_head(status, end - start, headers)
            self.wfile.flush()
            if start < end:
                self.connection.sendfile(file, start, end - start)

    def _forward(self) -> None:
        """Send the request to the other server, and return its answer."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            self.close_connection = True
            self._refuse(http.HTTPStatus.LENGTH_REQUIRED, "Content-Length is required")
            return
        length = int(self.headers.get("Content-Length") or 0)
        try:
            answer = self.pool.urlopen(
                self.command,
                self.path,
                body=self.rfile.read(length) if length else None,
                headers={k: v for k, v in self.headers.items() if k.lower() != "connection"},
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=_ANSWER_SECONDS,
            )
        except urllib3.exceptions.HTTPError:
            self._refuse(http.HTTPStatus.BAD_GATEWAY, "no answer")
            return
        content = answer.read()
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
        headers.pop("Content-Length", None)
        self._send_head(http.HTTPStatus(answer.status), len(content), headers)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(
        self, status: http.HTTPStatus, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        if int(self.headers.get("Content-Length") or 0):
            self.close_connection = True  # the body is not read, so the connection cannot be reused
        reason = {404: "notFound", 403: "forbidden"}.get(status, "invalid")
        error = {"code": status, "message": message, "errors": [{"reason": reason}]}
        self._send_json({"error": error}, status, headers)

    def _send_json(
        self,
        content: Any,
        status: http.HTTPStatus = http.HTTPStatus.OK,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        body = json.dumps(content).encode()
        self._send_head(status, len(body), {"Content-Type": "application/json", **(headers or {})})
        self.wfile.write(body)

    def _send_head(self, status: http.HTTPStatus, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


def _part(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the requested start and end offsets, or None if the range is beyond the end."""
    match = _RANGE.fullmatch(header or "bytes=0-")
    if match is None or (not match[1] and not match[2]):
        return 0, size  # RFC 9110 14.2: a range that is not understood is ignored
    if not match[1]:
        return max(size - int(match[2]), 0), size
    start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
    if header is None or start < end:
        return start, end
    return None


def _page(mirror: Mirror, query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of a listing in the form of `objects.list`."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    most = min(int(query.get("maxResults") or _PAGE), _PAGE)
    start, end, after = (query.get(key, "") for key in ("startOffset", "endOffset", "pageToken"))
    names = (
        name
        for name in mirror
        if name.startswith(prefix) and name >= start and (not end or name < end) and name > after
    )
    entries = _entries(names, prefix, delimiter)
    shown = list(islice(entries, most))
    items = [item for name, is_prefix in shown if not is_prefix and (item := mirror.get(name))]
    prefixes = [name for name, is_prefix in shown if is_prefix]
    page: dict[str, Any] = {"kind": "storage#objects"}
    page |= {key: part for key, part in (("items", items), ("prefixes", prefixes)) if part}
    if shown and any(True for _ in entries):
        last, is_prefix = shown[-1]
        page["nextPageToken"] = last + chr(0x10FFFF) if is_prefix else last
    return page


def _entries(names: Iterator[str], prefix: str, delimiter: str) -> Iterator[tuple[str, bool]]:
    """Yield names, and once each common prefix up to `delimiter`, with whether it is a prefix."""
    last = None
    for name in names:
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        if cut < 0:
            yield name, False
        elif (common := name[: cut + len(delimiter)]) != last:
            last = common
            yield common, True
