"""The estimate of a backfill's cost and time, as text and as JSON.

`costs` computes it, with the prices of `prices`. docs/BACKFILL.md has the assumptions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dcm2bq.gcs.bucket_settings import ASSUMED, PERMISSION, BucketSettings
from dcm2bq.tools.backfill import costs
from dcm2bq.tools.backfill.costs import GIB, CostItem, Terms, Work
from dcm2bq.tools.backfill.launch import BucketCount
from dcm2bq.tools.backfill.storage_classes import ClassCounts, sum_of, total
from dcm2bq.tools.wording import counted, duration

DEFAULT_WORKERS = 10
"""Cores that the estimate for Dataflow assumes without --max-workers."""

_CENT = 0.01
_ROW_BYTES = 6 * 1024
"""Size of a row in `instances`, for the storage that it takes (docs/PERFORMANCE.md)."""
_LOG_ENTRY_BYTES = 1536
"""Size of an entry in the Data Access audit logs, if these are on: an assumption."""
_ANYWHERE = {"every location", "every region", "every dual-region and multi-region"}
_AUTOCLASS = (
    "retrieval is free; objects that are read move to Standard and stay there for a month or "
    "longer, of which one month is counted"
)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The estimate of a run on the objects that a `count` has found.

    `classes` are the storage classes to be loaded, all if empty. `known` is the number of
    generations that BigQuery already has, which are listed but not read; None if it is unknown.
    `queried` are the bytes of the query that finds them.
    """

    count: BucketCount
    terms: Terms
    classes: Sequence[str] = ()
    known: int | None = None
    queried: int = 0
    processes: int = 1
    workers: int | None = None

    @cached_property
    def counts(self) -> ClassCounts:
        """The objects that the function does not ignore, by storage class."""
        return total(shard.classes for shard in self.count.shards)

    @cached_property
    def work(self) -> Work:
        """What is still to be done; the count has been made."""
        work = costs.whole_work(self.count.shards, self.classes, self.known)
        return Work(
            listings=work.listings + self.count.requests,
            reads=work.reads,
            shards=work.shards,
            queried=self.queried,
        )

    @cached_property
    def items(self) -> Sequence[CostItem]:
        """The cost, item by item."""
        return list(costs.cost_items(self.terms, self.work))

    @property
    def dollars(self) -> float:
        """The cost in all, the count included."""
        return sum(item.dollars for item in self.items)

    @property
    def dollars_before(self) -> float:
        """The cost of the count, and of the query if `queried` is given: no object is read yet."""
        before = Work(listings=self.count.requests, reads={}, queried=self.queried)
        return costs.cost_of(self.terms, before)

    @property
    def new(self) -> int:
        """Number of objects to be read."""
        return sum_of(self.work.reads).objects

    def lines(self) -> Iterator[str]:
        """Yield the estimate, line by line."""
        count = self.count
        yield (
            f"{counted(count.listed, 'object')} in {counted(len(count.shards), 'shard')}; "
            f"{count.listed - count.objects:,} ignored, {count.objects:,} to convert "
            f"({count.bytes:,} bytes)"
        )
        yield from _names(count)
        if self.known is not None:
            new = max(count.objects - self.known, 0)
            yield (
                f"BigQuery already has {self.known:,} of them, as rows or dead letters; {new:,} new"
            )
        yield ""
        yield from _aligned(self._class_rows(), right=(1, 2, 3))
        yield ""
        yield from _aligned(self._cost_rows(), right=(1, 3))
        yield ""
        yield from self._times()
        yield ""
        yield from _aligned((f"{name}:", text) for name, text in self.assumptions())

    def document(self) -> dict[str, Any]:
        """Return the estimate as a document for JSON."""
        count, prices = self.count, self.terms.prices
        return {
            "objects": {
                "listed": count.listed,
                "ignored": count.listed - count.objects,
                "sniffed": count.sniffed,
                "archives": count.archives,
                "known": self.known,
                "toRead": self.new,
            },
            "storageClasses": {
                name: {
                    "objects": group.objects,
                    "bytes": group.bytes,
                    "toRead": self.work.reads[name].objects if name in self.work.reads else 0,
                    "isLeftOut": name not in self.work.reads,
                }
                for name, group in self.counts.items()
            },
            "items": [
                {
                    "name": item.name,
                    "amount": item.amount,
                    "unit": item.unit,
                    "price": str(item.price),
                    "usd": item.dollars,
                    "source": item.price.source,
                }
                for item in self.items
            ],
            "usd": self.dollars,
            "usdPerMonth": self._monthly,
            "seconds": {"count": count.seconds, "here": self._seconds / self.processes},
            "assumptions": dict(self.assumptions()),
            "prices": {"file": prices.place, "dates": [str(day) for day in prices.dates]},
        }

    def assumptions(self) -> Iterator[tuple[str, str]]:
        """Yield what the estimate assumes, each with its subject."""
        terms = self.terms
        yield "prices", self._of_prices()
        yield "bucket", _words(terms.source)
        yield "staging", _words(terms.staging)
        yield "reads", self._of_reads()
        if self.known:
            yield "known objects", "spread evenly over the storage classes; they are not read"
        if terms.source.autoclass.enabled:
            yield "Autoclass", _AUTOCLASS
        yield "early deletion", "none for the objects: reading deletes nothing"
        yield "network", self._of_network()
        yield "load jobs", "free"
        yield "rows", f"{_dollars(self._monthly)} a month in BigQuery, at {_ROW_BYTES:,} bytes each"
        yield "logs", self._of_logs()

    def _class_rows(self) -> Iterator[Sequence[str]]:
        yield "storage class", "objects", "bytes", "to read"
        for name in costs.by_price(self.counts):
            group, reads = self.counts[name], self.work.reads.get(name)
            to_read = "left out" if reads is None else f"{reads.objects:,}"
            yield name, f"{group.objects:,}", f"{group.bytes:,}", to_read

    def _cost_rows(self) -> Iterator[Sequence[str]]:
        yield "what is charged", "amount", "", "cost", "price"
        for item in self.items:
            yield (
                *(item.name, _amount(item), item.unit),
                *(_dollars(item.dollars), str(item.price)),
            )
        yield "in all", "", "", _dollars(self.dollars), ""

    @property
    def _seconds(self) -> float:
        return costs.worker_hours(self.new) * 3600

    @property
    def _monthly(self) -> float:
        return self.new * _ROW_BYTES / GIB * self.terms.prices.of("bigquery_storage").each

    def _times(self) -> Iterator[str]:
        workers = self.workers or DEFAULT_WORKERS
        processes = f"{self.processes} {'process' if self.processes == 1 else 'processes'}"
        yield (
            f"time here, with {processes} of {costs.OBJECTS_PER_SECOND} objects/s: "
            f"{duration(self._seconds / self.processes)}"
        )
        vcpu, memory = (self.terms.prices.of(f"dataflow_{part}") for part in ("vcpu", "memory"))
        hours = costs.worker_hours(self.new)
        price = hours * (vcpu.each + costs.WORKER_GIB * memory.each)
        yield (
            f"time on Dataflow, with {counted(workers, 'core')}: "
            f"{duration(self._seconds / workers)}, plus a few minutes to start; "
            f"{hours:,.1f} core hours: {_dollars(price)}"
        )
        yield f"the count took {duration(self.count.seconds)}"

    def _of_prices(self) -> str:
        first, last = self.terms.prices.dates
        days = f"{first}" if first == last else f"{first} to {last}"
        places = sorted({item.price.published_for for item in self.items} - _ANYWHERE)
        where = f", for {'; '.join(places)} where they differ by location" if places else ""
        return f"Google's list prices of {days}{where}; --prices FILE replaces them"

    def _of_reads(self) -> str:
        rate = self.terms.rate
        if not rate.sampled:
            return (
                "1 per object, of up to 64 KiB, as of native pixel data; compressed objects take "
                "up to 20 reads, and all bytes if they are smaller than 1 MiB"
            )
        return (
            f"{rate.reads:.2f} per object, and {rate.factor:.0%} of the first 64 KiB, as measured "
            f"on {counted(rate.sampled, 'object')} in Standard"
        )

    def _of_network(self) -> str:
        terms = self.terms
        gib = costs.fetched_by_all(terms, self.work)
        if terms.region is not None:
            if costs.network_price(terms) is None:
                return f"free: workers in {terms.region} are where the bucket is"
            return f"workers in {terms.region} are in another location than the bucket"
        outside = terms.prices.of("network", "out of Google Cloud")
        return (
            "free if this machine is in the bucket's region; outside Google Cloud, "
            f"{_dollars(gib * outside.each)} more ({gib:,.2f} GiB at {outside})"
        )

    def _of_logs(self) -> str:
        price = self.terms.prices.of("logging")
        gib = self.new * self.terms.rate.reads * _LOG_ENTRY_BYTES / GIB
        return (
            "no line per object; if Cloud Storage's Data Access audit logs are on, "
            f"{_dollars(gib * price.each)} more ({gib:,.2f} GiB at {price}, "
            f"{_LOG_ENTRY_BYTES:,} bytes for each read)"
        )


