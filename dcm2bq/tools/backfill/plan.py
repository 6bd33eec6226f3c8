"""Count a bucket, and split it into ranges of names with similar numbers of objects.

How names are distributed is unknown beforehand: they may be flat, deep hierarchies, or nearly all
under one prefix. So several threads list the bucket, and a thread that has finished its range
takes the upper half, by name, of what another thread still has to list. Even a half that turns
out to be empty is useful: it shows the other thread where its names end.
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
from dcm2bq.tools.backfill.storage_classes import ClassCount, sum_of, tally, total

THREADS = 16
"""Pages listed at the same time; each takes some 100 ms, nearly all of it waiting."""
SHARDS_MAX = 1000
"""Each shard needs a query, a record, and a partition of the table of known generations."""
SHARD_OBJECTS = 10_000
"""Fewest objects that are worth a query and a record."""

_PIECE_PAGES = 4  # pages counted together: shards end between two pieces, and memory stays small
_SPACE, _TILDE, _LAST = 0x20, 0x7E, 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)  # not characters: UTF-8 cannot encode them


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """The names from `start` up to, but excluding, `end`; an empty `end` is no bound.

    `listed` counts all objects, `objects` those that the function does not ignore, and `bytes` is
    their total size. `classes` counts the same objects by storage class.
    """

    number: int
    start: str
    end: str
    listed: int
    objects: int
    bytes: int
    classes: dict[str, ClassCount] = {}


class Lister(Protocol):
    """The source of a listing; see `gcs.store.Store.pages`."""

    def pages(
        self, bucket: str, prefix: str, *, start: str, end: str, at_once: int
    ) -> Iterator[Sequence[StoredObject]]:
        """Yield the objects in order, page by page."""


@dataclass(slots=True)
class _Piece:
    """The counts of a few pages; it extends to the start of the next piece."""

    start: str
    listed: int = 0
    classes: dict[str, ClassCount] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Span:
    """A range that one thread lists; `position` is the last name listed, if any.

    `is_shared` is true until another thread has listed the first page of its upper half.
    """

    start: str
    end: str
    position: str = ""
    is_shared: bool = False
    pieces: list[_Piece] = field(default_factory=list)


class Census:
    """Lists the objects under a prefix with several threads.

    `on_page` is called with the number of objects of each page. Raises `ReadFailedError`.
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
        """Return at most `most` shards, all but the last with at least `least` objects."""
        self._at_once = min(LISTED_AT_ONCE, least)
        with ThreadPoolExecutor(threads) as pool:
            try:
                for future in [pool.submit(self._work) for _ in range(threads)]:
                    future.result()
            except BaseException as error:
                self._failure = error  # also on an interrupt: threads end after their page
                raise
        self._pieces.sort(key=lambda piece: piece.start)
        return list(_merge(self._pieces, least, most))

    def _work(self) -> None:
        while work := self._take():
            span, victim = work
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
        """Return a range to list and the one that it was taken from; None at the end."""
        with self._changed:
            while self._failure is None:
                if not self._begun:
                    self._begun = True
                    self._active.append(_Span(start="", end=""))
                    return self._active[0], None
                for victim in self._active:
                    if middle := self._middle(victim):
                        upper = _Span(start=middle, end=victim.end)
                        victim.end, victim.is_shared = middle, True
                        self._active.append(upper)
                        return upper, victim
                if not self._active:
                    break
                self._changed.wait()
        return None

    def _middle(self, span: _Span) -> str | None:
        """Return where to split the rest of a range; None if it cannot be split now."""
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
        """Allow a range to be split again, and wake the threads that wait for one."""
        if victim:
            victim.is_shared = False
        self._changed.notify_all()

    def _keep(self, span: _Span, page: Sequence[StoredObject]) -> Sequence[StoredObject]:
        """Count and return the objects of a page in a range, whose end may have moved down."""
        with self._changed:
            kept = [stored for stored in page if not span.end or stored.name < span.end]
            # The first piece begins where the range does, so that shards leave no gap.
            start = page[0].name if span.pieces and page else span.start
            self._add(span.pieces, start, kept)
            if kept:
                span.position = kept[-1].name
            self.requests += 1
            return kept

    def _add(self, pieces: list[_Piece], start: str, kept: Sequence[StoredObject]) -> None:
        if not pieces or pieces[-1].listed >= self._at_once * _PIECE_PAGES:
            pieces.append(_Piece(start))
        chosen = (stored for stored in kept if not self._is_ignored(stored))
        pieces[-1].listed += len(kept)
        pieces[-1].classes = total([pieces[-1].classes, tally(chosen)])


def between(low: str, high: str) -> str | None:
    """Return a name between `low` and `high`, near their middle; None if there is none.

    An empty `high` is greater than every name.

    >>> between("2019/a", "2019/z")
    '2019/m'
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
        # Nearly all names are ASCII: the middle is sought there, and beyond it only at its end.
        top = min(ceiling, _TILDE + 1) if floor < _TILDE else ceiling
        code = (floor + top) // 2
        code = _SURROGATES.start - 1 if code in _SURROGATES else code
        if floor < code < top:
            return low[:index] + chr(code)
    return None


def _merge(pieces: Sequence[_Piece], least: int, most: int) -> Iterator[Shard]:
    """Yield the pieces joined into shards; each ends where the next one starts."""
    enough = max(least, -(-sum(piece.listed for piece in pieces) // most))
    number, group = 0, _Piece(pieces[0].start)
    for piece, following in pairwise([*pieces, None]):
        assert piece is not None
        group.listed += piece.listed
        group.classes = total([group.classes, piece.classes])
        if following is None or group.listed >= enough:
            whole = sum_of(group.classes)
            yield Shard(
                number=number,
                start=group.start,
                end=following.start if following else "",
                listed=group.listed,
                objects=whole.objects,
                bytes=whole.bytes,
                classes=group.classes,
            )
            number, group = number + 1, _Piece(following.start if following else "")
