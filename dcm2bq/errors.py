"""The error taxonomy: errors are grouped by what must happen next.

    Dcm2BqError
    |- ConfigError               stop at once; the message names the option
    |- RejectedEventError        permanent: write a dead letter with the reason, acknowledge
    |  |- InvalidEventError      the event is not a storage object event
    |  |- NotDicomError          the object is not DICOM
    |  |  |- UnlikeDicomError    nor does it begin like DICOM: if sniffed, it is ignored
    |  |- UnreadableDicomError   the object is DICOM, but broken or beyond a limit
    |  |- RowTooLargeError       BigQuery can never take the row
    |  |- UnreadableArchiveError the archive, or a member of it, cannot be read
    |  |- ArchiveTooLargeError   reading the whole archive exceeds a limit
    |  |- NeverFinishedError     the event was started many times and never finished
    |- SupersededError           that generation no longer exists: acknowledge, write nothing
    |- JobFailedError            a job that a tool started has failed; its log says why
    |- RetryableError            answer HTTP 500, so that the event is delivered again
       |- ReadFailedError        the object could not be read, or not in time
       |- WriteFailedError       BigQuery did not store the row
       |- ServiceError           another request to a service failed: the message names it
          |- LoadFailedError     a load job failed, and another attempt would only cost quota
             |- QuotaExceededError  a daily quota of BigQuery is used up

Messages hold tags, VRs, offsets, sizes and status codes, never values: headers hold patient
data, and messages reach logs.
"""

import errno
import os
import traceback
from pathlib import Path

_FRAMES = 12
"""Frames shown of a foreign exception: enough to reach our own code from a library's."""


class Dcm2BqError(Exception):
    """The base of every error that this package raises on purpose."""


class ConfigError(Dcm2BqError):
    """The configuration cannot be used; the message names the option."""


class RejectedEventError(Dcm2BqError):
    """The event can never succeed, however often it is delivered."""


class InvalidEventError(RejectedEventError):
    """The event is not a Cloud Storage object event; the message names the field."""


class NotDicomError(RejectedEventError):
    """The object is neither a DICOM file (PS3.10 7.1) nor a bare data set."""


class UnlikeDicomError(NotDicomError):
    """The first bytes do not look like DICOM; raised only if the conversion is to sniff."""


class UnreadableDicomError(RejectedEventError):
    """The object is DICOM, but its structure is broken or it exceeds a limit.

    `offset` is in bytes from the object's first byte, or from the first byte of the inflated
    data set in a deflated transfer syntax. `tag` is eight uppercase hex digits.
    """

    def __init__(self, reason: str, *, offset: int | None = None, tag: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset
        self.tag = tag

    def __str__(self) -> str:
        parts = [
            f"tag {self.tag}" if self.tag is not None else "",
            f"offset {self.offset}" if self.offset is not None else "",
        ]
        place = ", ".join(filter(None, parts))
        return f"{self.reason} ({place})" if place else self.reason


class RowTooLargeError(RejectedEventError):
    """The row exceeds BigQuery's limit, with every value replaced by a reference that can be."""


class UnreadableArchiveError(RejectedEventError):
    """The archive, or one member of it, is broken, encrypted or in an unsupported format."""


class ArchiveTooLargeError(RejectedEventError):
    """Reading the archive exceeds a limit; the message names the limit and what to do."""


class NeverFinishedError(RejectedEventError):
    """The event was delivered so often that it probably ends the process."""


class SupersededError(Dcm2BqError):
    """The generation that the event names no longer exists."""


class JobFailedError(Dcm2BqError):
    """A job that a tool started has run and failed; only tools raise it."""


class RetryableError(Dcm2BqError):
    """The event may succeed when it is delivered again."""


class ReadFailedError(RetryableError):
    """The object or the listing could not be read, or not before the deadline."""


class WriteFailedError(RetryableError):
    """BigQuery did not store the row."""


class ServiceError(RetryableError):
    """A service did not do what a tool asked for; the message names the service.

    Queries and load jobs of BigQuery, files of a backfill in Cloud Storage, Dataflow, the
    package index, the servers of the local stack, and credentials for any of them. `status` is that
    of its HTTP response, if a client library of Google raised it.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class LoadFailedError(ServiceError):
    """A load job failed, and another attempt would fail too, and count towards the quota."""


class QuotaExceededError(LoadFailedError):
    """BigQuery refuses load jobs because a daily quota is used up; it refills within 24 hours."""


def describe(error: BaseException) -> str:
    """Return what went wrong without quoting a value.

    That is the message of an error of this package, and the type and frames of any other
    exception. An error of the operating system keeps the system's text for its number, since
    those texts are a fixed list.
    """
    if isinstance(error, Dcm2BqError):
        return str(error)
    name = type(error).__name__
    # Only built-in classes: subclasses such as ssl.SSLError have numbers of their own.
    is_system_error = type(error).__module__ == "builtins"
    number = error.errno if isinstance(error, OSError) and is_system_error else None
    if number is not None and number in errno.errorcode:
        name = f"{name} ({os.strerror(number)})"
    frames = [
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    ]
    return " < ".join([name, *reversed(frames)])
