"""The sitemap: what is opened, which features exist, and where they are found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

from aiohttp import web

from bookstore.background import running
from bookstore.cache import CACHE, Cache, ready_made
from bookstore.catalogue.routes import routes as catalogue
from bookstore.database import DATABASE, Database
from bookstore.documentation import documentation
from bookstore.front_door import Runner
from bookstore.health import ASKED, Asked
from bookstore.health import routes as health
from bookstore.links import routes as links
from bookstore.logs import current_request
from bookstore.openapi import Handler, Operation
from bookstore.payloads import Payload, read_query
from bookstore.settings import SETTINGS, Settings
from bookstore.worker_socket import WORKER, Worker, meet_supervisor

BODY_BYTES = 1024 * 1024


def create_app(settings: Settings) -> web.Application:
    """Everything but the server. Serve it with `create_runner`: answers are finished in its front door."""
    app = web.Application(client_max_size=BODY_BYTES)
    app[SETTINGS] = settings
    app[DATABASE] = Database(settings)
    app[CACHE] = Cache(settings)
    app[WORKER] = Worker(settings)
    app[ASKED] = Asked()
    app.cleanup_ctx.extend([open_database, open_cache, meet_supervisor])

    prefix = settings.api_prefix
    features = every_operation()
    mount(app, map(refusing_strange_parameters, features), prefix)
    mount(app, health)
    mount(app, links)
    mount(app, documentation(features, prefix))
    return app


def every_operation() -> list[Operation]:
    """What the features answer under `API_PREFIX`: the contents of `/openapi.json`."""
    return [*catalogue]


def create_runner(settings: Settings, **options: object) -> Runner:
    return Runner(create_app(settings), **options)


def mount(app: web.Application, operations: Iterable[Operation], prefix: str = "") -> None:
    for operation in operations:
        path = f"{prefix}{operation.path}"
        endpoint = f"{prefix}{operation.template}"
        handler = ready_made(operation.handler, endpoint) if operation.cached else operation.handler
        handler = told_in_logs(handler, endpoint)
        if operation.method == "GET":
            app.router.add_get(path, handler)  # and HEAD
        else:
            app.router.add_route(operation.method, path, handler)


def refusing_strange_parameters(operation: Operation) -> Operation:
    """A parameter that does not exist is 422 also where there is none at all."""
    if operation.query is not None:
        return operation

    async def answer(request: web.Request) -> web.StreamResponse:
        read_query(request, Payload)
        return await operation.handler(request)

    return replace(operation, handler=answer)


def told_in_logs(handler: Handler, endpoint: str) -> Handler:
    """Every line logged below names the route."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if (fields := current_request.get()) is not None:
            fields.endpoint = endpoint
        return await handler(request)

    return answer


async def open_database(app: web.Application) -> AsyncIterator[None]:
    async with running("watch the database", app[DATABASE].watch):
        yield
    await app[DATABASE].close()


async def open_cache(app: web.Application) -> AsyncIterator[None]:
    async with running("write to Redis", app[CACHE].write_behind):
        yield
    await app[CACHE].close()
