"""A stub of Cloud Storage that lists a bucket of any size, page by page."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

PAGE = 1000
NAME = "{:08}.dcm"
CREATED = "2026-01-01T00:00:00Z"


class Listing:
    """Objects `00000000.dcm` and so on, of which those that `without` says are not there.

    The generation of each is its number and one.
    """

    def __init__(self, count: int, without: frozenset[int] = frozenset()) -> None:
        self.count = count
        self.without = without
        self.pages = 0

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve until the block ends; yield the URL."""
        handler = type("Handler", (_Handler,), {"listing": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def page(self, bucket: str, query: dict[str, str]) -> dict[str, Any]:
        """Return a page as the JSON API does."""
        self.pages += 1
        first = int(query.get("pageToken") or query.get("startOffset", "0").partition(".")[0])
        end = int(query.get("endOffset", str(self.count)).partition(".")[0])
        numbers = range(first, min(first + PAGE, end))
        items = [
            {
                "bucket": bucket,
                "name": NAME.format(number),
                "generation": str(number + 1),
                "size": "1000",
                "timeCreated": CREATED,
            }
            for number in numbers
            if number not in self.without
        ]
        more = {"nextPageToken": str(numbers.stop)} if numbers.stop < end else {}
        return {"kind": "storage#objects", "items": items, **more}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    listing: ClassVar[Listing]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = json.dumps(self.listing.page(url.path.split("/")[-2], query)).encode()
        self.send_response_only(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""
