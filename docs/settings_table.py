"""The README's table of settings, made of `.env.example` (meaning, value in development) and both programs' `Settings`
(default, who reads it).

    python docs/settings_table.py            writes it between the README's markers; `make docs` does
"""

import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- settings: written by `make docs` -->", "<!-- end of settings -->"


def written_anew(readme: str, example: str) -> str:
    """The README with the table as it should be."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has lost its markers {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{table(example)}\n{END}{tail}"


def table(example: str) -> str:
    """Markdown. A comment speaks for all the settings that follow it directly."""
    lines = ["| setting | default | in development | read by | meaning |", "| --- | --- | --- | --- | --- |"]
    comment: list[str] = []
    commenting = False
    for line in example.splitlines():
        assigned = re.fullmatch(r"#([A-Z_]+)=(.*)", line)
        if assigned:
            lines.append(_row(*assigned.groups(), " ".join(comment)))
        elif line.startswith("# ") and not line.startswith("# ---"):
            comment = [*comment, line[2:]] if commenting else [line[2:]]
        else:
            comment = []
        commenting = assigned is None and bool(comment)
    return "\n".join(lines)


def _row(name: str, development: str, meaning: str) -> str:
    from bookstore.settings import Settings, masked
    from supervisor.settings import Settings as SupervisorSettings

    readers = {"API": Settings.model_fields, "supervisor": SupervisorSettings.model_fields}
    fields = [fields[name.lower()] for fields in readers.values() if name.lower() in fields]
    default = "" if fields[0].is_required() else "[]" if name == "PROBES" else masked(fields[0].default)
    shown = "" if development in ("", default) else f"`{development}`"
    who = ", ".join(reader for reader, known in readers.items() if name.lower() in known)
    escaped = meaning.replace("|", "\\|")
    return f"| `{name}` | {f'`{default}`' if default else ''} | {shown} | {who} | {escaped} |"


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    readme = PROJECT / "README.md"
    readme.write_text(written_anew(readme.read_text(), (PROJECT / ".env.example").read_text()))
