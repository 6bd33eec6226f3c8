"""What a backfill costs: each request, byte and hour with its price, and their sum.

Reading an object deletes nothing, so no early deletion is charged for it, whatever its storage
class. In an Autoclass bucket reading costs no retrieval, but moves the object to Standard storage.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dcm2bq.gcs.bucket_settings import (
    ASSUMED,
    DUAL_REGION,
    MULTI_REGION,
    REGION,
    BucketSettings,
)
from dcm2bq.gcs.store import LISTED_AT_ONCE
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.read_sample import UNMEASURED, ReadRate
from dcm2bq.tools.backfill.storage_classes import (
    STANDARD,
    ClassCount,
    ClassCounts,
    only,
    sum_of,
    total,
)
from dcm2bq.tools.prices import Price, Prices

GIB = 2**30
OBJECTS_PER_SECOND = 400
"""Objects that one process handles: 16 in flight at 40 ms each. Its CPU could handle 1,000."""
WORKER_GIB = 4
"""Memory of a Dataflow worker for each of its vCPUs."""
STAGED_ROW_BYTES = 800
"""Compressed size of a row in a staged file."""
FILE_ROWS = 20_000
"""Rows in a staged file of 16 MiB."""
COLD_AFTER_READ = frozenset({"COLDLINE", "ARCHIVE"})
"""Storage classes that Autoclass charges an operation for to move an object to Standard."""

_STAGED_ONCE = 3  # objects written for a shard besides further files: its rows and two records
_MINIMUM_MONTHS = {"NEARLINE": 1, "COLDLINE": 3, "ARCHIVE": 12}
"""How long an object is paid for, at least, however early it is deleted."""
_PLACES = {DUAL_REGION: MULTI_REGION, MULTI_REGION: MULTI_REGION}
"""Where operations have the prices of a multi-region; those of a region hold anywhere else."""
_COPIES = {DUAL_REGION: 2}
"""How often storage is charged at its published price."""
_AREAS = (
    ("NORTHAMERICA-SOUTH", "Latin America"),  # Mexico: not named on the page, so the dearer area
    *((begin, "Northern America") for begin in ("US", "NORTHAMERICA", "NAM", "CA")),
    *((begin, "Europe") for begin in ("EU", "DE")),
    ("ASIA-SOUTHEAST2", "Indonesia"),
    *((begin, "Asia") for begin in ("ASIA", "IN")),
    ("AU", "Oceania"),
    ("ME-", "Middle East"),
    ("SOUTHAMERICA", "Latin America"),
    ("AFRICA", "Africa"),
)
"""The areas of network prices, by how the names of their locations begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the cost depends on besides the objects.

    `region` is that of Dataflow's workers, None for a run on this machine, wherever that is.
    """

    prices: Prices
    source: BucketSettings = ASSUMED
    staging: BucketSettings = ASSUMED
    rate: ReadRate = UNMEASURED
    region: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is listed and read: `reads` counts the objects by storage class."""

    listings: int = 0
    reads: ClassCounts
    shards: int = 0
    queried: int = 0


@dataclass(frozen=True, slots=True)
class CostItem:
    """A number of operations, GiB or hours, and what they cost."""

    name: str
    amount: float
    unit: str
    price: Price

    @property
    def dollars(self) -> float:
        """The cost."""
        return self.amount * self.price.each


def cost_of(terms: Terms, work: Work) -> float:
    """Return what some work costs, in dollars."""
    return sum(item.dollars for item in cost_items(terms, work))


def cost_items(terms: Terms, work: Work) -> Iterator[CostItem]:
    """Yield what some work costs, item by item; an item of no amount is left out."""
    for items in (_listing, _reading, _autoclass, _network, _staging, _query, _workers):
        yield from (item for item in items(terms, work) if item.amount)


