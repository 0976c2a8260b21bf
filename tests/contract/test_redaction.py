"""Both programs hide the same things: neither imports the other, so each has the list itself."""

import supervisor.logs
from bookstore import logs, redaction


def test_both_sides_hide_what_stands_under_the_same_names_and_has_the_same_shapes() -> None:
    assert redaction._TELLING == supervisor.logs._TELLING
    assert redaction._SHAPES == supervisor.logs.SHAPES
    assert redaction.HIDDEN == supervisor.logs.REDACTED


def test_both_sides_escape_the_same_characters_in_text() -> None:
    assert logs._CONTROLS == supervisor.logs.CONTROLS
