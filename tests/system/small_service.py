"""A service of another kind, for rounds where a whole gunicorn would take too long: one worker, one port, one socket.

Speaks the runtime directory's contract as docs/runtime-directory.md has it, with nothing of the bookstore in it, nor
of any framework: it is there in a tenth of a second.
"""

import asyncio
import json
import os
import secrets
import signal
from pathlib import Path
from typing import Any

DIRECTORY = Path(os.environ["RUNTIME_DIR"])
BOOT = secrets.token_hex(8)
LIVE = {"boot": BOOT, "pid": os.getpid(), "version": "1", "uptime_seconds": 1.0, "loop_lag_ms": 0.0, "in_flight": 0}
LIVE |= {"connections": 0, "gate": "open", "breaker": "closed", "pool": {"size": 0, "free": 0, "max": 0}}


def answer(path: str) -> dict[str, Any]:
    if path == "/snapshot":
        return {"boot": BOOT, "pid": os.getpid(), "boottime": 0.0, "metrics": []}
    try:
        state = json.loads((DIRECTORY / "supervisor.json").read_bytes())
    except (OSError, ValueError):
        state = {}
    return LIVE | {"sequence_seen": state.get("sequence", 0), "draining": state.get("draining", False)}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(answer(head.split()[1].decode())).encode()
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
        writer.write(f"HTTP/1.1 200 OK\r\n{kind}\r\n\r\n".encode() + body)
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # who asked has gone
    finally:
        writer.close()


async def main() -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    socket = DIRECTORY / "workers" / f"{BOOT}.sock"
    async with (
        await asyncio.start_unix_server(serve, socket),
        await asyncio.start_server(serve, os.environ["HOST"], int(os.environ["PORT"])),
    ):
        await told.wait()
    socket.unlink(missing_ok=True)


asyncio.run(main())
