"""`/health…` on the API's own port: what the supervisor found out, or, without a live one, what this worker can tell.

No answer asks PostgreSQL more than once a second, however many balancers call. Error texts and hosts are for a caller
with `SUPERVISOR_TOKEN`; others get words.
"""

from __future__ import annotations

import hmac
import time
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from bookstore import __version__
from bookstore.database import DATABASE, Database
from bookstore.errors import BookStoreError
from bookstore.openapi import Routes
from bookstore.payloads import respond
from bookstore.runtime_directory import is_live
from bookstore.settings import SETTINGS
from bookstore.worker_socket import WORKER, Worker

ASK_SECONDS = 1.0
CHECKS_WITHOUT_SUPERVISOR = ("database", "redis", "disk_space", "workers", "migrations")

routes = Routes(tags=["health"])


@routes.get("/health")
async def show_health(request: web.Request) -> web.Response:
    """The state in words. 200 while this process serves."""
    found = await _look(request)
    words = {name: check["status"] for name, check in found["checks"].items()}
    return _answer({**_summary(found), "checks": words}, 200)


@routes.get("/health/live")
async def show_live(_: web.Request) -> web.Response:
    """This process answers. Asks nobody."""
    return _answer({"status": "alive"}, 200)


@routes.get("/health/startup")
async def show_startup(request: web.Request) -> web.Response:
    """503 until the schema is what this code needs."""
    worker = request.app[WORKER]
    phase = _phase(worker)
    return _answer({"status": "started" if worker.gate_open else "starting", "phase": phase}, _status(worker.gate_open))


@routes.get("/health/ready")
async def show_ready(request: web.Request) -> web.Response:
    """Should a balancer choose this pod?"""
    found = await _look(request)
    may_see = _may_see_errors(request)
    for check in found["checks"].values():
        if not may_see or check.get("error") is None:
            check.pop("error", None)
    answer = {
        **_summary(found),
        "phase": found["phase"],
        "uptime_seconds": found["uptime_seconds"],
        "checks": found["checks"],
    }
    return _answer(answer, _status(found["ready"]))


routes.get("/health/detailed")(show_ready)


async def _look(request: web.Request) -> dict[str, Any]:
    worker = request.app[WORKER]
    state = worker.state
    if state is not None and is_live(state):
        return {
            "status": state.get("status", "unknown"),
            "ready": bool(state.get("ready")) and worker.gate_open and not worker.draining,
            "phase": state.get("phase", "starting"),
            "uptime_seconds": state.get("uptime_seconds", worker.uptime_seconds),
            "checks": {name: dict(check) for name, check in (state.get("checks") or {}).items()},
            "supervisor": "alive",
        }
    return await _without_supervisor(request, worker)


async def _without_supervisor(request: web.Request, worker: Worker) -> dict[str, Any]:
    database = await _asked(request.app)
    now = _now()
    unknown = {"status": "unknown", "latency_ms": None, "since": None, "as_of": now}
    checks: dict[str, dict[str, Any]] = {name: dict(unknown) for name in CHECKS_WITHOUT_SUPERVISOR}
    checks["database"] = database
    if request.app[SETTINGS].redis_url is None:
        checks["redis"]["status"] = "disabled"
    healthy = database["status"] == "healthy" and worker.gate_open
    status = ("degraded" if worker.supervised else "healthy") if healthy else "unhealthy"
    return {
        "status": status,
        "ready": healthy and not worker.draining,
        "phase": _phase(worker),
        "uptime_seconds": round(worker.uptime_seconds, 3),
        "checks": checks,
        "supervisor": "missing" if worker.supervised else "none",
    }


class Asked:
    """What PostgreSQL answered last, to any health request of this worker."""

    def __init__(self) -> None:
        self.at = -ASK_SECONDS
        self.check: dict[str, Any] = {}
        self.since = _now()


ASKED: web.AppKey[Asked] = web.AppKey("asked", Asked)


async def _asked(app: web.Application) -> dict[str, Any]:
    asked, began = app[ASKED], time.monotonic()
    if began - asked.at >= ASK_SECONDS:
        asked.at = began
        database: Database = app[DATABASE]
        try:
            await database.ask()
            status, error = "healthy", None
        except BookStoreError as failed:
            status, error = "unhealthy", failed.message
        if status != asked.check.get("status"):
            asked.since = _now()
        latency = round((time.monotonic() - began) * 1000, 3)
        asked.check = {"status": status, "latency_ms": latency, "since": asked.since, "as_of": _now()}
        if error:
            asked.check["error"] = error
    return dict(asked.check) or {"status": "unknown", "latency_ms": None, "since": asked.since, "as_of": _now()}


def _summary(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "status": found["status"],
        "timestamp": _now(),
        "version": __version__,
        "supervisor": found["supervisor"],
    }


def _phase(worker: Worker) -> str:
    if worker.state is not None and is_live(worker.state):
        return str(worker.state.get("phase", "starting"))
    if worker.draining:
        return "draining"
    return "serving" if worker.gate_open else "starting"


def _may_see_errors(request: web.Request) -> bool:
    token = request.app[SETTINGS].supervisor_token
    if token is None:
        return False
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    given = given.strip() if scheme.lower() == "bearer" else request.headers.get("X-Supervisor-Token", "")
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.get_secret_value().encode())


def _answer(content: dict[str, Any], status: int) -> web.Response:
    return respond(content, status=status, headers={"Cache-Control": "no-store"})


def _status(good: bool) -> int:
    return 200 if good else 503


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
