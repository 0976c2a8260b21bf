"""`.env.example` is one file for both programs."""

import io
import re
from pathlib import Path

import pytest
from dotenv import dotenv_values

from bookstore.settings import PROFILES, Settings, load_settings
from supervisor.settings import Settings as SupervisorSettings
from supervisor.settings import load_settings as load_supervisor_settings

PROJECT = Path(__file__).parent.parent.parent
NOWHERE = Path("/nonexistent")


def test_the_example_file_has_every_setting_of_both_programs_with_its_value_in_development() -> None:
    text = (PROJECT / ".env.example").read_text(encoding="utf-8")
    assert not dotenv_values(stream=io.StringIO(text))  # as it stands it sets nothing
    shown = dict(re.findall(r"^#([A-Z_]+)=(.*)$", text, flags=re.MULTILINE))
    assert set(shown) == {name.upper() for name in (*Settings.model_fields, *SupervisorSettings.model_fields)}
    ours = load_settings({"ENVIRONMENT": "development"}, NOWHERE)
    theirs = load_supervisor_settings({"ENVIRONMENT": "development", "DATABASE_URL": "postgresql:///x"}, NOWHERE)
    as_written = {name: value for name, value in shown.items() if value and name != "ENVIRONMENT"}
    again = load_settings({"ENVIRONMENT": "development", **as_written}, NOWHERE)
    assert again.model_dump() == ours.model_dump()
    again_theirs = load_supervisor_settings({"ENVIRONMENT": "development", **as_written}, NOWHERE)
    assert again_theirs.model_dump(exclude={"database_url"}) == theirs.model_dump(exclude={"database_url"})


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_setting_both_programs_read_has_one_default(profile: str) -> None:
    environ = {
        "ENVIRONMENT": profile,
        "DATABASE_URL": "postgresql:///x",
        "SECRET_KEY": "0123456789abcdef0123456789abcdef",
        "JWT_SECRET_KEY": "fedcba9876543210fedcba9876543210",
    }
    ours = load_settings(environ, NOWHERE).model_dump()
    theirs = load_supervisor_settings(environ, NOWHERE).model_dump()
    shared = set(ours) & set(theirs)
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
