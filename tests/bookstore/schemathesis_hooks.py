"""What schemathesis must be taught to send what is right: values of the formats this API declares.

Loaded by schemathesis itself, which knows only what the OpenAPI document says. A cursor is right in the list it was
taken from and nowhere else, and a price means something in a currency only: the document can say neither, so cases
meant to be right are completed here. Cases meant to be wrong are sent as they are.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from bookstore.catalogue.isbn import isbn10_of

SERVER = os.environ["BOOKSTORE_URL"]


def an_isbn(number: int, prefix: str, spelling: int) -> str:
    digits = f"{prefix}{number:09}".replace("9790", "9791", 1)  # 979-0 is no ISBN: sheet music has it
    isbn13 = digits + str(-sum(int(d) * (3 if place % 2 else 1) for place, d in enumerate(digits)) % 10)
    spellings = [isbn13, f"{isbn13[:3]}-{isbn13[3:4]}-{isbn13[4:12]}-{isbn13[12]}", isbn10_of(isbn13) or isbn13]
    return spellings[spelling]


isbns = st.builds(an_isbn, st.integers(0, 999_999_999), st.sampled_from(["978", "979"]), st.integers(0, 2))
known_isbns = st.sampled_from(["9780306406157", "0-306-40615-2", "979-10-90636-07-1"])
schemathesis.openapi.format("isbn", known_isbns | isbns)
# The first rows of every table, so that most ids name something; and any other, which must be a plain 404.
schemathesis.openapi.format("opaque-id", st.integers(1, 30).map(str) | st.text("0123456789abcXYZ-_~é本", min_size=1))
schemathesis.openapi.format("cursor", st.integers(0, 3).map(lambda page: f"page {page}"))


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: Any, kwargs: dict[str, Any]) -> None:
    if (
        case.meta is None
        or case.meta.generation.mode is not GenerationMode.POSITIVE
        or not isinstance(case.query, dict)
    ):
        return
    query = case.query
    if {"price_min", "price_max"} & query.keys() or str(query.get("sort", "")).endswith("price"):
        query.setdefault("currency", "USD")
    if "cursor" in query:
        page = int(query["cursor"].removeprefix("page ")) if query["cursor"].startswith("page ") else 0
        case.query = a_real_page(case.formatted_path, {**query, "limit": 2}, page)


def a_real_page(path: str, query: dict[str, Any], number: int) -> dict[str, Any]:
    """The parameters of a page with these filters, found as a reader finds it: by following `next`."""
    asked = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in query.items()
        if name != "cursor"
    }
    for _ in range(number + 1):
        answer = requests.get(SERVER + path, params=asked, timeout=10)
        following = answer.json().get("next") if answer.status_code == 200 else None
        if following is None:
            break
        asked = dict(parse_qsl(urlsplit(following).query, keep_blank_values=True))
    return asked
