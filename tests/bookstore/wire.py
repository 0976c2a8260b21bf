"""A wire to PostgreSQL or Redis that can be stalled, cut and unplugged: what networks do, on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit, urlunsplit


class Wire:
    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        """The same database, at this end of the wire."""
        user = f"{self._url.username}:{self._url.password or ''}@" if self._url.username else ""
        query = "&".join(part for part in self._url.query.split("&") if part and not part.startswith("host="))
        return urlunsplit((self._url.scheme, f"{user}127.0.0.1:{self.port}", self._url.path, query, ""))

    async def plug_in(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def unplug(self) -> None:
        """Nobody listens any more, and what was open is closed."""
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    def stall(self) -> None:
        """Connections are accepted and bytes swallowed; nothing comes out, as behind a dead switch."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = parse_qs(self._url.query).get("host")
        self._writers.add(writer)
        try:
            await self._flowing.wait()
            if there:
                path = f"{there[0]}/.s.PGSQL.{self._url.port or 5432}"
                far_reader, far_writer = await asyncio.open_unix_connection(path)
            else:
                far_reader, far_writer = await asyncio.open_connection(self._url.hostname, self._url.port or 5432)
            self._writers.add(far_writer)
            await asyncio.gather(self._pour(reader, far_writer), self._pour(far_reader, writer))
        except OSError:
            writer.transport.abort()

    async def _pour(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        with suppress(OSError):
            writer.close()
        self._writers.discard(writer)


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    wire = Wire(url)
    await wire.plug_in()
    try:
        yield wire
    finally:
        wire.flow()
        await wire.unplug()
