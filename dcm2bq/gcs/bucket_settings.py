"""The settings of a bucket that decide what requests to it cost."""

from http import HTTPStatus

import msgspec

from dcm2bq.errors import ReadFailedError
from dcm2bq.gcs import json_api
from dcm2bq.gcs.ranged import REQUESTER_PAYS
from dcm2bq.transport import Transport

PERMISSION = "storage.buckets.get"
"""What reading the settings takes: `roles/storage.objectViewer` does not include it."""
REGION, DUAL_REGION, MULTI_REGION = "region", "dual-region", "multi-region"

_SECONDS = 30
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class Switch(msgspec.Struct, frozen=True):
    """A feature that is on or off."""

    enabled: bool = False


class Placement(msgspec.Struct, frozen=True, rename="camel"):
    """The two regions of a dual-region that its owner has combined."""

    data_locations: tuple[str, ...] = ()


class BucketSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where a bucket is, its default storage class, and features that change prices.

    `location` is in upper case, as Cloud Storage writes it. `location_type` is one of the
    constants above, or that of a kind of location that has no price here.
    """

    location: str = ""
    location_type: str = REGION
    storage_class: str = "STANDARD"
    autoclass: Switch = Switch()
    hierarchical_namespace: Switch = Switch()
    custom_placement_config: Placement = Placement()

    @property
    def regions(self) -> frozenset[str]:
        """The regions that data is read from without a charge for the network, in upper case.

        Those of a predefined dual-region are not part of the settings.
        """
        if self.location_type == DUAL_REGION:
            return frozenset(self.custom_placement_config.data_locations)
        return frozenset({self.location} if self.location_type == REGION else ())


ASSUMED = BucketSettings()
"""Stands for settings that could not be read."""


def read_settings(
    transport: Transport, bucket: str, user_project: str | None
) -> BucketSettings | None:
    """Return a bucket's settings; None if they may not be read (`PERMISSION`).

    Costs one Class B operation. Raises `ServiceError` if Cloud Storage does not answer, and
    `ReadFailedError` for any other refusal.
    """
    fields = [field.encode_name for field in msgspec.structs.fields(BucketSettings)]
    query = {"fields": ",".join(fields)}
    if user_project:
        query["userProject"] = user_project
    place = f"Cloud Storage: gs://{bucket}"
    answer = json_api.send(
        transport, "GET", json_api.bucket_path(bucket), query, place=place, seconds=_SECONDS
    )
    if answer.status in _REFUSED:
        return None
    if answer.status == HTTPStatus.NOT_FOUND:
        raise ReadFailedError(f"{place}: there is no such bucket")
    if answer.status != HTTPStatus.OK:
        is_requester_pays = "required" in answer.reasons
        raise ReadFailedError(f"{place}: {answer}{f': {REQUESTER_PAYS}' * is_requester_pays}")
    try:
        return msgspec.json.decode(answer.body, type=BucketSettings)
    except ValueError:
        raise ReadFailedError(f"{place}: the answer does not describe a bucket") from None
