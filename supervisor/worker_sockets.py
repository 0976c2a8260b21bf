"""Asking the workers, each by its own socket: the TCP port cannot tell which of them is hung."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp


@dataclass(frozen=True, slots=True)
class Heard:
    """What one worker said. `gone`: nobody listens on its socket any more; else, without an answer, it hangs."""

    boot: str
    answer: dict[str, Any] | None
    error: str | None = None
    gone: bool = False


async def ask_all(folder: Path, path: str, *, timeout: float) -> list[Heard]:
    """Every worker at once: a hung one costs the others nothing."""
    sockets = sorted(folder.glob("*.sock"))  # noqa: ASYNC240  # a handful of names in memory
    return list(await asyncio.gather(*(_ask(socket, path, timeout) for socket in sockets)))


async def _ask(socket: Path, path: str, timeout: float) -> Heard:
    boot = socket.name.removesuffix(".sock")
    try:
        async with (
            asyncio.timeout(timeout),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket), force_close=True)) as session,
            session.get(f"http://worker{path}") as response,
        ):
            answer = await response.json()
            if response.status == 200 and isinstance(answer, dict):
                return Heard(boot, answer)
            return Heard(boot, None, f"answered {response.status}")
    except TimeoutError:
        return Heard(boot, None, f"no answer within {timeout:g} s")
    except aiohttp.ClientConnectorError as error:
        gone = isinstance(error.os_error, ConnectionRefusedError | FileNotFoundError)
        return Heard(boot, None, "nobody listens" if gone else str(error.os_error), gone=gone)
    except (aiohttp.ClientError, ValueError, OSError) as error:
        return Heard(boot, None, f"{type(error).__name__}: {error}")
