"""Requests nobody sends by mistake, and callers who leave or dawdle."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from bookstore import connections, payloads
from bookstore.cache import CACHE
from bookstore.metrics import METRICS
from bookstore.openapi import Routes
from bookstore.payloads import respond
from bookstore.worker_socket import WORKER
from tests.bookstore.conftest import Client, Lines, serving, wait_until
from tests.conftest import Environ


@pytest.fixture
def more() -> Routes:
    routes = Routes()

    @routes.get("/kept", cached=True)
    async def kept(_: web.Request) -> web.Response:
        return respond({"kept": True}, etag="7")

    @routes.get("/kept/{name}", cached=True)
    async def kept_too(request: web.Request) -> web.Response:
        return respond({"name": request.match_info["name"]})

    return routes


@pytest.fixture
async def client(module_database_url: str, environ: Environ, runtime_dir: Path, more: Routes) -> AsyncIterator[Client]:
    async with serving(environ(module_database_url, runtime_dir=runtime_dir), more=more) as client:
        yield client


async def talk(client: Client, raw: bytes, *, seconds: float = 20) -> tuple[int, dict[str, str], bytes]:
    """Send these bytes, and read until the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        writer.write(raw)
        head, _, body = (await asyncio.wait_for(reader.read(), seconds)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split(" ")[1]), dict(line.split(": ", 1) for line in lines), body


def ask(target: str, *headers: str, method: str = "GET") -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return b"%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n" % (
        method.encode(),
        target.encode(),
        lines.encode(),
    )


@pytest.mark.parametrize(
    "target",
    ["/api/v1/books/1", "/%61pi/v1/books/1", "/a%70i/%76%31/books", "http://evil/api/v1/books/1", "/api/v1/nowhere"],
)
async def test_however_the_api_is_spelt_it_is_behind_the_gate(
    module_database_url: str, environ: Environ, runtime_dir: Path, target: str
) -> None:
    closed = environ(module_database_url, runtime_dir=runtime_dir, supervised=True)
    async with serving(closed, ready=False) as client:
        status, _, body = await talk(client, ask(target))
        assert (status, orjson.loads(body)["error"]) == (503, "not_ready")
        assert client.app[CACHE].fresh(target) is None
        client.app[WORKER].gate_open = True
        assert (await talk(client, ask(target)))[0] in (200, 404)


async def test_what_balancers_ask_for_is_no_error_in_the_log(
    empty_database_url: str, environ: Environ, runtime_dir: Path, access_lines: Lines
) -> None:
    async with serving(environ(empty_database_url, runtime_dir=runtime_dir), ready=False) as client:
        for path in ("/health/ready", "/health/startup", "/api/v1/books"):
            async with client.get(path) as answer:
                assert answer.status == 503
    assert [line["level"] for line in access_lines()] == ["INFO", "INFO", "ERROR"]


async def test_who_hangs_up_while_sending_is_no_error_of_ours(client: Client, access_lines: Lines) -> None:
    key = ("POST", "/api/v1/books/lookup", "499")
    before = dict(METRICS.requests.values)
    for sent in (b'{"is', b""):
        _, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(
            b"POST /api/v1/books/lookup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n" + sent
        )
        await wait_until(lambda: client.app[WORKER].in_flight)
        writer.close()
        await wait_until(lambda: not client.app[WORKER].in_flight)
    added = {labels: n - before.get(labels, 0) for labels, n in METRICS.requests.values.items()}
    assert {labels: n for labels, n in added.items() if n} == {key: 2}
    assert [(line["status_code"], line["level"]) for line in access_lines()] == [(499, "INFO")] * 2
    assert not (client.app[WORKER].in_flight)


async def test_access_lines_hold_no_secret(client: Client, access_lines: Lines) -> None:
    for path in ("/bks_abc_leak-1", "/password=leak", "/somebody@leak.example", "/kept/token=leak", "/kept/token=leak"):
        async with client.get(path):
            pass
    lines = access_lines()
    assert len(lines) == 5 and "leak" not in str(lines)
    assert all("[redacted]" in line["message"] for line in lines)


async def test_every_if_none_match_line_counts(client: Client) -> None:
    status, headers, body = await talk(client, ask("/kept", 'If-None-Match: "1"', 'If-None-Match: "7"'))
    assert (status, headers["ETag"], body) == (304, '"7"', b"")


@pytest.mark.parametrize(
    ("target", "pointer"),
    [
        ("/api/v1/books?q=%ff", "/query/q"),
        ("/api/v1/books?q=%ED%A0%80", "/query/q"),
        ("/api/v1/books?sort=title&q=a%00b", "/query/q"),
        ("/api/v1/books?%ff=1", "/query"),
        ("/api/v1/books/%ED%A0%80", "/path"),
        ("/api/v1/books/%C0%AF", "/path"),
        ("/api/v1/books/a%00", "/path"),
        ("/%ff", "/path"),
    ],
)
async def test_a_url_that_is_no_utf_8_is_refused_where_it_is_not(client: Client, target: str, pointer: str) -> None:
    status, _, body = await talk(client, ask(target))
    problem = orjson.loads(body)
    assert (status, problem["error"]) == (422, "validation_failed")
    assert [each["pointer"] for each in problem["details"]["errors"]] == [pointer]


