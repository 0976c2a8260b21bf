"""What every answer has, whatever was asked and whoever refused it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger

from bookstore.cache import CACHE
from bookstore.catalogue.routes import routes as catalogue
from bookstore.front_door import SECURITY_HEADERS
from bookstore.logs import as_json_line, line_of
from bookstore.metrics import METRICS
from bookstore.openapi import Routes
from bookstore.payloads import respond
from bookstore.worker_socket import WORKER
from tests.bookstore.conftest import Client, serving, wait_until
from tests.conftest import Environ

FIXED = {name: value for name, value in SECURITY_HEADERS.items() if name != "Content-Security-Policy"}


@pytest.fixture
def held() -> asyncio.Event:
    """Until it is set, `/held` does not answer."""
    return asyncio.Event()


@pytest.fixture
def more(held: asyncio.Event) -> Routes:
    routes = Routes()

    @routes.get("/breaks")
    async def breaks(_: web.Request) -> web.Response:
        raise LookupError("the secret of the cellar")

    @routes.get("/redirects")
    async def redirects(_: web.Request) -> web.Response:
        raise web.HTTPSeeOther("/health/live")

    @routes.get("/teapot")
    async def teapot(_: web.Request) -> web.Response:
        raise web.HTTPTooManyRequests(headers={"Retry-After": "7"})

    @routes.get("/kept", cached=True)
    async def kept(_: web.Request) -> web.Response:
        return respond({"kept": True}, etag="7", headers={"Vary": "Accept"})

    @routes.get("/large", cached=True)
    async def large(_: web.Request) -> web.Response:
        return respond({"text": "x" * 200_000})

    @routes.get("/dated")
    async def dated(_: web.Request) -> web.Response:
        return respond({}, last_modified=datetime(2026, 7, 4, 12, tzinfo=UTC))

    @routes.get("/held")
    async def wait(_: web.Request) -> web.Response:
        await held.wait()
        return respond({})

    @routes.get("/half")
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half of it")
        raise LookupError("the other half is gone")

    return routes


@pytest.fixture
async def client(module_database_url: str, environ: Environ, runtime_dir: Path, more: Routes) -> AsyncIterator[Client]:
    environment = environ(module_database_url, runtime_dir=runtime_dir, cors_origins="https://shop.example")
    async with serving(environment, more=more) as client:
        yield client


async def test_a_sane_request_id_is_kept_and_another_is_replaced(client: Client) -> None:
    async with client.get("/nowhere", headers={"X-Request-ID": "order-4711:a/b"}) as answer:
        assert answer.headers["X-Request-ID"] == "order-4711:a/b"
        assert (await answer.json())["request_id"] == "order-4711:a/b"
    for insane in ("a b", "x" * 129, "<script>", "", '"', "é"):
        async with client.get("/", headers={"X-Request-ID": insane}) as answer:
            assert answer.headers["X-Request-ID"] not in ("", insane)


async def test_request_ids_of_ours_never_repeat(client: Client) -> None:
    ids = [(await client.get("/health/live")).headers["X-Request-ID"] for _ in range(50)]
    assert len(set(ids)) == 50


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/api/v1/nowhere", 404, "not_found"),
        ("GET", "/api/v1/books/", 404, "not_found"),
        ("POST", "/api/v1/books", 405, "method_not_allowed"),
        ("TRACE", "/api/v1/books", 405, "method_not_allowed"),
        ("PURGE", "/", 405, "method_not_allowed"),
        ("GET", "/api/v1/books/a%00b", 422, "validation_failed"),
        ("GET", "/api/v1/books?q=%00", 422, "validation_failed"),
        ("GET", "/api/v1/books?surely=not", 422, "validation_failed"),
        ("GET", "/breaks", 500, "internal_error"),
        ("GET", "/teapot", 429, "too_many_requests"),
    ],
)
async def test_every_error_has_one_form(client: Client, method: str, path: str, status: int, error: str) -> None:
    async with client.request(method, path) as answer:
        body = await answer.json(content_type="application/problem+json")
        assert (answer.status, body["status"], body["error"]) == (status, status, error)
        assert set(body) == {"type", "title", "status", "detail", "error", "message", "request_id", "details"}
        assert body["message"] == body["detail"] and body["message"].endswith(".")
        assert body["request_id"] == answer.headers["X-Request-ID"]
        assert {**SECURITY_HEADERS}.items() <= dict(answer.headers).items()
        assert answer.headers["Vary"] == "Origin"
        if status == 405:
            assert "GET" in answer.headers["Allow"] and "OPTIONS" in answer.headers["Allow"]
        if status == 429:
            assert answer.headers["Retry-After"] == "7"


async def test_the_unexpected_is_logged_with_its_request_and_told_to_nobody(client: Client) -> None:
    said: list[str] = []
    sink = logger.add(lambda message: said.append(as_json_line(line_of(message.record, "bookstore")).decode()))
    async with client.get("/breaks", headers={"X-Request-ID": "the-broken-one"}) as answer:
        assert "cellar" not in await answer.text()
    logger.remove(sink)
    line = orjson.loads(said[0])
    assert "LookupError: the secret of the cellar" in line["exception"]
    assert (line["request_id"], line["endpoint"], line["method"]) == ("the-broken-one", "/breaks", "GET")


async def test_in_development_the_cause_and_its_traceback_are_shown(
    database_url: str, environ: Environ, runtime_dir: Path, more: Routes
) -> None:
    environment = environ(database_url, runtime_dir=runtime_dir, environment="development")
    async with serving(environment, more=more) as client, client.get("/breaks") as answer:
        details = (await answer.json(content_type=None))["details"]
    assert details["exception"] == "LookupError: the secret of the cellar"
    assert "in breaks" in "".join(details["traceback"])


async def test_head_has_the_headers_of_get_and_no_body(client: Client) -> None:
    for path in ("/", "/kept", "/kept", "/nowhere", "/docs", "/openapi.json", "/health"):
        async with client.get(path) as get, client.head(path) as head:
            assert (head.status, await head.read()) == (get.status, b"")
            assert head.headers["Content-Type"] == get.headers["Content-Type"]
            if path not in ("/nowhere", "/health"):
                assert head.headers["Content-Length"] == get.headers["Content-Length"]


async def test_options_say_what_is_allowed(client: Client) -> None:
    async with client.options("/api/v1/books") as answer:
        assert (answer.status, answer.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
    async with client.options("/nowhere") as answer:
        assert answer.status == 404


async def test_a_redirect_passes(client: Client) -> None:
    async with client.get("/redirects", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/health/live")
        assert FIXED.items() <= dict(answer.headers).items()


async def test_an_expectation_nobody_meets_is_answered_in_our_form(client: Client) -> None:
    async with client.get("/", headers={"Expect": "the-unexpected"}) as answer:
        assert (answer.status, (await answer.json(content_type=None))["error"]) == (417, "expectation_failed")
        assert FIXED.items() <= dict(answer.headers).items()


async def test_an_answer_that_breaks_half_way_is_cut_not_completed(client: Client) -> None:
    with pytest.raises(Exception, match=r"payload|disconnect"):
        async with client.get("/half") as answer:
            await answer.read()
    async with client.get("/health/live") as answer:
        assert answer.status == 200


async def test_a_known_version_is_answered_with_304(client: Client) -> None:
    for known in ('"7"', 'W/"7"', '"1", "7"', "*"):
        async with client.get("/kept", headers={"If-None-Match": known}) as answer:
            assert (answer.status, await answer.read(), answer.headers["ETag"]) == (304, b"", '"7"')
            assert "Cache-Control" in answer.headers and "Content-Length" not in answer.headers
    async with client.get("/kept", headers={"If-None-Match": '"8"'}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("since", "status"),
    [
        ("Sat, 04 Jul 2026 12:00:00 GMT", 304),
        ("Sun, 05 Jul 2026 12:00:00 GMT", 304),
        ("Fri, 03 Jul 2026 12:00:00 GMT", 200),
        ("the day before yesterday", 200),
    ],
)
async def test_what_did_not_change_since_is_answered_with_304(client: Client, since: str, status: int) -> None:
    async with client.get("/dated", headers={"If-Modified-Since": since}) as answer:
        assert answer.status == status
    async with client.get("/dated", headers={"If-Modified-Since": since, "If-None-Match": '"other"'}) as answer:
        assert answer.status == 200


async def test_a_request_that_is_broken_off_is_counted_as_such(client: Client) -> None:
    key = ("GET", "/held", "499")
    before = METRICS.requests.values.get(key, 0)
    request = asyncio.create_task(client.get("/held"))
    await wait_until(lambda: client.app[WORKER].in_flight)
    (busy,) = (each for each in client.app[WORKER].server.connections if each.is_busy)  # type: ignore[union-attr]
    await busy.shutdown(0.01)
    with pytest.raises(aiohttp.ClientError):
        await request
    await wait_until(lambda: METRICS.requests.values.get(key, 0) == before + 1)


async def test_a_caller_who_asks_without_reading_waits(client: Client) -> None:
    """300 questions for 200 KB each, sent at once: 60 MB of answers, nearly all of which wait to be made."""
    async with client.get("/large"):
        client.app[CACHE].fresh("/large").fresh_until += 60  # type: ignore[union-attr]
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 300)
    await wait_until(lambda: client.app[WORKER].in_flight)
    for _ in range(20):
        await asyncio.sleep(0.02)
        open_ones = client.app[WORKER].server.connections  # type: ignore[union-attr]
        assert max(each.transport.get_write_buffer_size() for each in open_ones if each.transport) < 1_000_000
    writer.transport.abort()


async def test_an_answer_from_the_cache_is_the_same_answer(client: Client) -> None:
    answers = []
    for _ in range(3):
        async with client.get("/kept", headers={"X-Request-ID": "same"}) as answer:
            headers = {name.lower(): value for name, value in answer.headers.items() if name != "Date"}
            answers.append((answer.status, headers, await answer.read()))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][1]["vary"] == "Accept, Origin"


async def test_pages_of_listed_origins_may_read_every_answer(client: Client) -> None:
    for path in ("/api/v1/books", "/nowhere", "/kept", "/kept"):
        async with client.get(path, headers={"Origin": "https://shop.example"}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
            assert "Origin" in answer.headers["Vary"]
        async with client.get(path, headers={"Origin": "https://else.example"}) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Origin" in answer.headers["Vary"]


async def test_a_preflight_is_answered(client: Client) -> None:
    asks = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    async with client.options("/api/v1/books/lookup", headers=asks) as answer:
        assert answer.status == 204
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "If-None-Match" in answer.headers["Access-Control-Allow-Headers"]
        assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"


async def test_while_draining_every_answer_announces_the_end_of_its_connection(client: Client) -> None:
    for path in ("/kept", "/nowhere", "/kept", "/health"):
        async with client.get(path) as answer:
            assert "Connection" not in answer.headers
    client.app[WORKER].draining = True
    for path in ("/kept", "/nowhere", "/kept", "/health"):
        async with client.get(path) as answer:
            assert (answer.headers["Connection"], answer.status) == ("close", 404 if path == "/nowhere" else 200)
    client.app[WORKER].draining = False
    async with client.get("/kept") as answer:
        assert "Connection" not in answer.headers


async def test_requests_being_answered_are_counted(client: Client, held: asyncio.Event) -> None:
    worker = client.app[WORKER]
    waiting = [asyncio.create_task(client.get("/held")) for _ in range(5)]
    await wait_until(lambda: worker.in_flight == 5)
    assert worker.connections >= 5
    held.set()
    for answer in await asyncio.gather(*waiting):
        await answer.read()
    await wait_until(lambda: worker.in_flight == 0)


async def test_until_the_gate_opens_the_api_is_not_ready_and_the_rest_answers(
    empty_database_url: str, environ: Environ, runtime_dir: Path
) -> None:
    async with serving(environ(empty_database_url, runtime_dir=runtime_dir), ready=False) as client:
        async with client.get("/api/v1/books") as answer:
            body = await answer.json(content_type=None)
            assert (answer.status, body["error"], answer.headers["Retry-After"]) == (503, "not_ready", "1")
        for path, status in (("/", 200), ("/health", 200), ("/health/live", 200), ("/health/ready", 503)):
            async with client.get(path) as answer:
                assert answer.status == status


TOKENS = st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ-_!#", min_size=1, max_size=12)
METHODS = st.one_of(st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"]), TOKENS)
KNOWN_PATHS = ["/", "/docs", "/docs/start.js", "/docs/swagger-ui.css", "/openapi.json", "/health", "/health/ready"]
TARGETS = st.one_of(
    st.sampled_from([*KNOWN_PATHS, "*", "//", "http://[", "/%", "/%00", "/%ff", "/api/v1/books/%ed%a0%80"]),
    st.sampled_from([f"/api/v1{operation.path}" for operation in catalogue]),
    st.text(
        alphabet=st.characters(min_codepoint=33, max_codepoint=0x2FF, blacklist_characters="\x7f"), max_size=30
    ).map(lambda text: f"/{text}"),
)
HEADER_NAMES = st.sampled_from(
    [
        "Origin",
        "X-Request-ID",
        "Accept",
        "If-None-Match",
        "If-Modified-Since",
        "Prefer",
        "Expect",
        "traceparent",
        "Authorization",
        "Range",
        "Content-Type",
        "Accept-Encoding",
        "Cookie",
        "Upgrade",
        "Host",
    ]
)
HEADER_VALUES = st.one_of(
    st.sampled_from(["*", "application/json", "100-continue", "bytes=0-1", '"1"', "h2c", "https://shop.example"]),
    st.binary(max_size=40).map(lambda raw: raw.translate(None, b"\r\n\0")),
)


@pytest.mark.property("P7")
async def test_security_headers_on_every_answer(client: Client) -> None:
    server = client.server
    assert server.port is not None

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        METHODS, TARGETS, st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=4), st.sampled_from(["1.1", "1.0"])
    )
    def holds(method: str, target: str, headers: list[tuple[str, str | bytes]], version: str) -> None:
        lines = [f"{method} {target} HTTP/{version}".encode(), b"Host: localhost", b"Connection: close"]
        for name, value in headers:
            lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
        raw = b"\r\n".join(lines) + b"\r\n\r\n"
        answer = asyncio.run_coroutine_threadsafe(_exchange(server.port or 0, raw), loop).result(20)
        status = int(answer.split(b" ", 2)[1])
        assert status < 500 or status == 501, answer  # a method nobody ever heard of
        found = {line.split(b":", 1)[0].strip().lower() for line in answer.split(b"\r\n")}
        wanted = {name.lower().encode() for name in (*SECURITY_HEADERS, "X-Request-ID", "Vary")}
        assert wanted <= found, answer

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(holds)


async def _exchange(port: int, raw: bytes) -> bytes:
    """The final answer's head: an interim `100 Continue` before it is passed over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw)
        while True:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)
            if not head.startswith(b"HTTP/1.1 100"):
                return head
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