def shard_work(shard: Shard, classes: Sequence[str], known: int | None) -> Work:
    """Return the work of staging a shard in which BigQuery has `known` objects.

    The storage class of these is not known. They count as the cheapest, so that the work never
    costs more than this.
    """
    chosen = only(shard.classes, classes)
    left = min(sum_of(shard.classes).objects - (known or 0), sum_of(chosen).objects)
    reads = {}
    for name in reversed(by_price(chosen)):
        reads[name] = chosen[name].part(max(min(chosen[name].objects, left), 0))
        left -= reads[name].objects
    return Work(listings=listings(shard), reads=reads, shards=1)


def whole_work(shards: Sequence[Shard], classes: Sequence[str], known: int | None) -> Work:
    """Return the work of staging shards in which BigQuery has `known` objects, spread evenly."""
    everything = total(shard.classes for shard in shards)
    objects = sum_of(everything).objects
    share = max(objects - (known or 0), 0) / objects if objects else 0.0
    reads = {
        name: group.part(round(group.objects * share))
        for name, group in only(everything, classes).items()
    }
    return Work(listings=sum(map(listings, shards)), reads=reads, shards=len(shards))


def within_budget(
    terms: Terms, budget: float, shards: Sequence[Shard], works: Mapping[int, Work]
) -> tuple[Sequence[Shard], float]:
    """Return the first shards that a budget covers together, and what they cost."""
    spent = 0.0
    for index, shard in enumerate(shards):
        cost = cost_of(terms, works[shard.number])
        if spent + cost > budget:
            return shards[:index], spent
        spent += cost
    return shards, spent


