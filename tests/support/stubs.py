"""Lean stand-ins for Cloud Storage and BigQuery: they answer at once and keep nothing.

    python tests/support/stubs.py FILE [CERTIFICATE]

Serves FILE as the content of every object, over TLS if there is a CERTIFICATE (PEM, with its
key). An object's name may ask for more: `size=N` makes it N bytes long, zeros behind the file.
The bucket `many-N` lists N objects; nothing that a backfill writes down is there when it is
asked for. Prints its port.
"""

import asyncio
import json
import re
import ssl
import sys
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d+)", re.IGNORECASE)
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
SIZE = re.compile(r"size=(\d+)")
MANY = re.compile(r"/storage/v1/b/many-(\d+)/o\?")
PAGE = 1000


class Stub:
    """Answers `objects.get` with media and `tabledata.insertAll`, and counts both."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reads = self.bytes_read = self.inserts = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = LENGTH.search(head)
                if length:
                    await reader.readexactly(int(length[1]))
                writer.write(self.answer(head))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def answer(self, head: bytes) -> bytes:
        """Return the answer to a request."""
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        if target == "/counts":
            counts = {"reads": self.reads, "bytes": self.bytes_read, "inserts": self.inserts}
            return _response(200, json.dumps(counts).encode(), "application/json")
        if many := MANY.match(target):
            return _response(200, self.listing(int(many[1]), target), "application/json")
        if "%2Fshards%2F" in target:
            return _not_found(target)
        if method == "POST":
            self.inserts += 1
            return _response(200, b"{}", "application/json")
        size = SIZE.search(unquote(target))
        total = int(size[1]) if size else len(self.content)
        found = RANGE.search(head)
        first, last = (int(found[1]), min(int(found[2]), total - 1)) if found else (0, total - 1)
        body = self.content[first : last + 1].ljust(last + 1 - first, b"\0")
        self.reads += 1
        self.bytes_read += len(body)
        status = 206 if found else 200
        return _response(status, body, "application/dicom", f"bytes {first}-{last}/{total}")

    def listing(self, count: int, target: str) -> bytes:
        """Return a page of the objects 00000000.dcm and so on."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        start = max(query.get("startOffset", ""), query.get("pageToken", "")).partition(".")[0]
        first = int(start) if start.isdigit() else 0
        end = query.get("endOffset", "").partition(".")[0]
        last = min(count, int(end) if end.isdigit() else count)
        page = range(first, min(last, first + PAGE))
        items = [
            {
                "name": f"{number:08}.dcm",
                "generation": str(1700000000000000 + number),
                "size": str(len(self.content)),
                "timeCreated": "2026-01-01T00:00:00Z",
                "contentType": "application/dicom",
                "storageClass": "STANDARD",
                "md5Hash": "1B2M2Y8AsgTpgAmY7PhCfg==",
                "crc32c": "AAAAAA==",
            }
            for number in page
        ]
        more = {"nextPageToken": f"{page.stop:08}"} if page.stop < last else {}
        return json.dumps({"items": items, **more}).encode()


def _not_found(target: str) -> bytes:
    """Return the service's answer: plain text where content is read, JSON elsewhere."""
    if "alt=media" in target:
        name = unquote(urlsplit(target).path.partition("/o/")[2])
        return _response(404, f"No such object: stub/{name}".encode(), "text/html; charset=UTF-8")
    error = {"code": 404, "message": "Not Found", "errors": [{"reason": "notFound"}]}
    return _response(404, json.dumps({"error": error}).encode(), "application/json")


def _response(status: int, body: bytes, kind: str, content_range: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status} OK", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    if content_range:
        lines.append(f"Content-Range: {content_range}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def main(content: bytes, certificate: str | None = None) -> None:
    """Serve until killed."""
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    server = await asyncio.start_server(Stub(content).serve, "127.0.0.1", ssl=context)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_bytes(), *sys.argv[2:]))
