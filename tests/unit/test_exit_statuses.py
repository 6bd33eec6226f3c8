"""Every exit status is right, and listed in docs/OPERATIONS.md."""

import re
from pathlib import Path

import pytest

from dcm2bq import errors
from dcm2bq.cli import common

PAGE = Path(__file__).parents[2] / "docs" / "OPERATIONS.md"


def test_every_exit_status_is_in_the_table() -> None:
    section = PAGE.read_text().partition("## Exit statuses\n")[2].partition("\n## ")[0]
    listed = [int(match) for match in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)]
    assert listed == [
        0,
        common.FINDINGS,
        common.USAGE,
        common.UNREACHABLE,
        common.JOB_FAILED,
        common.QUOTA_USED,
        common.INTERRUPTED,
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ConfigError("x"), 2),
        (errors.ReadFailedError("x"), 3),
        (errors.WriteFailedError("x"), 3),
        (errors.ServiceError("x"), 3),
        (errors.JobFailedError("x"), 4),
        (errors.LoadFailedError("x"), 3),
        (errors.QuotaExceededError("x"), 5),
        (errors.NotDicomError("x"), 1),
        (ValueError("x"), 1),
    ],
)
def test_an_error_has_the_status_of_its_kind(error: Exception, status: int) -> None:
    assert common.status_of(error) == status
