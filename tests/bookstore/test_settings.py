"""Where settings come from, what they may be, and that every fault is told at once."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookstore.settings import (
    DEVELOPMENT_SECRET_KEY,
    RULES,
    SECRETS,
    ConfigurationError,
    Settings,
    effective_settings,
    load_settings,
)

NOWHERE = Path("/nonexistent")
GOOD_SECRET = "0123456789abcdef0123456789abcdef"
GOOD = {
    "DATABASE_URL": "postgresql://bookstore:hunter2@db:5432/bookstore",
    "SECRET_KEY": GOOD_SECRET,
    "JWT_SECRET_KEY": GOOD_SECRET[::-1],
}


def faults_of(**environ: str) -> dict[str, str]:
    with pytest.raises(ConfigurationError) as raised:
        load_settings(environ, NOWHERE)
    return {fault.name: fault.problem for fault in raised.value.faults}


def test_production_is_the_default_and_needs_a_database_and_secrets() -> None:
    assert set(faults_of()) == {"DATABASE_URL", "SECRET_KEY", "JWT_SECRET_KEY"}
    loaded = load_settings(GOOD, NOWHERE)
    assert (loaded.environment, loaded.host, loaded.workers, loaded.max_connections) == (
        "production",
        "0.0.0.0",
        4,
        100,
    )
    assert (loaded.jwt_expire_minutes, loaded.log_level, loaded.log_format) == (30, "INFO", "json")


def test_every_fault_is_listed_at_once_even_those_between_settings() -> None:
    found = faults_of(
        PORT="0",
        DEBUG="1",
        SECRET_KEY="short",
        CORS_ORIGINS="*",
        WORKERS="many",
        LOG_LEVEL="loud",
        REDIS_URL="http://redis",
        RUNTIME_DIR="/long" * 20,
        API_PREFIX="/health",
    )
    assert set(found) == {
        *("PORT", "DEBUG", "SECRET_KEY", "CORS_ORIGINS", "WORKERS", "LOG_LEVEL", "REDIS_URL", "RUNTIME_DIR"),
        *("API_PREFIX", "DATABASE_URL", "JWT_SECRET_KEY"),
    }


def test_no_fault_shows_the_value_that_is_wrong() -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_settings(dict.fromkeys(GOOD, "hunter2") | {"PORT": "hunter2", "REDIS_URL": "hunter2"}, NOWHERE)
    assert "hunter2" not in str(raised.value) + repr(raised.value)
    assert raised.value.exit_status == 78


def test_the_environment_wins_over_the_env_file_which_wins_over_the_profile(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("PORT=1111\nWORKERS=7\n")
    loaded = load_settings({"ENVIRONMENT": "development", "PORT": "2222"}, env_file)
    assert (loaded.port, loaded.workers, loaded.log_format) == (2222, 7, "text")
    origins = {line.name: line.origin for line in effective_settings(loaded)}
    assert origins["PORT"] == "environment"
    assert origins["WORKERS"] == str(env_file)
    assert origins["LOG_FORMAT"] == "profile development"
    assert origins["API_PREFIX"] == "default"


@pytest.mark.parametrize("profile", ["production", "staging", "test"])
def test_the_env_file_is_read_in_development_only(tmp_path: Path, profile: str) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("PORT=1111\n")
    assert load_settings({**GOOD, "ENVIRONMENT": profile}, env_file).port == 8000


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(GOOD_SECRET + "\n")
    environ = {name: value for name, value in GOOD.items() if name != "SECRET_KEY"} | {"SECRET_KEY_FILE": str(file)}
    loaded = load_settings(environ, NOWHERE)
    assert loaded.secret_key.get_secret_value() == GOOD_SECRET
    assert {line.name: line.origin for line in effective_settings(loaded)}["SECRET_KEY"] == "SECRET_KEY_FILE"


def test_a_secret_given_twice_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(GOOD_SECRET)
    assert "SECRET_KEY_FILE" in faults_of(**GOOD, SECRET_KEY_FILE=str(file))["SECRET_KEY"]


def test_a_secret_file_that_is_not_there_is_a_fault() -> None:
    assert "cannot be read" in faults_of(**{**GOOD, "SECRET_KEY": ""}, SECRET_KEY_FILE="/nonexistent")["SECRET_KEY"]


@pytest.mark.parametrize("secret", ["short", "a" * 40, DEVELOPMENT_SECRET_KEY, "please-change-me-" * 3])
def test_default_and_short_secrets_are_refused_outside_development(secret: str) -> None:
    for profile in ("production", "staging", "test"):
        assert "SECRET_KEY" in faults_of(**{**GOOD, "SECRET_KEY": secret}, ENVIRONMENT=profile)
    assert load_settings({**GOOD, "SECRET_KEY": secret, "ENVIRONMENT": "development"}, NOWHERE)


def test_the_two_secrets_must_differ_outside_development() -> None:
    same = {**GOOD, "JWT_SECRET_KEY": GOOD_SECRET}
    for profile in ("production", "staging", "test"):
        assert faults_of(**same, ENVIRONMENT=profile) == {
            "JWT_SECRET_KEY": "must differ from SECRET_KEY: who learns one must not have both"
        }
    assert load_settings({**same, "ENVIRONMENT": "development"}, NOWHERE)
    assert set(faults_of(**{**GOOD, "SECRET_KEY": "short", "JWT_SECRET_KEY": "short"})) == {
        "SECRET_KEY",
        "JWT_SECRET_KEY",
    }


def test_under_a_profile_nobody_knows_what_production_refuses_is_told_in_the_same_run() -> None:
    found = faults_of(**{**GOOD, "SECRET_KEY": "short"}, ENVIRONMENT="bogus", CORS_ORIGINS="*", DEBUG="1")
    assert set(found) == {"ENVIRONMENT", "SECRET_KEY", "CORS_ORIGINS", "DEBUG"}


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load_settings({**GOOD, "REDIS_URL": "", "PORT": ""}, NOWHERE).port == 8000


def test_origins_are_a_list() -> None:
    loaded = load_settings({**GOOD, "CORS_ORIGINS": "https://a.example, http://localhost:3000"}, NOWHERE)
    assert loaded.cors_origins == ("https://a.example", "http://localhost:3000")
    assert "CORS_ORIGINS" in faults_of(**GOOD, CORS_ORIGINS="https://a.example/path")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:hunter2@db/x", "postgresql://u:********@db/x"),
        ("postgresql://u:hun@ter2@db/x", "postgresql://u:********@db/x"),
        ("postgresql://u@/x?host=/tmp&password=hunter2", "postgresql://u@/x?host=/tmp&password=********"),
        ("postgresql:///x", "postgresql:///x"),
    ],
)
def test_effective_settings_show_a_url_without_its_password(url: str, shown: str) -> None:
    loaded = load_settings({**GOOD, "DATABASE_URL": url}, NOWHERE)
    lines = {line.name: line.value for line in effective_settings(loaded)}
    assert lines["DATABASE_URL"] == shown
    assert lines["SECRET_KEY"] == "********"


NAMES = [name.upper() for name in Settings.model_fields]
VALUES = st.one_of(
    st.sampled_from(["1", "0", "true", "development", "production", "*", "INFO", "json", "/api", GOOD_SECRET, "8000"]),
    st.sampled_from(list(GOOD.values())),
    st.text(alphabet=st.characters(blacklist_characters="\0"), max_size=40),
)


@pytest.mark.property("P3")
@settings(max_examples=400, deadline=None)
@given(environ=st.dictionaries(st.sampled_from([*NAMES, *(f"{name.upper()}_FILE" for name in SECRETS)]), VALUES))
def test_any_environment_gives_valid_settings_or_names_every_fault(environ: dict[str, str]) -> None:
    try:
        loaded = load_settings(environ, NOWHERE)
    except ConfigurationError as refused:
        assert refused.faults
        assert len({fault.name for fault in refused.faults}) == len(refused.faults)
        at_fault = {fault.name.lower() for fault in refused.faults}
        # what a refused value would have meant for others cannot be known before it is repaired
        # (nor what that would have meant for the next: a profile taken away is another profile)
        beside = set(at_fault)
        while more := {name for rule in RULES if beside & set(rule.about) for name in rule.about} - beside:
            beside |= more
        repaired = {name: value for name, value in environ.items() if name.removesuffix("_FILE").lower() not in beside}
        # whoever repairs what was named is not sent back for more
        good = {name: value for name, value in GOOD.items() if f"{name}_FILE" not in repaired}
        assert load_settings({**good, **repaired}, NOWHERE)
    else:
        assert not any(
            value in str(effective_settings(loaded))
            for name, value in environ.items()
            if name in ("SECRET_KEY", "JWT_SECRET_KEY", "SUPERVISOR_TOKEN") and len(value) > 8
        )
