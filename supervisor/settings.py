"""What the supervisor is told: environment over `.env` (in development only) over the profile over the defaults.

The names mean the same as for the service beside it; neither imports the other, so each keeps its own copy.
"""

import json
import os
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from supervisor.runtime_directory import LONGEST_BOOT_ID, LONGEST_SOCKET_PATH

EXIT_CONFIGURATION = 78
MASK = "********"
STOP_MARGIN = 2.0
"""Seconds of STOP_GRACE_PERIOD kept for final snapshots, totals and the status port after the last request."""

PROFILES: Mapping[str, Mapping[str, str]] = {
    "development": {
        "supervisor_host": "127.0.0.1",
        "host": "127.0.0.1",
        "runtime_dir": ".run",
        "workers": "2",
        "log_level": "DEBUG",
        "log_format": "text",
        "drain_delay": "0",
    },
    "test": {
        "supervisor_host": "127.0.0.1",
        "host": "127.0.0.1",
        "runtime_dir": ".run",
        "workers": "1",
        "drain_delay": "0",
    },
    "staging": {},
    "production": {},
}


class ConfigurationError(Exception):
    """What was given cannot be run. Lists every fault; holds no value."""

    def __init__(self, faults: list[str]) -> None:
        head = f"{len(faults)} setting{'s' * (len(faults) != 1)} cannot be used:"
        super().__init__("\n".join([head, *(f"  {fault}" for fault in faults)]))
        self.faults = faults


def _json(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError:
        raise ValueError("must be a JSON list") from None


def _postgresql(url: SecretStr) -> SecretStr:
    return _with_scheme(url, "postgresql", "postgres")


def _redis(url: SecretStr) -> SecretStr:
    return _with_scheme(url, "redis", "rediss", "unix")


def _with_scheme(url: SecretStr, *schemes: str) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        wrong = parts.scheme not in schemes or (parts.port is not None and not 0 < parts.port < 65536)
    except ValueError:
        wrong = True
    if wrong:
        raise ValueError(f"must be a URL that starts with {schemes[0]}://")
    return url


Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgresql)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis)]
LogLevel = Annotated[
    Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda level: level.upper() if isinstance(level, str) else level),
]
Criticality = Literal["critical", "degrading", "info"]


class NamedProbe(BaseModel):
    """One entry of PROBES: a service beyond the built-in ones. Further members go to the probe's own target."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    kind: str
    target: str
    criticality: Criticality = "info"
    interval: Seconds | None = None
    timeout: Seconds | None = None


ProbeList = Annotated[list[NamedProbe], BeforeValidator(_json)]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    environment: Literal["development", "staging", "production", "test"] = "production"

    database_url: PostgresUrl
    migration_database_url: PostgresUrl | None = None
    redis_url: RedisUrl | None = None
    migrations_dir: Path = Path("migrations")
    migration_lock_timeout: Seconds = 10
    migration_statement_timeout: Seconds = 600

    log_level: LogLevel = "INFO"
    log_format: Literal["json", "text"] = "json"

    host: str = "0.0.0.0"  # noqa: S104  # a pod's own address; the platform decides who reaches it
    port: Port = 8000
    supervisor_host: str = "0.0.0.0"  # noqa: S104
    supervisor_port: Port = 8081
    supervisor_token: Annotated[SecretStr, Field(min_length=16)] | None = None
    runtime_dir: Path = Path("/run/bookstore")
    workers: Annotated[int, Field(ge=1, le=512)] = 4

    boot_timeout: Seconds = 60
    graceful_timeout: Seconds = 20
    drain_delay: Annotated[float, Field(ge=0, le=3600)] = 5
    stop_grace_period: Seconds = 30

    probe_interval: Seconds = 5
    probe_timeout: Seconds = 1
    probe_rise: Annotated[int, Field(ge=1, le=20)] = 2
    probe_fall: Annotated[int, Field(ge=1, le=20)] = 3
    probe_workers_interval: Seconds = 1
    probe_postgres_criticality: Criticality = "critical"
    probe_redis_criticality: Criticality = "degrading"
    probe_disk_criticality: Criticality = "degrading"
    probe_workers_criticality: Criticality = "critical"
    disk_path: Path = Path()
    disk_warn_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    disk_fail_bytes: Annotated[int, Field(ge=0)] = 1 << 28
    probes: ProbeList = []

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load_settings` gathered: it remembers where each value came from."""
        return (init_settings,)


SECRETS = frozenset({"database_url", "migration_database_url", "redis_url", "supervisor_token", "probes"})
"""Also read from a file, by NAME_FILE; never shown. A probe's target may hold a password."""


@dataclass(frozen=True, slots=True)
class Effective:
    """One line of `supervisor settings`."""

    name: str
    value: str
    origin: str


def load_settings(environ: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")) -> Settings:
    """Checks everything as a whole: raises ConfigurationError with every fault at once."""
    environ = os.environ if environ is None else environ
    faults: list[str] = []
    values: dict[str, Any] = {name: value for name, (value, _) in _gather(environ, env_file, faults).items()}
    try:
        settings = Settings(**values)
        blamed: set[str] = set()
    except ValidationError as error:
        blamed = {str(fault["loc"][0]) for fault in error.errors()}
        faults += [_describe(fault["loc"], fault["msg"], values) for fault in error.errors(include_url=False)]
        # the rest is still checked against each other, so that nobody repairs one fault a start
        settings = Settings(**{"database_url": "postgresql:///", **_without(values, blamed)})
    faults += [text for names, text in _contradictions(settings, environ) if not blamed.intersection(names)]
    if faults:
        raise ConfigurationError(faults)
    return settings


def effective_settings(
    environ: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")
) -> list[Effective]:
    """Every setting with its value, masked, and where it came from."""
    environ = os.environ if environ is None else environ
    settings = load_settings(environ, env_file)
    given = _gather(environ, env_file, [])
    return [
        Effective(name.upper(), _shown(name, getattr(settings, name)), given[name][1] if name in given else "default")
        for name in Settings.model_fields
    ]


def probe_kinds() -> set[str]:
    """The folder is the index: one file a kind."""
    return {module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "probes")])}


