"""Every setting of the API: where it may come from, what it may be, what it means.

The environment wins over `.env` (read in development only), which wins over the profile named by `ENVIRONMENT`. A
secret may come from a file instead: `SECRET_KEY_FILE=/run/secrets/key`. Nothing else here reads the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from aiohttp import web
from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

Environment = Literal["development", "staging", "production", "test"]
EXIT_STATUS = 78  # EX_CONFIG of sysexits.h: a supervisor must not restart what cannot become right by itself
SECRET_LENGTH = 32
SOCKET_PATH_LIMIT = 107  # bytes, of `sun_path` on Linux, without its closing NUL
LONGEST_SOCKET_NAME = "/workers/0123456789abcdef.sock"

DEVELOPMENT_SECRET_KEY = "development-only-secret-key-never-use-it-elsewhere"  # noqa: S105 - refused outside development
DEVELOPMENT_JWT_SECRET_KEY = "development-only-jwt-secret-never-use-it-elsewhere"  # noqa: S105 - the same

PROFILES: dict[str, dict[str, Any]] = {
    "development": {
        "debug": True,
        "database_url": "postgresql://bookstore@localhost/bookstore",
        "secret_key": DEVELOPMENT_SECRET_KEY,
        "jwt_secret_key": DEVELOPMENT_JWT_SECRET_KEY,
        "log_level": "DEBUG",
        "log_format": "text",
        "host": "127.0.0.1",
        "workers": 2,
        "runtime_dir": ".run",
    },
    "staging": {},
    "production": {},
    "test": {"host": "127.0.0.1", "workers": 1, "runtime_dir": ".run"},
}


class ConfigurationError(Exception):
    """The settings cannot be used. Lists every fault, by name, and never shows a value."""

    exit_status = EXIT_STATUS

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(faults)
        lines = "".join(f"\n  {fault.name}: {fault.problem}" for fault in self.faults)
        super().__init__(f"{len(self.faults)} setting{'s' * (len(self.faults) != 1)} cannot be used:{lines}")


class Fault(NamedTuple):
    name: str
    problem: str


class EffectiveSetting(NamedTuple):
    """One line of `bookstore settings`."""

    name: str
    value: str
    origin: str


def load_settings(environ: Mapping[str, str] | None = None, env_file: Path | None = None) -> Settings:
    """The settings of this process, or a `ConfigurationError` that lists all that is wrong with them."""
    environ = os.environ if environ is None else environ
    given, faults = _gather(environ, Path(".env") if env_file is None else env_file)
    values = {name: value for name, (value, _) in given.items()}
    try:
        settings = Settings(**values)
    except ValidationError as refused:
        wrong = [Fault(str(error["loc"][0]).upper(), _problem(error["msg"])) for error in refused.errors()]
        faults += [fault for fault in dict.fromkeys(wrong) if fault.name not in {known.name for known in faults}]
        settings = Settings.model_construct(**_what_stands(values, {fault.name.lower() for fault in faults}))
    # A profile nobody knows is judged as production is: whoever repairs its name is not sent back for the rest.
    unusable = {fault.name.lower() for fault in faults} - {"environment"}
    for rule in RULES:
        blamed = rule.about[0].upper()
        if unusable & set(rule.about) or blamed in {fault.name for fault in faults}:
            continue
        if problem := rule.check(settings):
            faults.append(Fault(blamed, problem))
    if faults:
        raise ConfigurationError(sorted(faults))
    settings._origins = {name: origin for name, (_, origin) in given.items()}
    return settings


def effective_settings(settings: Settings) -> list[EffectiveSetting]:
    """What holds in this process, masked, and where each value came from."""
    return [
        EffectiveSetting(name.upper(), masked(getattr(settings, name)), settings._origins.get(name, "default"))
        for name in Settings.model_fields
    ]


def masked(value: object) -> str:
    """`value` as it may be shown: of a URL the password is hidden, of any other secret everything."""
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        if "://" not in secret:
            return "********" if secret else ""
        return re.sub(r"(?<=://)[^?]*@", _without_password, re.sub(r"(?i)(password=)[^&]*", r"\1********", secret))
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _without_password(credentials: re.Match[str]) -> str:
    user, colon, _ = credentials[0][:-1].partition(":")
    return f"{user}{colon}{'********' if colon else ''}@"


# What a value may be. A message here never contains the value: it may be a secret that went into the wrong variable.


def _listed(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return value


def _postgres_url(value: SecretStr) -> SecretStr:
    return _url(value, ("postgresql", "postgres"), "must look like postgresql://user:password@host:5432/database")


def _redis_url(value: SecretStr) -> SecretStr:
    return _url(
        value, ("redis", "rediss", "unix"), "must look like redis://host:6379/0 or unix:///path/redis.sock?db=0"
    )


def _url(value: SecretStr, schemes: tuple[str, ...], hint: str) -> SecretStr:
    text = value.get_secret_value()
    try:
        parts = urlsplit(text)
        sound = parts.scheme in schemes and bool(parts.path.strip("/") or parts.netloc) and (parts.port or 1) > 0
    except ValueError:
        sound = False
    if not sound or not text.isprintable() or " " in text:
        raise ValueError(hint)
    return value


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    for origin in value:
        if origin != "*" and not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+", origin):
            raise ValueError("must list origins such as https://shop.example, separated by commas, without a path")
    return value


def _prefix(value: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", value) or value.split("/")[1] in ("health", "docs", "openapi.json"):
        raise ValueError("must start with a slash, not end with one, and not be /health, /docs or /openapi.json")
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Text = Annotated[str, AfterValidator(_printable)]
Directory = Annotated[Path, BeforeValidator(lambda value: _printable(value) if isinstance(value, str) else value)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    """Attribute names are the variables' in lower case. Build with `load_settings`, which also knows the profiles."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    environment: Environment = Field("production", description="The profile: development, staging, production or test")
    debug: bool = Field(False, description="Show causes and tracebacks in error answers; refused in production")

    database_url: PostgresUrl = Field(description="PostgreSQL, as a libpq URI; unix sockets with `?host=/directory`")
    redis_url: RedisUrl | None = Field(None, description="Redis, redis://… or unix:///…; the API works without")
    max_connections: int = Field(
        100, ge=1, le=10_000, description="Database connections of a pod, divided over its workers"
    )
    statement_timeout: float = Field(
        5, gt=0, le=600, description="Seconds after which PostgreSQL gives up one statement of a request"
    )

    secret_key: SecretStr = Field(description="Signs cursors; at least 32 characters, the same in every pod")
    jwt_secret_key: SecretStr = Field(description="Signs access tokens; at least 32 characters, the same in every pod")
    jwt_expire_minutes: int = Field(30, ge=1, le=1440, description="How long an access token works")

    log_level: Annotated[Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)] = (
        Field("INFO", description="The least severe level that is logged")
    )
    log_format: Literal["json", "text"] = Field("json", description="json for machines, text for people")
    log_dir: Directory | None = Field(None, description="Also write app.log, error.log and access.log here, rotated")

    host: Text = Field("0.0.0.0", min_length=1, description="The address the API listens on")  # noqa: S104 - in a container
    port: Port = Field(8000, description="The port the API listens on")
    workers: int = Field(4, ge=1, le=256, description="gunicorn worker processes")
    graceful_timeout: float = Field(20, gt=0, le=3600, description="Seconds a stopping worker gives requests in flight")
    cache_seconds: float = Field(
        1, ge=0, le=1, description="How long a catalogue answer may be given again from memory; 0: never"
    )
    api_prefix: Annotated[str, AfterValidator(_prefix)] = Field("/api/v1", description="Where the API begins")
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_origins)] = Field(
        (), description="Origins whose pages may call the API, separated by commas; `*` is refused in production"
    )

    runtime_dir: Directory = Field(
        Path("/run/bookstore"), description="Where the API and its supervisor meet; one per pod, mode 0700"
    )
    supervised: bool = Field(False, description="Wait for the supervisor to say the schema is ready before serving")
    supervisor_port: Port = Field(8081, description="The port the supervisor answers on")
    supervisor_token: Annotated[SecretStr, Field(min_length=16)] | None = Field(
        None, description="Shows error texts and hosts in health answers"
    )
    migrations_dir: Directory = Field(Path("migrations"), description="The yoyo migrations this code needs")

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load_settings` gathered: it knows profiles, `NAME_FILE` and where each value came from."""
        return (init_settings,)


SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
SECRETS = tuple(name for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation))


@dataclass(frozen=True)
class Rule:
    """What must hold between settings. `about` names them; the first is the one to blame."""

    about: tuple[str, ...]
    check: Callable[[Settings], str | None]


def _strong(name: str) -> Rule:
    def check(settings: Settings) -> str | None:
        value: SecretStr | None = getattr(settings, name)
        if settings.environment == "development" or value is None:
            return None
        secret = value.get_secret_value()
        if len(secret) < SECRET_LENGTH:
            return f"must have at least {SECRET_LENGTH} characters outside development"
        if len(set(secret)) < 8 or re.search(r"(?i)development-only|change.?me|example|placeholder", secret):
            return "is a default or a placeholder; make one with `openssl rand -hex 32`"
        return None

    return Rule((name, "environment"), check)


RULES = (
    _strong("secret_key"),
    _strong("jwt_secret_key"),
    Rule(
        ("jwt_secret_key", "secret_key", "environment"),
        lambda s: (
            "must differ from SECRET_KEY: who learns one must not have both"
            if s.jwt_secret_key == s.secret_key and s.environment != "development"
            else None
        ),
    ),
    Rule(
        ("debug", "environment"),
        lambda s: "shows tracebacks to callers and is refused in production" if s.debug and _is_live(s) else None,
    ),
    Rule(
        ("cors_origins", "environment"),
        lambda s: "must name origins in production, not `*`" if "*" in s.cors_origins and _is_live(s) else None,
    ),
    Rule(
        ("runtime_dir",),
        lambda s: (
            f"is too long: a unix socket in it would exceed {SOCKET_PATH_LIMIT} bytes"
            if len(os.fsencode(f"{s.runtime_dir}{LONGEST_SOCKET_NAME}")) > SOCKET_PATH_LIMIT
            else None
        ),
    ),
    Rule(
        ("max_connections", "workers"),
        lambda s: "must be at least WORKERS: each worker needs a connection" if s.max_connections < s.workers else None,
    ),
)


def _is_live(settings: Settings) -> bool:
    return settings.environment == "production"


def _gather(environ: Mapping[str, str], env_file: Path) -> tuple[dict[str, tuple[Any, str]], list[Fault]]:
    """Each setting's raw value and its origin; an empty variable counts as one that is not set."""
    faults: list[Fault] = []
    profile = environ.get("ENVIRONMENT", "").strip() or "production"
    layers: list[tuple[str, Mapping[str, str | None]]] = [("environment", environ)]
    if profile == "development" and env_file.is_file():
        layers.append((str(env_file), dotenv_values(env_file, interpolate=False)))

    given = {name: (value, f"profile {profile}") for name, value in PROFILES.get(profile, {}).items()}
    for name in Settings.model_fields:
        variable = name.upper()
        for origin, layer in layers:
            value, file = layer.get(variable), layer.get(f"{variable}_FILE") if name in SECRETS else None
            if value and file:
                faults.append(Fault(variable, f"is set twice in the {origin}: {variable} and {variable}_FILE"))
            elif file:
                try:
                    given[name] = (Path(file).read_text(encoding="utf-8").rstrip("\r\n"), f"{variable}_FILE")
                except (OSError, ValueError):
                    faults.append(Fault(variable, f"the file named by {variable}_FILE cannot be read"))
            elif value:
                given[name] = (value, origin)
            if value or file:
                break
    return given, faults


def _what_stands(values: Mapping[str, Any], unusable: set[str]) -> dict[str, Any]:
    """The values that were accepted, so that rules between them can still be checked when others were refused."""
    standing: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        if name in unusable:
            continue
        if name in values:
            accepts: TypeAdapter[Any] = TypeAdapter(Annotated[(field.annotation, name, *field.metadata)])  # type: ignore[arg-type]
            standing[name] = accepts.validate_python(values[name])
        elif not field.is_required():
            standing[name] = field.get_default()
    return standing


def _problem(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    message = re.sub(r"Value should have at least (\d+) items.*", r"must have at least \1 characters", message)
    return "is required" if message == "Field required" else message[0].lower() + message[1:]


assert set(PROFILES) == set(get_args(Environment))
