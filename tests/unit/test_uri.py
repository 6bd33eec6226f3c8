"""`gs://` URIs have one parser, which knows the rules of Cloud Storage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm2bq.errors import ConfigError
from dcm2bq.gcs.uri import GsUri, is_uri


@pytest.mark.parametrize(
    ("text", "bucket", "name"),
    [
        ("gs://bucket", "bucket", ""),
        ("gs://bucket/", "bucket", ""),
        ("gs://a-b_c.d/x", "a-b_c.d", "x"),
        ("gs://bucket//x/", "bucket", "/x/"),
        ("gs://bucket/a?b#c%41 ü.dcm", "bucket", "a?b#c%41 ü.dcm"),
        ("gs://bucket/" + "x" * 1024, "bucket", "x" * 1024),
    ],
)
def test_nothing_in_a_name_is_special(text: str, bucket: str, name: str) -> None:
    assert GsUri.parse(text) == GsUri(bucket, name)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "is expected"),
        ("bucket/x", "is expected"),
        ("s3://bucket/x", "is expected"),
        ("GS://bucket/x", "is expected"),
        ("gs:/bucket/x", "is expected"),
        ("gs://", "a bucket's name has 3 to 222 characters"),
        ("gs:///x", "a bucket's name has 3 to 222 characters"),
        ("gs://a", "a bucket's name has 3 to 222 characters"),
        ("gs://UPPER/x", "lowercase letters"),
        ("gs://-bucket", "begins and ends with a letter or digit"),
        ("gs://bucket?x", "lowercase letters"),
        ("gs://buck\net/x", "lowercase letters"),
        ("gs://bucket/" + "ü" * 513, "the name has 1026 bytes; Cloud Storage takes at most 1024"),
        ("gs://bucket/\udcff", "the name is not valid UTF-8"),
    ],
)
def test_an_impossible_uri_is_refused_with_the_rule(text: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GsUri.parse(text)
    assert rule in str(caught.value)
    str(caught.value).encode()


@given(
    st.from_regex(r"[a-z0-9][a-z0-9._-]{1,50}[a-z0-9]", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
)
def test_a_uri_survives_formatting_and_parsing(bucket: str, name: str) -> None:
    uri = GsUri(bucket, name)
    assert GsUri.parse(str(uri)) == uri


def test_a_uri_is_recognised_in_any_case() -> None:
    assert [is_uri(text) for text in ("gs://", "GS://B/x", "gs:/b", "a/gs://b", "-")] == [
        *(True, True),
        *(False, False, False),
    ]
