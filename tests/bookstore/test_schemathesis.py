"""Whatever the OpenAPI document allows, or forbids, is answered as the document says: never a 500.

Schemathesis reads /openapi.json from a real gunicorn and sends bodies, paths, queries and headers made from it, right
ones and wrong ones, with every check it has. The seed and the rest of its configuration are in schemathesis.toml beside
this file; its formats are taught in schemathesis_hooks.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.bookstore.catalogue.shop import Shop
from tests.bookstore.gunicorn_server import gunicorn
from tests.conftest import Environ

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = 60  # of each operation in the fuzzing phase; the coverage phase makes its own


def a_small_shop(url: str) -> None:
    with closing(Shop(url)) as shop:
        for number in range(25):
            shop.a_book(
                f"{'It' if number % 3 else 'Łódź'} {number}",
                isbn={1: "9780306406157", 2: "9791090636071"}.get(number),
                by=[f"Author {number % 12}", ("B06", "Everybody")],
                series=("The Series", str(number)) if number % 2 else None,
                publisher="A Press",
                subjects=[("thema", "FBA", "Fiction"), ("keyword", f"word {number % 9}", f"Word {number % 9}")],
                prices={} if number % 4 == 0 else {"USD": 999 + number, "JPY": 1500},
                stock=number,
                published=None if number % 5 == 0 else 1900 + number,
                rating=None if number % 6 == 0 else number / 6,
                archived=number == 20,
            )
        shop.learn_words()


@pytest.mark.timeout(300)
def test_every_operation_keeps_its_word(
    module_database_url: str, environ: Environ, runtime_dir: Path, tmp_path: Path
) -> None:
    a_small_shop(module_database_url)
    environment = environ(module_database_url, runtime_dir=runtime_dir, workers=1, log_level="INFO")
    report = tmp_path / "sent.ndjson"
    with gunicorn(environment, tmp_path / "log") as server:
        origin = f"http://127.0.0.1:{server.port}"
        document = json.loads(server.get("/openapi.json")[2])
        run = subprocess.run(
            [
                *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
                *("--no-color", "--config-file", str(CONFIGURATION), "run", f"{origin}/openapi.json"),
                *("--max-examples", str(EXAMPLES), "--report", "ndjson", "--report-ndjson-path", str(report)),
                *(("--seed", os.environ["SCHEMATHESIS_SEED"]) if "SCHEMATHESIS_SEED" in os.environ else ()),
            ],
            env={**environment, "BOOKSTORE_URL": origin},
            cwd=tmp_path,  # it keeps what it found beside it
            capture_output=True,
            text=True,
            timeout=280,
        )
        answered = [line for line in server.lines() if line["logger"] == "bookstore.access"]
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-5_000:]
    # A run that sends nothing finds nothing: everything the document names was sent, and served at least once.
    assert declared(document) - sent(report) == set()
    served = {(line["method"], line["endpoint"]) for line in answered if line["status_code"] == 200}
    assert operations(document) - served == set()
    statuses = {line["status_code"] for line in answered if line["endpoint"].startswith("/api/v1")}
    assert {200, 304, 400, 404, 415, 422} <= statuses
    assert max(statuses) < 500


def operations(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}


def declared(document: dict[str, Any]) -> set[tuple[str, str, str]]:
    """(operation, where, name) of everything that can be sent."""
    found = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            label = f"{method.upper()} {path}"
            found |= {(label, given["in"], given["name"].lower()) for given in operation["parameters"]}
            if "requestBody" in operation:
                found.add((label, "body", ""))
    return found


def sent(report: Path) -> set[tuple[str, str, str]]:
    """The same of everything that was sent."""
    found = set()
    for line in report.read_text(encoding="utf-8").splitlines():
        for case in json.loads(line).get("ScenarioFinished", {}).get("recorder", {}).get("cases", {}).values():
            value = case["value"]
            label = f"{value['method']} {value['path']}"
            for where, member in (("path", "path_parameters"), ("query", "query"), ("header", "headers")):
                names = value.get(member)
                found |= {(label, where, name.lower()) for name in (names if isinstance(names, dict) else ())}
            if value.get("body") is not None:
                found.add((label, "body", ""))
    return found