async def test_what_is_utf_8_is_read_as_it_was_meant(client: Client) -> None:
    for target in ("/api/v1/books?q=%C5%81%C3%B3d%C5%BA", "/api/v1/books?q=100%25", "/api/v1/books?q=100%"):
        assert (await talk(client, ask(target)))[0] == 200


async def test_a_head_answer_counts_no_bytes_that_were_not_sent(client: Client, access_lines: Lines) -> None:
    before = METRICS.response_bytes.values.get(("/kept",), 0)
    async with client.head("/kept"), client.head("/kept"):
        pass
    assert METRICS.response_bytes.values.get(("/kept",), 0) == before
    assert [line["bytes"] for line in access_lines()] == [0, 0]


async def test_a_head_that_never_ends_is_answered_408(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    whole = b"GET /kept HTTP/1.1\r\nHost: x\r\n\r\n"
    for before, part in ((b"", b"G"), (b"", whole[:-2]), (whole, b"GET /")):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        if before:
            writer.write(before)
            await reader.readuntil(b'{"kept":true}')
        writer.write(part)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        assert answer.startswith((b"HTTP/1.1 408", b"HTTP/1.0 408")), answer
        assert b"application/problem+json" in answer and b'"error":"request_timeout"' in answer


async def test_who_sends_a_head_slowly_but_surely_is_served(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 2.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    for _ in range(2):
        for part in (b"GET /kept HT", b"TP/1.1\r\nHost", b": x\r\n\r\n"):
            writer.write(part)
            await asyncio.sleep(0.05)
        assert (await reader.readuntil(b'{"kept":true}')).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(2.2)  # the deadline of a head that came in time passes without harm
    writer.close()


async def test_a_body_that_never_ends_is_answered_408(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "BODY_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(b'POST /api/v1/books/lookup HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"is')
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    assert head.startswith(b"HTTP/1.1 408") and b"Connection: close" in head
    assert b"application/problem+json" in head
    writer.close()


async def test_a_range_beyond_the_end_of_an_asset_is_answered_in_our_form(client: Client) -> None:
    async with client.get("/docs/swagger-ui.css", headers={"Range": "bytes=99999999-"}) as answer:
        assert answer.status == 200 or answer.content_type == "application/problem+json"
        assert int(answer.headers["Content-Length"]) == len(await answer.read())


@pytest.mark.parametrize("method", ["FOO", "BREW", "X" * 40])
async def test_a_method_no_parser_knows_is_told_from_what_is_no_http(client: Client, method: str) -> None:
    status, headers, body = await talk(client, ask("/api/v1/books", method=method))
    problem = orjson.loads(body)
    assert (status, problem["error"], headers["Content-Type"]) == (501, "not_implemented", "application/problem+json")
    assert problem["request_id"] == headers["X-Request-ID"]
    status, _, body = await talk(client, b"NONSENSE\r\n\r\n")
    assert (status, orjson.loads(body)["error"]) == (400, "bad_request")


async def test_a_thousand_faults_are_told_by_the_first_twenty(client: Client) -> None:
    query = "&".join(f"p{number}=1" for number in range(1_000))
    status, _, body = await talk(client, ask(f"/api/v1/books?{query}"))
    details: dict[str, Any] = orjson.loads(body)["details"]
    assert (status, len(details["errors"]), details["more"]) == (422, 20, 980)
    body_of_many = orjson.dumps(dict.fromkeys((f"{'n' * 500}{number}" for number in range(1_000)), 1))
    async with client.post(
        "/api/v1/books/lookup", data=body_of_many, headers={"Content-Type": "application/json"}
    ) as answer:
        assert answer.status == 422 and len(await answer.read()) < 20_000


async def test_what_is_too_long_is_told_so_and_not_called_malformed(client: Client) -> None:
    told = {
        "a URL": await talk(client, ask(f"/api/v1/books?q={'a' * 9000}")),
        "a header": await talk(client, ask("/api/v1/books", f"X-Long: {'a' * 9000}")),
        "many headers": await talk(client, ask("/api/v1/books", *(f"X-{number}: 1" for number in range(500)))),
    }
    assert {what: (status, orjson.loads(body)["error"]) for what, (status, _, body) in told.items()} == {
        "a URL": (414, "uri_too_long"),
        "a header": (431, "headers_too_large"),
        "many headers": (431, "headers_too_large"),
    }


async def test_a_body_that_is_declared_too_large_is_refused_before_it_is_sent(client: Client) -> None:
    head = ask("/api/v1/books/lookup", "Content-Type: application/json", "Content-Length: 99999999", method="POST")
    invited = head.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    for request in (head, invited):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(request)
        said = await asyncio.wait_for(reader.readuntil(b"body_too_large"), 20)
        assert said.startswith(b"HTTP/1.1 413 ")
        writer.close()
