"""Signs of life: each process notes now and then what it does, for `backfill --status`."""

import socket
import time

from dcm2bq.tools.backfill.run_records import RunRecords, Sign

SIGN_SECONDS = 60.0
"""Pause between two signs: each costs a write, and 50 processes make 42,000 of them in 14 h."""


class SignOfLife:
    """The signs of one task: of staging a shard, or of loading if `shard` is None.

    The first follows after `SIGN_SECONDS`: a shorter task is visible by its result.
    """

    def __init__(self, records: RunRecords, shard: int | None = None) -> None:
        self._records = records
        self._shard = shard
        self._objects = 0
        self._noted = time.monotonic()

    def count(self) -> None:
        """Count an object, and note the number if a sign is due."""
        self._objects += 1
        self.show()

    def show(self) -> None:
        """Note the number of objects if a sign is due."""
        now = time.monotonic()
        if now - self._noted < SIGN_SECONDS:
            return
        self._noted = now
        self._records.sign(
            Sign(host=socket.gethostname(), shard=self._shard, objects=self._objects)
        )
