"""Asking the workers, each by its own socket: the TCP port cannot tell which of them is hung.

A worker is another program, and may have lost its mind: what it says is bounded, checked, and blamed on it alone.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import aiohttp
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

LONGEST_ANSWER = 4 << 20

Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Word = Annotated[str, Field(max_length=100)]


class Live(BaseModel):
    """What /live may say. A service need not know all of it; what it does say must be of its kind."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    boot: Word = ""
    pid: Count = 0
    version: Word = ""
    uptime_seconds: Amount = 0
    loop_lag_ms: Amount = 0
    in_flight: Count = 0
    connections: Count = 0
    gate: Literal["open", "closed"] = "open"
    breaker: Literal["closed", "open", "half_open"] = "closed"
    pool: dict[Word, Count] = {}
    sequence_seen: Count = 0
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """What one worker said. `gone`: nobody listens on its socket any more; else, without an answer, it hangs."""

    boot: str
    answer: dict[str, Any] | None
    error: str | None = None
    gone: bool = False


async def ask_live(folder: Path, *, timeout: float) -> list[Heard]:
    """How each is, with only what `Live` knows in its answer."""
    return [_checked(heard) for heard in await ask_all(folder, "/live", timeout=timeout)]


async def ask_all(folder: Path, path: str, *, timeout: float) -> list[Heard]:
    """Every worker at once: a hung one costs the others nothing."""
    sockets = sorted(folder.glob("*.sock"))  # noqa: ASYNC240  # a handful of names in memory
    return list(await asyncio.gather(*(_ask(socket, path, timeout) for socket in sockets)))


async def _ask(socket: Path, path: str, timeout: float) -> Heard:
    boot = socket.name.removesuffix(".sock")
    try:
        async with (
            asyncio.timeout(timeout),
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(socket), force_close=True), auto_decompress=False
            ) as session,
            session.get(f"http://worker{path}", allow_redirects=False) as response,
        ):
            if response.status != 200:
                return Heard(boot, None, f"answered {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LONGEST_ANSWER:
                    return Heard(boot, None, f"its answer is longer than {LONGEST_ANSWER:,} bytes")
            answer = orjson.loads(body)
            if isinstance(answer, dict):
                return Heard(boot, answer)
            return Heard(boot, None, "its answer is no object")
    except TimeoutError:
        return Heard(boot, None, f"no answer within {timeout:g} s")
    except aiohttp.ClientConnectorError as error:
        gone = isinstance(error.os_error, ConnectionRefusedError | FileNotFoundError)
        return Heard(boot, None, "nobody listens" if gone else str(error.os_error), gone=gone)
    except Exception as error:  # one insane worker must not cost the answers of the others
        return Heard(boot, None, f"{type(error).__name__}: {error}"[:200])


def _checked(heard: Heard) -> Heard:
    if heard.answer is None:
        return heard
    try:
        return Heard(heard.boot, Live.model_validate(heard.answer).model_dump(exclude_unset=True))
    except ValidationError as error:
        names = sorted({str(fault["loc"][0]) for fault in error.errors(include_url=False, include_input=False)})
        return Heard(heard.boot, None, f"its answer makes no sense: {', '.join(names)}")
