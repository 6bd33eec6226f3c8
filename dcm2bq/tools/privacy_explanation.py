"""What the privacy options do to a file or an object, and a summary of what they do to any."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from dcm2bq.config import Config, Privacy
from dcm2bq.deadline import Deadline
from dcm2bq.dicom import dictionary
from dcm2bq.dicom.explanation import ElementExplanation, Fate, RowExplanation, explain_object
from dcm2bq.errors import ConfigError
from dcm2bq.files import open_regular
from dcm2bq.gcs.uri import GsUri, is_uri
from dcm2bq.tools.attribute_paths import alternatives

_LIKE_KEYWORD = re.compile("[A-Za-z0-9]*[a-z][A-Z][A-Za-z0-9]*")
"""A capital after a small letter, and no blank: `ProtocolName`, but neither `Thorax` nor `CTA`."""


def explained(path: str, config: Config) -> Iterator[ElementExplanation]:
    """Yield what happens to each element of a local file, or of an object by its `gs://` URI.

    Raises what a conversion raises, `OSError` for a file, and `ConfigError` if there is no such
    object.
    """
    seconds = config.limits.deadline_seconds
    with ExitStack() as opened:
        if is_uri(path):
            from dcm2bq.gcs.store import Store  # noqa: PLC0415 - slow to import

            uri, store = GsUri.parse(path), Store(config)
            stored = next(store.list(uri.bucket, uri.name), None)
            if stored is None or stored.name != uri.name:
                raise ConfigError(f"{path}: there is no such object")
            reader = store.open(stored, Deadline.after(seconds))
            yield from explain_object(reader, config, timeout=seconds)
        else:
            stream = opened.enter_context(open_regular(Path(path)))
            yield from explain_object(stream, config, timeout=seconds)


def counts(explanations: Iterable[RowExplanation | ElementExplanation]) -> Mapping[Fate, int]:
    """Return how often each thing happens, in the order of `Fate`."""
    counted = Counter(explanation.fate for explanation in explanations)
    return {fate: counted[fate] for fate in Fate if counted[fate]}


def doubtful_descriptors(options: Privacy) -> Iterator[str]:
    """Yield a warning for each entry of `privacy.keptDescriptors` that may be a mistyped keyword.

    It can be right: a value may look like a keyword.
    """
    keywords = dictionary.tags_by_keyword()
    for entry in options.kept_descriptors:
        if _LIKE_KEYWORD.fullmatch(entry) and entry not in keywords:
            yield (
                f"privacy.keptDescriptors: {entry} is not a keyword, so it counts as a value"
                f"{alternatives(entry, keywords)}"
            )
