"""A service that is no bookshop: it keeps the contract of docs/runtime-directory.md, and so can be looked after.

gunicorn -k aiohttp.GunicornWebWorker tests.supervisor.service:application
"""

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

DIRECTORY = Path(os.environ.get("RUNTIME_DIR", "."))

# gunicorn's configuration
bind = f"127.0.0.1:{os.environ.get('PORT', '0')}"
workers = int(os.environ.get("WORKERS", "1"))
worker_class = "aiohttp.GunicornWebWorker"
pidfile = str(DIRECTORY / "gunicorn.pid")
graceful_timeout = int(float(os.environ.get("GRACEFUL_TIMEOUT", "20")))
timeout = graceful_timeout + 10
keepalive = 75
control_socket_disable = True


class Life:
    """One worker's."""

    def __init__(self) -> None:
        self.boot = secrets.token_hex(8)
        self.in_flight = 0
        self.requests = 0
        self.draining = False

    def live(self) -> dict[str, Any]:
        return {
            "boot": self.boot,
            "pid": os.getpid(),
            "version": "1",
            "uptime_seconds": 1.0,
            "loop_lag_ms": 0.0,
            "in_flight": self.in_flight,
            "connections": 0,
            "gate": "open",
            "breaker": "closed",
            "draining": self.draining,
        }

    def snapshot(self) -> dict[str, Any]:
        told = {
            "name": "requests_total",
            "help": 'Requests "answered"',
            "type": "counter",
            "samples": [{"labels": {"path": 'a "quoted"\nline'}, "value": self.requests}],
        }
        return {
            "boot": self.boot,
            "pid": os.getpid(),
            "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
            "metrics": [told],
        }

    async def follow(self) -> None:
        while True:
            with contextlib.suppress(OSError, ValueError):
                state = json.loads((DIRECTORY / "supervisor.json").read_bytes())
                age = time.clock_gettime(time.CLOCK_BOOTTIME) - state["boottime"]
                self.draining = state["draining"] and age < 5
            await asyncio.sleep(0.25)


async def application() -> web.Application:
    life = Life()

    @web.middleware
    async def count(request: web.Request, handler: Any) -> web.StreamResponse:
        life.in_flight += 1
        try:
            response: web.StreamResponse = await handler(request)
        finally:
            life.in_flight -= 1
            life.requests += 1
        if life.draining:
            response.headers["Connection"] = "close"
        return response

    async def hello(request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.query.get("seconds", 0)))
        return web.Response(text=f"hello from {life.boot}")

    async def block(request: web.Request) -> web.Response:
        time.sleep(float(request.query["seconds"]))
        return web.Response()

    async def meet(app: web.Application) -> AsyncIterator[None]:
        own = web.Application()
        own.router.add_get("/live", lambda request: _answer(life.live()))
        own.router.add_get("/snapshot", lambda request: _answer(life.snapshot()))
        runner = web.AppRunner(own, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        path = DIRECTORY / "workers" / f"{life.boot}.sock"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        await web.UnixSite(runner, str(path)).start()
        following = asyncio.create_task(life.follow())
        yield
        following.cancel()
        final = path.with_name(f"{life.boot}.final.json")
        final.with_suffix(".tmp").write_text(json.dumps(life.snapshot()))
        final.with_suffix(".tmp").rename(final)
        await runner.cleanup()
        path.unlink(missing_ok=True)

    async def _answer(told: dict[str, Any]) -> web.Response:
        return web.json_response(told)

    app = web.Application(middlewares=[count])
    app.router.add_get("/", hello)
    app.router.add_get("/block", block)
    app.cleanup_ctx.append(meet)
    return app
