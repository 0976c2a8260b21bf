"""What runs in a data directory right now: how `bookstore import` in another terminal finds its database."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from bookstore.embedded import Home
from bookstore.embedded.processes import mark

SHARED = (
    "ENVIRONMENT",
    "DATABASE_URL",
    "REDIS_URL",
    "SECRET_KEY_FILE",
    "JWT_SECRET_KEY_FILE",
    "RUNTIME_DIR",
    "SUPERVISED",
)


def publish(home: Home, environ: Mapping[str, str]) -> None:
    path = home.path / "running.json"
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    shared = {name: environ[name] for name in SHARED if name in environ}
    fresh.write_text(json.dumps({"pid": os.getpid(), "mark": mark(os.getpid()), "environ": shared}))
    fresh.replace(path)


def discover(data: Path) -> dict[str, str]:
    """The environment of the pod that runs there; empty when none does."""
    try:
        known = json.loads((data / "running.json").read_bytes())
    except (OSError, ValueError):
        return {}
    match known:
        case {"pid": int(pid), "mark": str(marked), "environ": {**environ}} if mark(pid) == marked:
            return {name: value for name, value in environ.items() if name in SHARED and isinstance(value, str)}
    return {}
