"""Routes that say what they take and answer, and the OpenAPI 3.1 document made from what they say.

    routes = Routes(tags=["catalogue"])

    @routes.get("/books/{id}", path_model=BookPath, answers=Book, errors=[NotFound, Gone], cached=True)
    async def show_book(request: web.Request) -> web.Response:
        "One edition."

The first paragraph of a handler's docstring is its summary, the rest its description.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bookstore import __version__
from bookstore.errors import (
    PROBLEM_JSON,
    BadRequest,
    BodyTooLarge,
    BookStoreError,
    DatabaseUnavailable,
    HeadersTooLarge,
    Invalid,
    MalformedJson,
    NotFound,
    NotReady,
    RequestTimeout,
    Unavailable,
    UnsupportedMediaType,
    UriTooLong,
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
    takes: Mapping[str, str] = field(default_factory=dict)

    @property
    def template(self) -> str:
        """The path as people and metrics name it: `/books/{id}`, whatever an id may look like to the router."""
        return _PATTERN.sub(r"{\1}", self.path)


class Routes:
    """A feature's routes, in order. `app.py` mounts them under `API_PREFIX`."""

    def __init__(self, *, tags: Iterable[str] = ()) -> None:
        self._tags = tuple(tags)
        self._operations: list[Operation] = []

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations)

    def get(self, path: str, **says: Any) -> Callable[[Handler], Handler]:
        """HEAD is answered too. `cached=True`: an answer depends on the URL alone, may be a second old, has an ETag."""
        return self.route("GET", path, **says)

    def post(self, path: str, **says: Any) -> Callable[[Handler], Handler]:
        return self.route("POST", path, **says)

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
        takes: Mapping[str, str] | None = None,
    ) -> Callable[[Handler], Handler]:
        """`path_model`, `query` and `body` are what `read_path`, `read_query` and `read_body` are called with;
        `answers` maps a status to its model (a model alone means 200); `headers` names headers of the answer that
        matter, with their meaning, and `takes` those of the request."""

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
                    takes or {},
                )
            )
            return handler

        return register


def document(operations: Iterable[Operation], prefix: str) -> dict[str, Any]:
    """OpenAPI 3.1 for what is mounted under `prefix`."""
    every = list(operations)
    schemas, definitions = _schemas(every)
    paths: dict[str, dict[str, Any]] = {}
    for operation in every:
        described = _describe(operation, schemas)
        paths.setdefault(prefix + operation.template, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "BookStore API",
            "version": __version__,
            "description": "A bookshop's catalogue. Errors are `application/problem+json` (RFC 9457) throughout; "
            "`error` is their stable code. HEAD is answered wherever GET is.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "Where this document came from"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(tag for operation in every for tag in operation.tags)],
        "paths": paths,
        "components": {
            "schemas": {**definitions, "Problem": PROBLEM_SCHEMA},
            "headers": {
                "X-Request-ID": _header("Names this request in the logs; the caller's own if it sent a sane one"),
                "Retry-After": _header("Seconds to wait before trying again", "integer"),
                "ETag": _header("The version; send it as `If-None-Match` to get 304 while it holds"),
                "Cache-Control": _header("Who may keep the answer, and for how long"),
                "Link": _header("RFC 8288: the next and the previous page"),
            },
        },
    }


PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457, with members of our own",
    "required": ["type", "title", "status", "detail", "error", "message", "request_id", "details"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "error": {"type": "string", "pattern": "^[a-z0-9_]+$", "description": "Stable: what programs look at"},
        "message": {"type": "string", "description": "The same as `detail`; says what to do next"},
        "request_id": {"type": "string"},
        "details": {
            "type": ["object", "null"],
            "properties": {
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["pointer", "detail"],
                        "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
                    },
                },
                "more": {"type": "integer", "description": "How many faults there are beside those in `errors`"},
            },
        },
    },
}
_PATTERN = re.compile(r"\{(\w+)(?::[^{}]*(?:\{[^{}]*\}[^{}]*)*)?\}")
_REF = "#/components/schemas/{model}"


def _schemas(operations: list[Operation]) -> tuple[dict[tuple[Any, str], Any], dict[str, Any]]:
    asked: dict[tuple[type[BaseModel], Any], None] = {}
    for operation in operations:
        for model in (operation.path_model, operation.query, operation.body):
            if model is not None:
                asked[model, "validation"] = None
        for answer in operation.answers.values():
            if answer is not None:
                asked[answer, "serialization"] = None
    schemas, document = models_json_schema(list(asked), ref_template=_REF)
    return {(model, str(mode)): schema for (model, mode), schema in schemas.items()}, document.get("$defs", {})


