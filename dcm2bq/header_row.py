"""Make the row of `instances` from the content of an object, or of a member of an archive."""

from datetime import UTC, datetime

from dcm2bq import dicom, rows
from dcm2bq.config import Config
from dcm2bq.endpoints import ObjectContent
from dcm2bq.events import ObjectEvent


def header_row(
    event: ObjectEvent,
    content: ObjectContent,
    claim: dicom.Claim,
    config: Config,
    *,
    member: str | None = None,
    sniff: bool = False,
) -> rows.InstanceRow:
    """Convert the header of an object within a claim; return its row.

    `content` is that of the event's object, or of a `member` of it. Raises what
    `dicom.convert_within` raises. The claim keeps the memory of the row until it is released.
    """
    conversion = dicom.convert_within(
        claim,
        content,
        config,
        bulk_data_root=event.object.bulk_data_root,
        member=member,
        sniff=sniff,
    )
    info = rows.info(
        event,
        bytes_read=content.bytes_read,
        transfer_syntax_uid=conversion.transfer_syntax_uid,
        warnings=conversion.warnings,
        dropped_tags=conversion.dropped_tags,
        deidentification=dicom.deidentification_codes(config.privacy),
        member_size=None if member is None else content.size,
    )
    return rows.instance_row(
        event,
        now=datetime.now(UTC),
        info=info,
        columns=conversion.columns,
        metadata=conversion.text,
        member=member,
    )
