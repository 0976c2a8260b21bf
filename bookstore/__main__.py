"""The `bookstore` command. Heavy imports are inside the commands: `--help` answers at once."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from bookstore.catalogue.importing.command import import_command

app = typer.Typer(
    name="bookstore",
    epilog="Start with `make up`, which is `bookstore up` after installing what it needs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

PROJECT = Path(__file__).resolve().parent.parent

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="BOOKSTORE_DATA",
        help="Where databases and secrets are kept.",
        show_default=".data",
        readable=False,  # that is: not looked at by typer, whose answer would help nobody
    ),
]


@app.callback()
def before_every_command(context: typer.Context) -> None:
    """A bookshop's API: bring it up, fill it, look at how it is set."""
    if context.invoked_subcommand in ("import", "settings") and not {"-h", "--help"} & set(sys.argv):
        _join_the_running_pod(needed=context.invoked_subcommand == "import")


@app.command(
    epilog="Examples: `bookstore up` · `bookstore up --reload` · `PORT=9000 SUPERVISOR_PORT=9001 bookstore up`"
)
def up(
    data: Data = PROJECT / ".data",
    reload: Annotated[bool, typer.Option("--reload", help="Restart when a source file changes.")] = False,
) -> None:
    """Bring up a whole pod here: PostgreSQL, Redis, the supervisor and the API, on a sample catalogue.

    `DATABASE_URL` or `REDIS_URL` in the environment are used in the place of the embedded servers. Ctrl-C stops it all.
    """
    from bookstore.up import up

    raise typer.Exit(up(data.absolute(), reload=reload))


@app.command(epilog="Examples: `bookstore reset` · `bookstore reset --yes`")
def reset(
    data: Data = PROJECT / ".data",
    yes: Annotated[bool, typer.Option("--yes", envvar="YES", help="Do not ask.")] = False,
) -> None:
    """Forget the embedded databases and the generated secrets, after asking. The checkout itself is not touched."""
    from bookstore.up import explained
    from bookstore.up.reset import forget, size

    data = data.absolute()
    with explained():
        if not data.exists():
            typer.echo(f"There is nothing to forget: {data} does not exist.")
            return
        question = f"Forget the databases and secrets in {data} ({size(data) / 1e6:.0f} MB)?"
        if not yes and not (sys.stdin.isatty() and typer.confirm(question)):
            typer.echo("Nothing was forgotten. (Without a terminal to ask on: `make reset YES=1`.)")
            raise typer.Exit(1)
        forget(data)
    typer.echo("Forgotten: the next `make up` starts from nothing.")


@app.command(epilog="Examples: `bookstore settings` · `ENVIRONMENT=staging bookstore settings | grep REDIS`")
def settings() -> None:
    """Print every setting as it holds here, secrets masked, with where it came from.

    Beside a running `bookstore up`, and with no `DATABASE_URL` of its own, it prints what that one runs with.
    """
    from bookstore.settings import effective_settings, load_settings

    found = effective_settings(load_settings())
    name_width = max(len(setting.name) for setting in found)
    value_width = min(48, max(len(setting.value) for setting in found))
    for setting in found:
        typer.echo(f"{setting.name:<{name_width}}  {setting.value:<{value_width}}  {setting.origin}")


@app.command(epilog="Examples: `bookstore openapi` · `bookstore openapi > openapi.json`")
def openapi(
    prefix: Annotated[str, typer.Option(envvar="API_PREFIX", help="Where the API begins.")] = "/api/v1",
) -> None:
    """Print the API's OpenAPI 3.1 document, as it is served at /openapi.json."""
    import json

    from bookstore.app import every_operation
    from bookstore.openapi import document

    typer.echo(json.dumps(document(every_operation(), prefix), ensure_ascii=False, indent=2))


app.command("import")(import_command)


def main() -> None:
    """Errors that carry an `exit_status` are one sentence (or a list of faults) for people, not a traceback."""
    try:
        app(prog_name="bookstore")
    except Exception as error:
        status = getattr(error, "exit_status", None)
        if status is None:
            raise
        typer.echo(str(error), err=True)
        sys.exit(status)
    except KeyboardInterrupt:
        sys.exit(130)


def _join_the_running_pod(*, needed: bool) -> None:
    """A command without a database of its own means the one that `bookstore up` runs in the next terminal."""
    if any(os.environ.get(name) for name in ("DATABASE_URL", "DATABASE_URL_FILE", "ENVIRONMENT")):
        return
    from bookstore.up.running import discover

    data = Path(os.environ.get("BOOKSTORE_DATA") or PROJECT / ".data").absolute()
    found = discover(data)
    if found:
        typer.echo(f"(with the pod that runs on {data})", err=True)
        os.environ.update(found)
    elif needed:
        typer.echo("No database: start `make up` in another terminal, or set DATABASE_URL.", err=True)
        raise typer.Exit(78)


if __name__ == "__main__":
    main()
