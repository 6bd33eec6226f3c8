"""Cloud Storage with storage classes and settings, which counts what it would charge."""

import json
import re
from collections import Counter
from urllib.parse import unquote, urlsplit

from tests.support.http_server import Exchange
from tests.support.proxy import Proxy

CLASSES = ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")
_RESOURCE = re.compile(r"(?:/(upload|download))?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?")
_FREE = {"DELETE"}


class BilledStorage(Proxy):
    """The local Cloud Storage; an object's class is the first folder of its name that is one.

    `settings` are fields of every bucket's resource. `operations` counts the successful requests
    by bucket, kind (`A`, `B`) and storage class, which is the bucket's for a listing or an upload;
    `fetched` counts the bytes of objects that were read, by bucket and class, and `reads` the
    reads of each object of any bucket, by name.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.settings: dict[str, dict[str, object]] = {}
        self.may_read_settings = True
        self.operations: Counter[tuple[str, str, str]] = Counter()
        self.fetched: Counter[tuple[str, str]] = Counter()
        self.reads: Counter[str] = Counter()

    def _forward(self, exchange: Exchange) -> tuple[int, dict[str, str], bytes]:
        match = _RESOURCE.fullmatch(urlsplit(exchange.path).path)
        if match is None:
            return super()._forward(exchange)
        kind, bucket, name = match[1], match[2], unquote(match[3] or "")
        is_settings = kind is None and "/o" not in urlsplit(exchange.path).path
        if is_settings and not self.may_read_settings:
            return 403, {"Content-Type": "application/json"}, b"{}"
        status, headers, body = super()._forward(exchange)
        if status >= 300 or exchange.command in _FREE:
            return status, headers, body
        default = str(self.settings.get(bucket, {}).get("storageClass", "STANDARD"))
        if is_settings:
            body = json.dumps({**json.loads(body), **self.settings.get(bucket, {})}).encode()
            self.operations[bucket, "B", default] += 1
        elif name:
            self.operations[bucket, "B", class_of(name)] += 1
            if "alt=media" in exchange.path:
                self.fetched[bucket, class_of(name)] += len(body)
                self.reads[name] += 1
        else:
            self.operations[bucket, "A", default] += 1
            if exchange.command == "GET":
                body = _with_classes(body)
        return status, headers, body


def class_of(name: str) -> str:
    """Return the storage class that the name of an object stands for."""
    return next((folder for folder in name.split("/") if folder in CLASSES), "STANDARD")


def _with_classes(listing: bytes) -> bytes:
    page = json.loads(listing)
    for item in page.get("items", []):
        item["storageClass"] = class_of(item["name"])
    return json.dumps(page).encode()
