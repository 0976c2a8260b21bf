"""What the pod says of itself over HTTP. Everything is answered from memory: no question here costs a dependency one.

Two doors to one house: TCP, where nothing can be changed and only words are told, and supervisor.sock, open to the
pod's own user, where everything is told and `drain`, `undrain` and `reload` are heard.
"""

import base64
import contextlib
import hashlib
import hmac
import html
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from supervisor.metrics import CONTENT_TYPE
from supervisor.pod import Pod, timestamp
from supervisor.runtime_directory import RuntimeDirectory
from supervisor.settings import ConfigurationError, Settings

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "td,th{text-align:left;padding:.15rem 1rem .15rem 0}"
)
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "Cache-Control": "no-store",
    "Server": "supervisor",
}
HISTORY_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Commands:
    """What may be asked for on the socket. Each answers with what kept it from being done, else nothing."""

    drain: Callable[[], Awaitable[str]]
    undrain: Callable[[], Awaitable[str]]
    reload: Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class View:
    """What the answers are made from."""

    pod: Pod
    metrics: Callable[[], str]
    drain: Callable[[], dict[str, Any]]


@contextlib.asynccontextmanager
async def served(
    settings: Settings, directory: RuntimeDirectory, view: View, commands: Commands
) -> AsyncIterator[None]:
    """Both doors open, until the block ends."""
    token = settings.supervisor_token
    outside = create_app(view, token=token.get_secret_value() if token else None)
    inside = create_app(view, trusted=True, commands=commands)
    async with contextlib.AsyncExitStack() as doors:
        for app, bound in (
            (outside, _bind_tcp(settings.supervisor_host, settings.supervisor_port)),
            (inside, _bind_unix(directory)),
        ):
            runner = Runner(app, access_log=None, shutdown_timeout=0.5, keepalive_timeout=75)
            await runner.setup()
            doors.push_async_callback(runner.cleanup)
            await web.SockSite(runner, bound, backlog=1024).start()
        doors.callback(directory.socket.unlink, missing_ok=True)
        yield


def create_app(
    view: View, *, trusted: bool = False, token: str | None = None, commands: Commands | None = None
) -> web.Application:
    told = _Told(view, trusted, token)
    app = web.Application()
    app.on_response_prepare.append(_add_headers)
    app.add_routes(
        [
            web.get("/", told.page),
            web.get("/health", told.health),
            web.get("/health/live", told.live),
            web.get("/health/ready", told.ready),
            web.get("/health/detailed", told.ready),
            web.get("/health/startup", told.startup),
            web.get("/status", told.status),
            web.get("/metrics", told.metrics),
        ]
    )
    if commands is not None:
        app.add_routes(
            [
                web.post("/drain", _command(commands.drain)),
                web.post("/undrain", _command(commands.undrain)),
                web.post("/reload", _command(commands.reload)),
            ]
        )
    return app


class Runner(web.AppRunner):
    """aiohttp's, except that what its parser refuses leaves under our headers too."""

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        return _Server(
            plain.request_handler,
            request_factory=plain.request_factory,
            handler_cancellation=plain.handler_cancellation,
            loop=plain._loop,
            **plain._kwargs,
        )


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        response = super().handle_error(request, status, exc, message)
        response.headers.update(HEADERS)
        return response