def _names(count: BucketCount) -> Iterator[str]:
    """Yield what the names of the objects leave open."""
    if count.sniffed:
        yield (
            f"{counted(count.sniffed, 'object')} to convert with names that do not match "
            "input.namePattern: 1 read each, then ignored unless it is DICOM"
        )
    if count.archives:
        yield (
            f"{counted(count.archives, 'archive')} to convert: how many members they have, and of "
            "what size, is not known before they are read, so each counts as one object here"
        )


def _words(bucket: BucketSettings) -> str:
    place = f"{bucket.location_type} {bucket.location}".rstrip()
    features = f"default class {bucket.storage_class}, Autoclass "
    features += "on" if bucket.autoclass.enabled else "off"
    if bucket.hierarchical_namespace.enabled:
        features += ", hierarchical namespace"
    unknown = f" (assumed: its settings were not read, which takes {PERMISSION})"
    return f"{place}, {features}{unknown if bucket is ASSUMED else ''}"


def _aligned(rows: Iterator[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """Yield rows as lines whose cells are aligned, on the right in some columns."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _amount(item: CostItem) -> str:
    return (
        f"{item.amount:,.0f}" if item.unit in {"requests", "operations"} else f"{item.amount:,.3f}"
    )


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= _CENT or not amount else "less than $0.01"
