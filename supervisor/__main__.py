"""The `supervisor` command."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from supervisor import __version__
from supervisor.settings import EXIT_CONFIGURATION, PROFILES, ConfigurationError, Settings, load_settings

app = typer.Typer(
    name="supervisor",
    help="Looks after a pod: migrates, probes, decides, tells, drains.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
DirectoryOption = Annotated[
    Path | None, typer.Option("--runtime-dir", help="Where the pod meets. Default: RUNTIME_DIR.", show_default=False)
]


def main() -> None:
    app()


@app.command(context_settings={"ignore_unknown_options": True})
def run(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND …]", help="The service, to be its parent.")
    ] = None,
) -> None:
    """Look after the pod until told to stop.

    With a command after `--` it starts the service itself, after migrating, and starts it again when it ends.
    Without, it is a sidecar: the service is started by somebody else and met in RUNTIME_DIR.

    Examples:

        supervisor run -- gunicorn -c python:shop.server shop.server:application

        RUNTIME_DIR=/run/shop supervisor run
    """
    # PID 1 has no default for SIGTERM, and importing takes a moment: until the loop hears it, just go
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    settings = _settings()
    from supervisor.lifecycle import run as live
    from supervisor.logs import configure_logging
    from supervisor.runtime_directory import DirectoryHeldError

    configure_logging(settings)
    try:
        status = asyncio.run(live(settings, command or []))
    except (ConfigurationError, DirectoryHeldError) as error:
        _die(str(error))
    except OSError as error:
        _die(f"RUNTIME_DIR: {error.filename or settings.runtime_dir}: {error.strerror or error}")
    raise typer.Exit(status)


@app.command()
def drain(
    wait: Annotated[bool, typer.Option("--wait", help="Return when no request is in flight any more.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait at most; then exit 1.")] = 30.0,
    runtime_dir: DirectoryOption = None,
) -> None:
    """Take the pod out of service without losing a request. Reversible by `undrain`; signals nobody.

    Examples:

        supervisor drain --wait --timeout 25     # as a Kubernetes preStop hook of the service's container
    """
    directory = _directory(runtime_dir)
    _command(directory, "/drain")
    deadline = time.monotonic() + timeout
    while wait:
        now = _get(directory)
        if now["drain"]["step"] == "empty":
            typer.echo("drained: no request is in flight")
            return
        if time.monotonic() > deadline:
            typer.echo(f"not drained in {timeout:g} s: {_what_holds_up(now)}", err=True)
            raise typer.Exit(1)
        time.sleep(0.1)


@app.command()
def undrain(runtime_dir: DirectoryOption = None) -> None:
    """Put a drained pod back into service.

    Example:

        supervisor undrain
    """
    _command(_directory(runtime_dir), "/undrain")


@app.command()
def reload(runtime_dir: DirectoryOption = None) -> None:
    """Migrate, then let gunicorn replace its workers by new ones with the code as it is now.

    The old ones answer what they have begun.

    Example:

        git pull && supervisor reload
    """
    _command(_directory(runtime_dir), "/reload", timeout=900)


@app.command()
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Again each second, until Ctrl-C.")] = False,
    as_json: Json = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 0 when healthy or degraded, else 1.")] = False,
    runtime_dir: DirectoryOption = None,
) -> None:
    """Show how the pod is.

    Examples:

        supervisor status --watch

        supervisor status --json | jq .checks

        supervisor status --check     # a container's health check
    """
    directory = _directory(runtime_dir)
    if check:
        from supervisor.talk import NobodyAnswersError, ask

        try:
            told = ask(directory / "supervisor.sock", "/status", timeout=2)
        except NobodyAnswersError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None
        typer.echo(f"{told['status']}: {told['reason']}")
        raise typer.Exit(0 if told["status"] in ("healthy", "degraded") else 1)
    if as_json:
        typer.echo(json.dumps(_get(directory), indent=2))
        return
    from rich.console import Console
    from rich.live import Live

    from supervisor.talk import picture

    console = Console()
    if not watch:
        console.print(picture(_get(directory)))
        return
    with Live(console=console, auto_refresh=False) as live, contextlib.suppress(KeyboardInterrupt):
        while True:
            drawn = picture(_get(directory))
            if console.is_terminal:
                live.update(drawn, refresh=True)
            else:
                console.print(drawn)  # into a pipe or a file: one after the other
            time.sleep(1)


@app.command()
def migrate(
    after: Annotated[
        bool, typer.Option("--after", help="Also the contracting ones, headed `-- phase: after`.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring the database to this code's schema and leave.

    Examples:

        supervisor migrate

        supervisor migrate --after     # once no pod runs the code before
    """
    settings = _settings()
    from supervisor import migrations

    if as_json:
        raise typer.Exit(migrations.run_reporting(settings, after=after))
    try:
        outcome = migrations.migrate_blocking(settings, after=after, say=_print)
    except migrations.MigrationFailed as failure:
        typer.echo(f"migration failed: {failure}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{len(outcome.known)} migrations in the database, {len(outcome.applied)} of them new")


@app.command("settings")
def show_settings(as_json: Json = False) -> None:
    """Print the settings in effect, secrets masked, with where each came from.

    Example:

        ENVIRONMENT=development DATABASE_URL=postgresql:///shop supervisor settings
    """
    from supervisor.settings import effective_settings

    try:
        effective = effective_settings()
    except ConfigurationError as error:
        _die(str(error))
    if as_json:
        typer.echo(json.dumps({one.name: {"value": one.value, "origin": one.origin} for one in effective}, indent=2))
        return
    width = max(len(one.name) for one in effective)
    for one in effective:
        typer.echo(f"{one.name:<{width}}  {one.value}  ({one.origin})")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _what_holds_up(now: dict[str, Any]) -> str:
    """A worker that does not answer may hold a request, however few the others count."""
    drain, workers = now["drain"], now["workers"]
    reasons = []
    if drain["in_flight"] or not drain["silent_workers"]:
        reasons.append(f"{drain['in_flight'] or 0} requests in flight, step: {drain['step'].replace('_', ' ')}")
    for boot in drain["silent_workers"]:
        pid = workers.get(boot, {}).get("pid")
        named = f"worker {boot}" + (f" (pid {pid})" if pid else "")
        reasons.append(f"{named} does not answer and may hold requests")
    return "; ".join(reasons)


def _print(said: str) -> None:
    typer.echo(said)


def _settings() -> Settings:
    try:
        return load_settings()
    except ConfigurationError as error:
        _die(str(error))


def _die(text: str) -> NoReturn:
    sys.stderr.write(text + "\n")
    raise SystemExit(EXIT_CONFIGURATION)


def _directory(given: Path | None) -> Path:
    """What talks to a running supervisor needs no more than this: a hook's container may lack the other settings."""
    profile = PROFILES.get(os.environ.get("ENVIRONMENT", ""), {})
    return given or Path(os.environ.get("RUNTIME_DIR") or profile.get("runtime_dir") or "/run/bookstore")


def _get(directory: Path) -> dict[str, Any]:
    return _talk(directory, "/status")


def _command(directory: Path, path: str, timeout: float = 10) -> None:
    told = _talk(directory, path, method="POST", timeout=timeout)
    if not told["done"]:
        typer.echo(told["message"], err=True)
        raise typer.Exit(1)


def _talk(directory: Path, path: str, *, method: str = "GET", timeout: float = 10) -> dict[str, Any]:
    from supervisor.talk import NobodyAnswersError, ask

    try:
        return ask(directory / "supervisor.sock", path, method=method, timeout=timeout)
    except NobodyAnswersError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    main()