class _Told:
    def __init__(self, view: View, trusted: bool, token: str | None) -> None:
        self._view = view
        self._pod = view.pod
        self._trusted = trusted
        self._token = token

    async def health(self, request: web.Request) -> web.Response:
        verdict = self._pod.verdict()
        return _json(
            {
                "status": verdict.status,
                "timestamp": timestamp(),
                "version": self._pod.version,
                "checks": {name: check.status for name, check in verdict.checks.items()},
            }
        )

    async def live(self, request: web.Request) -> web.Response:
        return _json({"status": "alive"})

    async def ready(self, request: web.Request) -> web.Response:
        pod, texts = self._pod, self._may_see_texts(request)
        verdict = pod.verdict()
        ready = pod.phase == "serving" and verdict.ready
        told = {
            "status": verdict.status,
            "ready": ready,
            "phase": pod.phase,
            "reason": pod.reason(verdict, texts=texts),
            "timestamp": timestamp(),
            "version": pod.version,
            "uptime_seconds": round(pod.uptime, 1),
            "checks": _without_nothing(pod.checks(verdict.checks.values(), texts=texts)),
        }
        return _json(told, status=200 if ready else 503)

    async def startup(self, request: web.Request) -> web.Response:
        pod = self._pod
        return _json({"phase": pod.phase, "migrated": pod.migrated}, status=200 if pod.migrated else 503)

    async def status(self, request: web.Request) -> web.Response:
        pod, texts = self._pod, self._may_see_texts(request)
        verdict = pod.verdict()
        checks = pod.checks(verdict.checks.values(), texts=texts)
        if texts:
            for name, standing in verdict.checks.items():
                checks[name]["facts"] = dict(standing.reading.finding.facts) if standing.reading else {}
        history = [kept.as_json() for kept in pod.history.latest(HISTORY_SHOWN)]
        told: dict[str, Any] = {
            "version": pod.version,
            "mode": pod.mode,
            "phase": pod.phase,
            "phase_since": pod.wall_time(pod.stage_since),
            "ready": pod.phase == "serving" and verdict.ready,
            "status": verdict.status,
            "reason": pod.reason(verdict, texts=texts),
            "draining": pod.draining,
            "drain": self._view.drain(),
            "timestamp": timestamp(),
            "uptime_seconds": round(pod.uptime, 1),
            "schema": {"applied": list(pod.applied), "newer_than_the_code": list(pod.newer)},
            "migration_seconds": pod.migration_seconds,
            "service": {**pod.child, "restarts": pod.restarts} if texts else {"restarts": pod.restarts},
            "workers": {boot: _worker(answer, texts) for boot, answer in pod.workers().items()},
            "checks": checks,
            "history": history if texts else [{**kept, "reason": ""} for kept in history],
        }
        return _json(told)

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=self._view.metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def page(self, request: web.Request) -> web.Response:
        pod = self._pod
        verdict = pod.verdict()
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{check.status}</td><td>{check.rule.criticality}</td></tr>"
            for name, check in verdict.checks.items()
        )
        links = "".join(
            f'<li><a href="{path}">{path}</a> {said}</li>'
            for path, said in (
                ("/health", "how it is, in a word"),
                ("/health/ready", "may it get requests? 200 or 503"),
                ("/health/live", "does the supervisor live?"),
                ("/health/startup", "is the database migrated?"),
                ("/status", "everything that is known"),
                ("/metrics", "for Prometheus: the supervisor's and all workers'"),
            )
        )
        ready = "ready" if pod.phase == "serving" and verdict.ready else "not ready"
        text = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>supervisor</title>'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<style>{STYLE}</style></head><body><h1>{pod.phase.replace('_', ' ')}, {ready}</h1>"
            f"<p>{html.escape(pod.reason(verdict, texts=False))}</p>"
            f"<table><tr><th>check</th><th>status</th><th>weight</th></tr>{rows}</table><ul>{links}</ul></body></html>"
        )
        return web.Response(text=text, content_type="text/html")

    def _may_see_texts(self, request: web.Request) -> bool:
        if self._trusted or self._token is None:
            return self._trusted
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else request.headers.get("X-Supervisor-Token", "")
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token.encode())


def _command(run: Callable[[], Awaitable[str]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        refused = await run()
        return _json({"done": not refused, "message": refused or "done"}, status=409 if refused else 200)

    return handle


def _worker(answer: Mapping[str, Any], texts: bool) -> dict[str, Any]:
    if "error" in answer:
        return {"error": answer["error"] if texts else "it does not answer"}
    return dict(answer)


def _without_nothing(checks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for check in checks.values():
        if check["error"] is None:
            del check["error"]
    return checks


def _json(told: Mapping[str, Any], *, status: int = 200) -> web.Response:
    body = orjson.dumps(told, default=str, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
    headers = {"Retry-After": "1"} if status == 503 else None
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """On every answer, the router's own 404 included."""
    response.headers.update(HEADERS)


def _bind_tcp(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError([f"SUPERVISOR_HOST: {error.strerror or error}"]) from None
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigurationError([f"SUPERVISOR_PORT: {port} cannot be had: {reason}"]) from None
    return bound


def _bind_unix(directory: RuntimeDirectory) -> socket.socket:
    """Mode 0600 from its first moment. The lock is ours, so a socket that lies there is a dead one's."""
    directory.socket.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        bound.bind(str(directory.socket))
    finally:
        os.umask(before)
    return bound
