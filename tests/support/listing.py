"""A stub of Cloud Storage that lists a bucket of any size, page by page."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tests.support.http_server import Exchange, serving

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
        with serving(self._serve) as url:
            yield url

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

    def _serve(self, exchange: Exchange) -> None:
        bucket = urlsplit(exchange.path).path.split("/")[-2]
        exchange.answer_json(self.page(bucket, exchange.query))
