"""Routes that say what they take and answer, and the OpenAPI 3.1 document made from what they say.

    routes = Routes(tags=["catalogue"])

    @routes.get("/books/{id}", path_model=BookPath, answers=Book, errors=[NotFound, Gone], cached=True)
    async def show_book(request: web.Request) -> web.Response:
        "One edition."

The first paragraph of a handler's docstring is its summary, the rest its description.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from bookstore.errors import (
    BookStoreError,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answers = type[BaseModel] | Mapping[int, type[BaseModel] | None] | None


@dataclass(frozen=True, slots=True)
class Operation:
    """One method at one path: what `app.py` mounts and what the document says of it."""

    method: str
    path: str
    handler: Handler
    summary: str
    description: str
    path_model: type[BaseModel] | None
    query: type[BaseModel] | None
    body: type[BaseModel] | None
    answers: Mapping[int, type[BaseModel] | None]
    errors: tuple[type[BookStoreError], ...]
    tags: tuple[str, ...]
    cached: bool
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


class Routes:
    """A feature's routes, in order. `app.py` mounts them under `API_PREFIX`."""

    def __init__(self, *, tags: Iterable[str] = ()) -> None:
        self._tags = tuple(tags)
        self._operations: list[Operation] = []

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations)

    def get(self, path: str, **says: Any) -> Callable[[Handler], Handler]:
        """HEAD is answered too. `cached=True`: the answer depends on the URL alone and may be up to a second old."""
        return self.route("GET", path, **says)

    def post(self, path: str, **says: Any) -> Callable[[Handler], Handler]:
        return self.route("POST", path, **says)

    def put(self, path: str, **says: Any) -> Callable[[Handler], Handler]:
        return self.route("PUT", path, **says)

    def patch(self, path: str, **says: Any) -> Callable[[Handler], Handler]:
        return self.route("PATCH", path, **says)

    def delete(self, path: str, **says: Any) -> Callable[[Handler], Handler]:
        return self.route("DELETE", path, **says)

    def route(
        self,
        method: str,
        path: str,
        *,
        summary: str | None = None,
        description: str | None = None,
        path_model: type[BaseModel] | None = None,
        query: type[BaseModel] | None = None,
        body: type[BaseModel] | None = None,
        answers: Answers = None,
        errors: Sequence[type[BookStoreError]] = (),
        tags: Iterable[str] = (),
        cached: bool = False,
        headers: Mapping[str, str] | None = None,
        media_type: str = "application/json",
    ) -> Callable[[Handler], Handler]:
        """`path_model`, `query` and `body` are what `read_path`, `read_query` and `read_body` are called with;
        `answers` maps a status to its model (a model alone means 200); `headers` names headers of the answer that
        matter, with their meaning."""

        def register(handler: Handler) -> Handler:
            first, _, rest = inspect.cleandoc(handler.__doc__ or "").partition("\n\n")
            self._operations.append(
                Operation(
                    method,
                    path,
                    handler,
                    summary or " ".join(first.split()) or handler.__name__.replace("_", " ").capitalize(),
                    description or rest,
                    path_model,
                    query,
                    body,
                    answers if isinstance(answers, Mapping) else {200: answers},
                    tuple(errors),
                    (*self._tags, *tags),
                    cached,
                    headers or {},
                    media_type,
                )
            )
            return handler

        return register