def _describe(operation: Operation, schemas: Mapping[tuple[Any, str], Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": operation.summary,
        "tags": list(operation.tags),
        "parameters": [
            *_parameters(operation.path_model, "path"),
            *_parameters(operation.query, "query"),
            *_header_parameters(operation),
        ],
        "responses": _responses(operation, schemas),
    }
    if operation.description:
        described["description"] = operation.description
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[operation.body, "validation"]}},
        }
    return described


def _parameters(model: type[BaseModel] | None, where: str) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = model.model_json_schema(ref_template=_REF, mode="validation")
    described = []
    for name, property_schema in schema.get("properties", {}).items():
        inner = _without_null(property_schema)
        meaning = inner.pop("description", None) or property_schema.get("description")
        parameter = {
            "name": name,
            "in": where,
            "required": where == "path" or name in schema.get("required", ()),
            "schema": inner,
        }
        if meaning:
            parameter["description"] = meaning
        described.append(parameter)
    return described


def _header_parameters(operation: Operation) -> list[dict[str, Any]]:
    """What it says it takes, and what every route of its kind does."""
    takes = {"X-Request-ID": "Your own name for this request, given back and logged if it is a sane token"}
    takes |= {"traceparent": "W3C trace context, logged"}
    if _has_version(operation):
        takes |= {"If-None-Match": "The `ETag` of the version you have: answered 304 while it holds"}
    return [
        {"name": name, "in": "header", "required": False, "description": meaning, "schema": {"type": "string"}}
        for name, meaning in {**takes, **operation.takes}.items()
    ]


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What may stand in a URL: leaving a parameter out is how one says null there."""
    inner = {name: value for name, value in schema.items() if name not in ("title", "anyOf")}
    if inner.get("default", ...) is None:
        del inner["default"]
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        return {**choices[0], **inner}
    return {**inner, "anyOf": choices} if choices else inner


def _responses(operation: Operation, schemas: Mapping[tuple[Any, str], Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, model in operation.answers.items():
        headers = {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}}
        headers |= {name: _header(meaning) for name, meaning in operation.headers.items()}
        if _has_version(operation):
            headers.setdefault("ETag", {"$ref": "#/components/headers/ETag"})
        if operation.method == "GET":
            headers["Cache-Control"] = {"$ref": "#/components/headers/Cache-Control"}
        answer: dict[str, Any] = {"description": HTTPStatus(status).phrase, "headers": headers}
        if model is not None:
            answer["content"] = {operation.media_type: {"schema": schemas[model, "serialization"]}}
        responses[str(status)] = answer
    if _has_version(operation):
        responses["304"] = {"description": "You have it already: `If-None-Match` names the present version"}
    for status, errors in sorted(_errors(operation).items()):
        responses[str(status)] = _problem(errors)
    responses["default"] = _problem([BookStoreError])
    return responses


def _has_version(operation: Operation) -> bool:
    """Its answers carry an `ETag`: its own, or the one that comes with being kept."""
    return operation.method == "GET" and (operation.cached or "ETag" in operation.headers)


def _errors(operation: Operation) -> dict[int, list[type[BookStoreError]]]:
    """What it says it answers, and what every route of its kind does."""
    every: list[type[BookStoreError]] = [
        *operation.errors,
        Invalid,
        BadRequest,
        UriTooLong,
        HeadersTooLarge,
        NotReady,
        DatabaseUnavailable,
    ]
    if operation.path_model is not None:
        every.append(NotFound)
    if operation.body is not None:
        every += [MalformedJson, RequestTimeout, BodyTooLarge, UnsupportedMediaType]
    by_status: dict[int, list[type[BookStoreError]]] = {}
    for error in dict.fromkeys(every):
        by_status.setdefault(error.status, []).append(error)
    return by_status


def _problem(errors: Sequence[type[BookStoreError]]) -> dict[str, Any]:
    headers = {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}}
    if any(issubclass(error, Unavailable) for error in errors):
        headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    told = " ".join(f"`{error.error}`: {error.default_message()}" for error in errors)
    return {
        "description": "Anything else, in the same form." if list(errors) == [BookStoreError] else told,
        "headers": headers,
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _header(meaning: str, type_: str = "string") -> dict[str, Any]:
    return {"description": meaning, "schema": {"type": type_}}