def listings(shard: Shard) -> int:
    """Return how many requests list a shard."""
    return max(-(-shard.listed // LISTED_AT_ONCE), 1)


def fetched(terms: Terms, group: ClassCount) -> float:
    """Return how many GiB are read of some objects."""
    return min(group.heads * terms.rate.factor, group.bytes) / GIB


def by_price(counts: ClassCounts) -> list[str]:
    """Return storage classes from the cheapest to read to the dearest."""
    order = (STANDARD, "NEARLINE", "DURABLE_REDUCED_AVAILABILITY", "COLDLINE", "ARCHIVE")
    return sorted(counts, key=lambda name: order.index(name) if name in order else len(order))


def area(location: str) -> str | None:
    """Return the area of network prices that a location is in; None for one that is unknown.

    >>> area("EUROPE-WEST3"), area("NAM4"), area("ASIA-SOUTHEAST2")
    ('Europe', 'Northern America', 'Indonesia')
    """
    return next((name for begin, name in _AREAS if location.upper().startswith(begin)), None)


def operation(terms: Terms, kind: str, bucket: BucketSettings, storage_class: str) -> Price:
    """Return the price of an operation of `kind`, `class_a` or `class_b`.

    A storage class without a price has that of the dearest.
    """
    classes = terms.prices.storage_classes
    name = STANDARD if bucket.autoclass.enabled else storage_class
    return terms.prices.of(
        f"{kind}_hierarchical" if bucket.hierarchical_namespace.enabled else kind,
        _PLACES.get(bucket.location_type, REGION),
        name if name in classes else classes[-1],
    )


def network_price(terms: Terms) -> Price | None:
    """Return the price of a GiB that Dataflow's workers read; None if it is free."""
    if terms.region is None or terms.region.upper() in terms.source.regions:
        return None
    between = area(terms.source.location), area(terms.region)
    prices = terms.prices.by_key
    key = ("network", f"{between[0]} to {between[1]}", "")
    inside = [price for (item, place, _), price in prices.items() if _is_inside(item, place)]
    return prices.get(key) or max(inside, key=lambda price: price.dollars)


def _is_inside(item: str, place: str) -> bool:
    return item == "network" and " to " in place


def _listing(terms: Terms, work: Work) -> Iterator[CostItem]:
    price = operation(terms, "class_a", terms.source, terms.source.storage_class)
    yield CostItem("list the bucket", work.listings, "requests", price)


def _reading(terms: Terms, work: Work) -> Iterator[CostItem]:
    for name in by_price(work.reads):
        group = work.reads[name]
        price = operation(terms, "class_b", terms.source, name)
        yield CostItem(f"read {name}", group.objects * terms.rate.reads, "requests", price)
        if not terms.source.autoclass.enabled:
            classes = terms.prices.storage_classes
            retrieval = terms.prices.of("retrieval", "", name if name in classes else classes[-1])
            if retrieval.dollars:
                yield CostItem(f"retrieve {name}", fetched(terms, group), "GiB", retrieval)


def _autoclass(terms: Terms, work: Work) -> Iterator[CostItem]:
    """Yield what moving objects to Standard costs, and storing them there for a month."""
    if not terms.source.autoclass.enabled:
        return
    standard = storage(terms, terms.source, STANDARD)
    operations = operation(terms, "class_a", terms.source, STANDARD)
    for name, group in work.reads.items():
        if name in COLD_AFTER_READ:
            yield CostItem(f"move {name} to Standard", group.objects, "operations", operations)
        if name in _MINIMUM_MONTHS:
            more = standard.dollars - storage(terms, terms.source, name).dollars
            amount = group.bytes / GIB * _COPIES.get(terms.source.location_type, 1)
            difference = replace(standard, dollars=more)
            yield CostItem(f"store {name} in Standard", amount, "GiB for a month", difference)


def storage(terms: Terms, bucket: BucketSettings, storage_class: str) -> Price:
    """Return the price of storing a GiB in a bucket for a month, once."""
    kinds = (REGION, DUAL_REGION, MULTI_REGION)
    place = bucket.location_type if bucket.location_type in kinds else REGION
    return terms.prices.of("storage", place, storage_class)


def _network(terms: Terms, work: Work) -> Iterator[CostItem]:
    if price := network_price(terms):
        yield CostItem("network to the workers", fetched_by_all(terms, work), "GiB", price)


def fetched_by_all(terms: Terms, work: Work) -> float:
    """Return how many GiB are read in all."""
    return sum(fetched(terms, group) for group in work.reads.values())


def _staging(terms: Terms, work: Work) -> Iterator[CostItem]:
    bucket = terms.staging
    objects = sum_of(work.reads).objects
    writes = work.shards * _STAGED_ONCE + objects // FILE_ROWS
    price = operation(terms, "class_a", bucket, bucket.storage_class)
    yield CostItem("write and list staged rows", writes + work.shards, "requests", price)
    staged = objects * STAGED_ROW_BYTES / GIB
    if bucket.location_type in _PLACES and (there := area(bucket.location)):
        replication = terms.prices.by_key.get(("replication", there, ""))
        if replication:
            yield CostItem("replicate staged rows", staged, "GiB", replication)
    if (months := _MINIMUM_MONTHS.get(bucket.storage_class)) and not bucket.autoclass.enabled:
        stored = storage(terms, bucket, bucket.storage_class)
        amount = staged * months * _COPIES.get(bucket.location_type, 1)
        yield CostItem("delete staged rows early", amount, "GiB for a month", stored)


def _query(terms: Terms, work: Work) -> Iterator[CostItem]:
    price = terms.prices.of("bigquery_query")
    yield CostItem("query known generations", work.queried / 2**40, "TiB", price)


def _workers(terms: Terms, work: Work) -> Iterator[CostItem]:
    if terms.region is not None:
        hours = worker_hours(sum_of(work.reads).objects)
        vcpu, memory = (terms.prices.of(f"dataflow_{part}") for part in ("vcpu", "memory"))
        yield CostItem("Dataflow: vCPUs", hours, "hours", vcpu)
        yield CostItem("Dataflow: memory", hours * WORKER_GIB, "GiB for an hour", memory)


def worker_hours(objects: int) -> float:
    """Return the hours that one core takes to handle some objects."""
    return objects / OBJECTS_PER_SECOND / 3600
