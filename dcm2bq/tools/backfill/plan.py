"""Count a bucket, and split it into ranges of names of about the same number of objects.

Nothing tells beforehand how names are spread: flat ones, deep hierarchies, one prefix that
holds nearly everything. So the bucket is listed, by several threads: one that has nothing left
to list takes the upper half, by name, of what another one has before it. A half that proves
empty is worth as much: it tells the other one where its names end.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import msgspec

from dcm2bq.gcs.store import LISTED_AT_ONCE
from dcm2bq.stored_object import StoredObject

THREADS = 16
SHARDS_MAX = 1000
"""Each costs a load job, and BigQuery takes 1,500 a day for one table."""
SHARD_OBJECTS = 10_000
"""Fewest objects that are worth a load job."""

_PAGES = 4
_SPACE, _TILDE, _LAST = 0x20, 0x7E, 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """The names from `start` on and, unless `end` is empty, less than `end`.

    `listed` counts the objects, `objects` those that are to be handled, of `bytes` in all.
    """

    number: int
    start: str
    end: str
    listed: int
    objects: int
    bytes: int


class Lister(Protocol):
    """Where a listing comes from: see `gcs.Store.pages`."""

    def pages(
        self, bucket: str, prefix: str, *, start: str, end: str, at_once: int
    ) -> Iterator[Sequence[StoredObject]]:
        """Yield the objects in order, page by page."""


@dataclass(slots=True)
class _Piece:
    """What a few pages hold; it reaches to the start of the next piece."""

    start: str
    listed: int = 0
    objects: int = 0
    bytes: int = 0


@dataclass(slots=True, eq=False)
class _Span:
    """A range that one thread lists; `position` is the last name it has seen, if any.

    `is_shared` tells that another thread is about to see what the upper half holds.
    """

    start: str
    end: str
    position: str = ""
    is_shared: bool = False
    pieces: list[_Piece] = field(default_factory=list)


class Census:
    """Lists what is under a prefix with several threads.

    `on_page` hears how many objects a page held. Raises `ReadFailedError`.
    """

    def __init__(
        self,
        lister: Lister,
        bucket: str,
        prefix: str,
        is_ignored: Callable[[StoredObject], bool],
        on_page: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._lister = lister
        self._bucket = bucket
        self._prefix = prefix
        self._is_ignored = is_ignored
        self._on_page = on_page
        self._changed = threading.Condition()
        self._begun = False
        self._active: list[_Span] = []
        self._pieces: list[_Piece] = []
        self._at_once = LISTED_AT_ONCE
        self._failure: BaseException | None = None
        self.requests = 0

    def shards(
        self, threads: int = THREADS, *, least: int = SHARD_OBJECTS, most: int = SHARDS_MAX
    ) -> list[Shard]:
        """Return at most `most` shards of at least `least` objects, the last one excepted."""
        self._at_once = min(LISTED_AT_ONCE, least)
        with ThreadPoolExecutor(threads) as pool:
            try:
                for each in [pool.submit(self._work) for _ in range(threads)]:
                    each.result()
            except BaseException as error:
                self._failure = error  # an interrupt: the threads end with their page
                raise
        self._pieces.sort(key=lambda each: each.start)
        return list(_merge(self._pieces, least, most))

    def _work(self) -> None:
        while taken := self._take():
            span, victim = taken
            try:
                self._list(span, victim)
            except BaseException as error:
                self._failure = error
                raise
            finally:
                with self._changed:
                    self._active.remove(span)
                    self._pieces += span.pieces
                    self._release(victim)

    def _take(self) -> tuple[_Span, _Span | None] | None:
        """Return a range that nobody lists, and the one it was taken from; None at the end."""
        with self._changed:
            while self._failure is None:
                if not self._begun:
                    self._begun = True
                    self._active.append(_Span(start="", end=""))
                    return self._active[0], None
                for victim in self._active:
                    if middle := self._middle(victim):
                        taken = _Span(start=middle, end=victim.end)
                        victim.end, victim.is_shared = middle, True
                        self._active.append(taken)
                        return taken, victim
                if not self._active:
                    break
                self._changed.wait()
        return None

    def _middle(self, span: _Span) -> str | None:
        """Return where to part what a range has before it, or None where it cannot be."""
        if span.is_shared or not span.position:
            return None
        low = span.position.removeprefix(self._prefix)
        middle = between(low, span.end.removeprefix(self._prefix))
        return None if middle is None else self._prefix + middle

    def _list(self, span: _Span, victim: _Span | None) -> None:
        pages = self._lister.pages(
            self._bucket, self._prefix, start=span.start, end=span.end, at_once=self._at_once
        )
        for page in pages:
            kept = self._keep(span, page)
            self._on_page(len(kept))
            if len(kept) < len(page) or not page or self._failure is not None:
                return
            with self._changed:
                self._release(victim)
            victim = None

    def _release(self, victim: _Span | None) -> None:
        """Let a range be parted again, and wake who waits for one."""
        if victim:
            victim.is_shared = False
        self._changed.notify_all()

    def _keep(self, span: _Span, page: Sequence[StoredObject]) -> Sequence[StoredObject]:
        """Note what a page holds of a range, whose end may have come nearer; return it."""
        with self._changed:
            kept = [each for each in page if not span.end or each.name < span.end]
            # The first piece begins where the range does: ranges leave no gap.
            start = page[0].name if span.pieces and page else span.start
            self._add(span.pieces, start, kept)
            if kept:
                span.position = kept[-1].name
            self.requests += 1
            return kept

    def _add(self, pieces: list[_Piece], start: str, kept: Sequence[StoredObject]) -> None:
        if not pieces or pieces[-1].listed >= self._at_once * _PAGES:
            pieces.append(_Piece(start))
        wanted = [each for each in kept if not self._is_ignored(each)]
        pieces[-1].listed += len(kept)
        pieces[-1].objects += len(wanted)
        pieces[-1].bytes += sum(each.size or 0 for each in wanted)


def between(low: str, high: str) -> str | None:
    """Return a name above `low` and less than `high`, near their middle, or None.

    An empty `high` is above every name.
    """
    if high and low >= high:
        return None
    common = 0
    while common < min(len(low), len(high)) and low[common] == high[common]:
        common += 1
    for index in range(common, len(low) + 1):
        floor = ord(low[index]) if index < len(low) else _SPACE - 1
        is_bounded = index < len(high) and low[:index] == high[:index]
        ceiling = ord(high[index]) if is_bounded else _LAST + 1
        # Nearly all names are ASCII: what is beyond counts as one step until nothing else is left.
        top = min(ceiling, _TILDE + 1) if floor < _TILDE else ceiling
        code = (floor + top) // 2
        code = _SURROGATES.start - 1 if code in _SURROGATES else code
        if floor < code < top:
            return low[:index] + chr(code)
    return None


def _merge(pieces: Sequence[_Piece], least: int, most: int) -> Iterator[Shard]:
    """Yield the pieces joined to shards; each ends where the next one starts."""
    wanted = max(least, -(-sum(each.listed for each in pieces) // most))
    number, group = 0, _Piece(pieces[0].start)
    for piece, following in pairwise([*pieces, None]):
        assert piece is not None
        group.listed += piece.listed
        group.objects += piece.objects
        group.bytes += piece.bytes
        if following is None or group.listed >= wanted:
            yield Shard(
                number=number,
                start=group.start,
                end=following.start if following else "",
                listed=group.listed,
                objects=group.objects,
                bytes=group.bytes,
            )
            number, group = number + 1, _Piece(following.start if following else "")
