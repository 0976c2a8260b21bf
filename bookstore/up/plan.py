"""What will run: which servers are given, which are ours, and the environment that the pod gets."""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bookstore.embedded import Home, Postgres, Redis
from bookstore.settings import ConfigurationError, Fault, Settings, effective_settings, load_settings

PROJECT = Path(__file__).resolve().parent.parent.parent
FAULT = re.compile(r"^ +([A-Z][A-Z0-9_]*)(?:=\S*)?: (.*)$", re.MULTILINE)
LONGEST_RUNTIME_DIR = 70  # leaves room for /workers/<boot>.sock within the 107 bytes of a unix socket


class Plan:
    def __init__(self, home: Home, environ: Mapping[str, str], settings: Settings) -> None:
        self.home = home
        self.environ = dict(environ)
        self.settings = settings
        self.postgres: Postgres | None = None
        self.redis: Redis | None = None
        self.origins = {name: origin for name, _, origin in effective_settings(settings)}
        self.embeds_postgres = not self._is_given("DATABASE_URL")
        self.embeds_redis = not self._is_given("REDIS_URL")

    @property
    def database_url(self) -> str:
        return self.environ.get("DATABASE_URL") or self.settings.database_url.get_secret_value()

    @property
    def api(self) -> str:
        return f"http://{_reachable(self.settings.host)}:{self.settings.port}"

    @property
    def supervisor(self) -> str:
        return f"http://{self.supervisor_host}:{self.settings.supervisor_port}"

    @property
    def supervisor_host(self) -> str:
        return _reachable(self.environ.get("SUPERVISOR_HOST", "127.0.0.1"))

    @property
    def servers(self) -> list[Postgres | Redis]:
        return [server for server in (self.postgres, self.redis) if server is not None]

    def use_postgres(self, server: Postgres, url: str) -> None:
        self.postgres = server
        self.environ["DATABASE_URL"] = url

    def use_redis(self, server: Redis, url: str) -> None:
        self.redis = server
        self.environ["REDIS_URL"] = url

    def generate_secrets(self) -> None:
        """Once, into files of ours; handed on as files, so that no environment shows them."""
        for name in ("SECRET_KEY", "JWT_SECRET_KEY"):
            if not self._is_given(name):
                self.environ[f"{name}_FILE"] = str(_secret(self.home.path / name.lower()))

    def _is_given(self, name: str) -> bool:
        return not self.origins[name].startswith(("profile", "default"))


def make_plan(home: Home, environ: Mapping[str, str]) -> Plan:
    """Raises ConfigurationError when what was given cannot be used."""
    asked = {name: value for name, value in environ.items() if name != "MAKELEVEL"}
    asked["ENVIRONMENT"] = "development"  # that is what this command is for
    asked["SUPERVISED"] = "true"
    if not asked.get("RUNTIME_DIR"):
        asked["RUNTIME_DIR"] = _runtime_directory(home)
    if not asked.get("DISK_PATH"):
        asked["DISK_PATH"] = str(home.path)  # the disk to be watched is the one that fills
    plan = Plan(home, asked, _accepted_by_both(asked))
    plan.environ["WORKERS"] = str(
        plan.settings.workers
    )  # the supervisor knows no profile of the API's, and awaits them
    plan.generate_secrets()
    return plan


def _accepted_by_both(environ: Mapping[str, str]) -> Settings:
    """Every fault at once, also those that only the supervisor would find, after PostgreSQL was started for it."""
    given = environ.get("DATABASE_URL") or environ.get("DATABASE_URL_FILE")
    stand_in = {} if given else {"DATABASE_URL": "postgresql://bookstore@/bookstore"}
    asking = subprocess.Popen(
        [sys.executable, "-m", "supervisor", "settings"],
        cwd=PROJECT,
        env={**environ, **stand_in},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    faults: list[Fault] = []
    with asking:
        settings = None
        try:
            settings = load_settings(environ)  # while the other one is being asked
        except ConfigurationError as refused:
            faults.extend(refused.faults)
        said = asking.communicate()[1]
    named = {fault.name for fault in faults}
    if asking.returncode == ConfigurationError.exit_status:
        found = [Fault(name, problem) for name, problem in FAULT.findall(said)]
        faults.extend(fault for fault in found if fault.name not in named)
    if faults or settings is None:
        raise ConfigurationError(faults)
    return settings


def _runtime_directory(home: Home) -> str:
    if home.path == PROJECT / ".data":
        return ".run"
    inside = home.path / "run"
    return str(inside if len(os.fsencode(inside)) <= LONGEST_RUNTIME_DIR else home.sockets / "run")


def _secret(path: Path) -> Path:
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.chmod(0o600)
        fresh.write_text(secrets.token_urlsafe(48))
        fresh.replace(path)
    return path


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host  # noqa: S104