def _gather(environ: Mapping[str, str], env_file: Path | None, faults: list[str]) -> dict[str, tuple[str, str]]:
    """name → (value, where it came from). An empty variable counts as not given: Compose hands those on."""
    environment = environ.get("ENVIRONMENT") or "production"
    profile = PROFILES.get(environment, {})
    layers: list[tuple[str, Mapping[str, str | None]]] = [("environment", environ)]
    if environment == "development" and env_file is not None and env_file.is_file():
        layers.append((str(env_file), dotenv_values(env_file, interpolate=False)))
    gathered: dict[str, tuple[str, str]] = {
        name: (value, f"profile {environment}") for name, value in profile.items() if name in Settings.model_fields
    }
    for origin, layer in reversed(layers):
        for name in Settings.model_fields:
            if found := _read_one(name.upper(), origin, layer, faults):
                gathered[name] = found
    return gathered


def _read_one(variable: str, origin: str, layer: Mapping[str, str | None], faults: list[str]) -> tuple[str, str] | None:
    value, file = layer.get(variable), None
    if variable.lower() in SECRETS:
        file = layer.get(f"{variable}_FILE")
    if value and file:
        faults.append(f"{variable}: both {variable} and {variable}_FILE are set: keep one")
    if file:
        try:
            return Path(file).read_text(encoding="utf-8").strip(), f"{variable}_FILE"
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            faults.append(f"{variable}_FILE: the file it names cannot be read: {reason}")
    return (value, origin) if value else None


def _contradictions(settings: Settings, environ: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(the settings it speaks of, what is wrong). Skipped when one of those is at fault by itself."""
    s = settings
    if s.probe_timeout > s.probe_interval:
        yield (
            ("probe_timeout", "probe_interval"),
            f"PROBE_TIMEOUT: {s.probe_timeout:g} s is longer than PROBE_INTERVAL, {s.probe_interval:g} s",
        )
    needed = s.drain_delay + s.graceful_timeout + STOP_MARGIN
    if needed > s.stop_grace_period:
        yield (
            ("drain_delay", "graceful_timeout", "stop_grace_period"),
            f"STOP_GRACE_PERIOD: {s.stop_grace_period:g} s is too short for DRAIN_DELAY + GRACEFUL_TIMEOUT + "
            f"{STOP_MARGIN:g} s of margin = {needed:g} s",
        )
    if s.disk_fail_bytes > s.disk_warn_bytes:
        yield ("disk_fail_bytes", "disk_warn_bytes"), "DISK_FAIL_BYTES: must not be above DISK_WARN_BYTES"
    longest = len(os.fsencode(s.runtime_dir / "workers" / ("f" * LONGEST_BOOT_ID + ".sock")))
    if longest > LONGEST_SOCKET_PATH:
        yield (
            ("runtime_dir",),
            f"RUNTIME_DIR: {longest - LONGEST_SOCKET_PATH} bytes too long for the sockets in it "
            f"(a unix socket's path holds {LONGEST_SOCKET_PATH})",
        )
    if s.port == s.supervisor_port:
        yield ("port", "supervisor_port"), "SUPERVISOR_PORT: the same as PORT"
    kinds = probe_kinds()
    built_in = {name.split("_")[1] for name in Settings.model_fields if re.fullmatch(r"probe_[a-z]+_[a-z]+", name)}
    for variable in environ:
        match = re.fullmatch(r"PROBE_([A-Z]+)_(CRITICALITY|INTERVAL|TIMEOUT)", variable)
        if match and variable.lower() not in Settings.model_fields:
            known = ", ".join(sorted(built_in))
            yield (), f"{variable}: no such setting of a built-in probe (those are: {known})"
    seen = {"database", "redis", "disk_space", "workers", "migrations"}
    for probe in s.probes:
        if probe.kind not in kinds:
            yield ("probes",), f"PROBES: {probe.name}: no probe of that kind (there are: {', '.join(sorted(kinds))})"
        if probe.name in seen:
            yield ("probes",), f"PROBES: {probe.name}: the name is taken"
        if (probe.timeout or s.probe_timeout) > (probe.interval or s.probe_interval):
            yield ("probes", "probe_timeout", "probe_interval"), f"PROBES: {probe.name}: timeout longer than interval"
        seen.add(probe.name)


def _describe(loc: tuple[int | str, ...], message: str, values: Mapping[str, str]) -> str:
    name = str(loc[0])
    inside = ".".join(str(part) for part in loc[1:] if isinstance(part, int) or part in NamedProbe.model_fields)
    message = re.sub(r"Value should have at least (\d+) items.*", r"must have at least \1 characters", message)
    shown = f"={_masked(name, values[name])}" if name in values else ""
    return f"{name.upper()}{shown}: {inside + ': ' if inside else ''}{message.removeprefix('Value error, ')}"


def _masked(name: str, value: str) -> str:
    """Enough to recognise a value by, for who typed it; nothing of a secret."""
    if name in SECRETS or len(value) < 3:
        return MASK
    return f"{value[:2]}{MASK}"


def _shown(name: str, value: object) -> str:
    if value is None:
        return ""
    return MASK if name in SECRETS and value else str(value)


def _without(values: Mapping[str, str], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
