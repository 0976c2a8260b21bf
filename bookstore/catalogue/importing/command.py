"""`bookstore import`. Light to load: what is heavy is imported when the command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .fields import FIELDS


def import_command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A CSV or JSONL file, UTF-8; - is standard input.")],
    format: Annotated[
        str | None, typer.Option(metavar="csv|jsonl|onix", help="What the file is; by default its name tells.")
    ] = None,
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="Whose columns they are: bookstore (our own fields) or goodbooks.")
    ] = "bookstore",
    map: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="COLUMN=FIELD", help="What a column is; FIELD - leaves the column out. Repeatable."
        ),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Fills what a row lacks. Repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen, row by row, and leave the catalogue as it is.")
    ] = False,
    errors: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every bad row and warning to this CSV file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    import json

    from rich.console import Console

    from bookstore.settings import load_settings

    from .columns import pairs
    from .outcome import ImportInterrupted, ImportRefused
    from .report import errors_file, progress_bar, show, show_problems
    from .run import import_books

    people = Console(stderr=True)
    settings = load_settings()
    url = settings.database_url.get_secret_value()
    name = "standard input" if file == "-" else Path(file).name
    source = sys.stdin.buffer if file == "-" else Path(file)
    try:
        if file == "-" and format is None:
            raise ImportRefused("standard input has no name that tells its format: --format csv or --format jsonl")
        with errors_file(errors, source) as on_problem, progress_bar(people, name) as on_progress:
            summary = import_books(
                url,
                source,
                format=format,
                preset=preset,
                mapping=pairs(map or (), "--map"),
                defaults=pairs(set or (), "--set"),
                dry_run=dry_run,
                name=name,
                on_progress=on_progress,
                on_problem=on_problem,
            )
    except (ImportRefused, ImportInterrupted) as fault:
        typer.echo(f"bookstore import: {fault}", err=True)
        raise typer.Exit(fault.exit_status) from None
    if as_json:
        typer.echo(json.dumps(summary.as_json(), ensure_ascii=False))
    else:
        show_problems(summary, people, errors)
        show(summary, Console())
    raise typer.Exit(1 if summary.counts.failed else 0)


import_command.__doc__ = f"""Bring books from a file into the catalogue.

A book is known by its ISBN, else by its SKU. Rows that are new are created, rows that differ are updated, and the rest
is unchanged: the same file again writes nothing. A bad row is reported and left out, the good ones come in. Stock
applies to books that are new to the shop, so that a second run never undoes sales.

Examples:

- `bookstore import books.csv`
- `bookstore import feed.jsonl --dry-run`
- `bookstore import list.csv --map EAN=isbn --map Verlag=publisher --map Notes=- --set currency=EUR`
- `bookstore import books.csv --preset goodbooks --set price=14.99 --set currency=USD --set stock=10`
- `zcat feed.csv.gz | bookstore import - --format csv --errors bad-rows.csv`

Fields:

{chr(10).join(f"- `{name}`: {meaning}" for name, meaning in FIELDS.items())}

Exit statuses:

- 0: every row came in, or was there already (warnings included)
- 1: the import ran and some rows were bad; the others are in
- 2: the file or the options make no sense; nothing was imported
- 3: the database failed; batches before that are in, each whole, and the same import again completes it
- 78: the settings (`DATABASE_URL` …) cannot be used
"""
