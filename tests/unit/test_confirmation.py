"""Repairs are confirmed by few queries, since each of them reads the keys of all rows."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import cast

import pytest

from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.handler import Result
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.verify.findings import BucketDifference, Finding
from dcm2bq.tools.verify.repair import CONFIRMED_BYTES, Repair, Repairer, repair_all

EVENT = ObjectEvent(
    event_id="1",
    kind=EventKind.FINALIZED,
    time=datetime(2026, 1, 31, tzinfo=UTC),
    object=StoredObject(bucket="scans", name="a.dcm", generation=1),
)


class CountingRepairer:
    """Repairs nothing; `confirmed` has the number of repairs of each query."""

    def __init__(self) -> None:
        self.confirmed: list[int] = []

    def repair(self, difference: BucketDifference) -> Repair:
        return Repair(difference, Result.INSERTED)

    def confirm(self, repairs: Sequence[Repair]) -> Iterator[Repair]:
        if repairs:
            self.confirmed.append(len(repairs))
        yield from repairs


@pytest.mark.parametrize(
    ("count", "length", "queries"),
    [
        (999, 100, [999]),
        (4000, 100, [1000, 2000, 1000]),
        (36_000, 20, [1000, 2000, 4000, 8000, 16_000, 5000]),
        (3000, CONFIRMED_BYTES // 1500, [1000, 1500, 500]),
    ],
)
def test_each_query_confirms_more_repairs_within_the_limits_of_a_request(
    count: int, length: int, queries: list[int]
) -> None:
    differences = [
        BucketDifference(finding=Finding.MISSING, path=f"{number:0{length}}", event=EVENT)
        for number in range(count)
    ]
    repairer = CountingRepairer()
    repairs = repair_all(cast(Repairer, repairer), differences)
    assert [repair.difference for repair in repairs] == differences
    assert repairer.confirmed == queries
