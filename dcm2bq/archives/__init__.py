"""Archives of DICOM objects in Cloud Storage: their members, read by ranges of bytes."""

from dcm2bq.archives.reading import is_archive_name, members
from dcm2bq.archives.sources import Member

__all__ = ["Member", "is_archive_name", "members"]
