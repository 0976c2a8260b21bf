"""Cursors are worth something with the query they came from, and nothing otherwise."""

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st

from bookstore.errors import InvalidCursor
from bookstore.pagination import Position, decode_cursor, encode_cursor, wants_total

SECRET = b"a-secret-of-the-tests-and-of-nobody-else"
KEYS = st.lists(st.one_of(st.none(), st.integers(-(2**53), 2**53), st.text(max_size=20)), min_size=1, max_size=4).map(
    tuple
)
QUERIES = st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.text(max_size=5), st.integers(0, 9)), max_size=4)
DIRECTIONS = st.sampled_from(["next", "prev"])


@settings(max_examples=200)
@given(QUERIES, DIRECTIONS, KEYS)
def test_a_cursor_says_what_was_written_into_it(query: dict[str, Any], direction: Any, key: tuple[Any, ...]) -> None:
    cursor = encode_cursor(SECRET, query, Position(direction, key))
    assert decode_cursor(SECRET, query, cursor) == Position(direction, key)


@settings(max_examples=300)
@given(QUERIES, KEYS, st.data())
def test_an_altered_cursor_is_refused(query: dict[str, Any], key: tuple[Any, ...], data: st.DataObject) -> None:
    cursor = encode_cursor(SECRET, query, Position("next", key))
    at = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.sampled_from("ABCDwxyz0189-_+/=é \0"))
    altered = cursor[:at] + other + cursor[at + 1 :]
    if altered != cursor:
        with pytest.raises(InvalidCursor):
            decode_cursor(SECRET, query, altered)
    for broken in (cursor[:-1], cursor + "A", ""):
        with pytest.raises(InvalidCursor):
            decode_cursor(SECRET, query, broken)


@settings(max_examples=200)
@given(QUERIES, QUERIES, KEYS)
def test_a_cursor_of_another_query_is_refused(one: dict[str, Any], two: dict[str, Any], key: tuple[Any, ...]) -> None:
    cursor = encode_cursor(SECRET, one, Position("next", key))
    told = [{name: value for name, value in query.items() if value is not None} for query in (one, two)]
    if told[0] == told[1]:
        assert decode_cursor(SECRET, two, cursor).key == key
    else:
        with pytest.raises(InvalidCursor):
            decode_cursor(SECRET, two, cursor)


def test_a_cursor_signed_with_another_secret_is_refused() -> None:
    cursor = encode_cursor(b"another secret", {}, Position("next", (1,)))
    with pytest.raises(InvalidCursor):
        decode_cursor(SECRET, {}, cursor)


@pytest.mark.parametrize(
    ("prefer", "wanted"),
    [
        ("return=total-count", True),
        ("respond-async, return = total-count", True),
        ("return=minimal", False),
        ("", False),
    ],
)
def test_a_total_is_counted_only_when_it_is_preferred(prefer: str, wanted: bool) -> None:
    assert wants_total(make_mocked_request("GET", "/", headers={"Prefer": prefer})) is wanted
