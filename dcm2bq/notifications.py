"""The notifications that Cloud Storage itself sends to Pub/Sub, and the messages they come in.

A subscription pushes a message to the function, or an Eventarc trigger of the topic delivers it
as the data of a CloudEvent of `TYPE`. The message's attributes name the change (`eventType`),
its time (`eventTime`) and the object (`bucketId`, `objectId`, `objectGeneration`). Its data is
the object's resource in the JSON API; with the payload format NONE there is no data.
"""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from dcm2bq.delivery import NOT_JSON, Delivery, Message
from dcm2bq.errors import InvalidEventError

TYPE = "google.cloud.pubsub.topic.v1.messagePublished"

KINDS = {
    "OBJECT_FINALIZE": "finalized",
    "OBJECT_DELETE": "deleted",
    "OBJECT_ARCHIVE": "archived",
    "OBJECT_METADATA_UPDATE": "metadataUpdated",
}
"""The values of the attribute `eventType`, with those of the column `event`."""

_NAMES = {"bucketId": "bucket", "objectId": "name", "objectGeneration": "generation"}
"""The attributes that name the object, with their fields in the object's resource."""


class _PushedMessage(msgspec.Struct, rename="camel"):
    message_id: str
    attributes: dict[str, str] = {}
    data: bytes = b""  # base64
    publish_time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class _Push(msgspec.Struct, rename="camel"):
    """The body of Pub/Sub's push requests."""

    message: _PushedMessage
    subscription: str
    delivery_attempt: int | None = None


def pushed(body: bytes) -> Delivery | None:
    """Return the delivery in the body of a push request; None if it is not such a body."""
    try:
        push = msgspec.json.decode(body, type=_Push)
    except NOT_JSON:
        return None
    pushed = push.message
    message = Message(
        id=pushed.message_id, published=pushed.publish_time, attempt=push.delivery_attempt
    )
    return Delivery(pushed.attributes, pushed.data, message)


def kind(delivery: Delivery) -> str:
    """Return the value of the column `event`; raise `InvalidEventError` for another message."""
    try:
        return KINDS[delivery.attribute("eventType")]
    except KeyError:
        raise InvalidEventError(f"eventType: is not one of {', '.join(KINDS)}") from None


def resource(delivery: Delivery) -> dict[str, Any]:
    """Return the object's resource; without data, as much of it as the attributes give.

    Raises `InvalidEventError`, which names the attribute, if the message is not a notification
    or if its attributes name another object than its data.
    """
    kind(delivery)  # first: other messages lack the rest as well
    named = {field: delivery.attribute(key) for key, field in _NAMES.items()}
    if not named["generation"].isdecimal():
        raise InvalidEventError("objectGeneration: is not an integer")
    if not delivery.data:
        return named
    resource = delivery.decoded()
    for key, field in _NAMES.items():
        if resource.get(field) is not None and str(resource[field]) != named[field]:
            raise InvalidEventError(f"data.{field}: differs from the attribute {key}")
    return resource
