"""What is sent arrives as the same type, and random bytes are refused."""

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shoal.job.codec import AUTO, JSON, PICKLE, Codec
from shoal.job.error import CodecError

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=())),
    st.binary(max_size=50),
    st.binary(max_size=50).map(bytearray),
)
KEYS = st.one_of(st.text(max_size=5), st.integers(), st.binary(max_size=5), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
    ),
    max_leaves=12,
)
JSON_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def there_and_back(codec: Codec, value: object) -> Any:
    return codec.decode(memoryview(b"".join(codec.encode(value))))


def exactly(one: Any, other: Any) -> bool:
    """Equal in value and in every type: the one thing that repr shows of all of these."""
    return repr(one) == repr(other) and bool(one == other)


@given(value=VALUES)
def test_what_is_sent_arrives_as_the_same_type(value: object) -> None:
    assert exactly(there_and_back(AUTO, value), value)


@given(value=JSON_VALUES)
def test_json_arrives(value: object) -> None:
    assert exactly(there_and_back(JSON, value), value)


@given(value=VALUES)
def test_pickle_arrives(value: object) -> None:
    assert exactly(there_and_back(PICKLE, value), value)


@given(record=st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(record: bytes) -> None:
    for codec in (AUTO, JSON):
        with contextlib.suppress(CodecError):
            codec.decode(memoryview(record))
