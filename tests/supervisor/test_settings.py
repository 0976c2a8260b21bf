import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.settings import (
    MASK,
    PROFILES,
    SECRETS,
    ConfigurationError,
    Settings,
    effective_settings,
    load_settings,
    probe_kinds,
)

URL = "postgresql://shop:correct-horse@db.internal/shop"


def load(**environ: str) -> Settings:
    return load_settings({"DATABASE_URL": URL, **environ}, env_file=None)


def faults(**environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(**environ)
    return caught.value.faults


def test_the_database_is_all_it_must_be_told() -> None:
    told = load()
    assert (told.environment, told.supervisor_port, told.workers) == ("production", 8081, 4)
    assert (told.graceful_timeout, told.drain_delay, told.stop_grace_period) == (20, 5, 30)
    assert told.runtime_dir == Path("/run/bookstore")


def test_development_meets_in_the_project_and_drains_without_delay() -> None:
    told = load(ENVIRONMENT="development")
    assert (str(told.runtime_dir), told.supervisor_host, told.drain_delay) == (".run", "127.0.0.1", 0)
    assert told.log_format == "text"


def test_the_environment_is_over_env_file_is_over_profile(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("SUPERVISOR_HOST=127.0.0.2\nWORKERS=3\nDRAIN_DELAY=4\n")
    told = load_settings({"DATABASE_URL": URL, "ENVIRONMENT": "development", "WORKERS": "2"}, env_file=file)
    assert (told.workers, told.supervisor_host, told.drain_delay) == (2, "127.0.0.2", 4)
    origins = {
        one.name: one.origin
        for one in effective_settings({"DATABASE_URL": URL, "ENVIRONMENT": "development", "WORKERS": "2"}, file)
    }
    assert origins["WORKERS"] == "environment"
    assert origins["SUPERVISOR_HOST"] == str(file)
    assert origins["RUNTIME_DIR"] == "profile development"
    assert origins["PROBE_INTERVAL"] == "default"


@pytest.mark.parametrize("environment", ["staging", "production", "test"])
def test_an_env_file_is_read_in_development_only(tmp_path: Path, environment: str) -> None:
    file = tmp_path / ".env"
    file.write_text("WORKERS=3\n")
    assert load_settings({"DATABASE_URL": URL, "ENVIRONMENT": environment}, env_file=file).workers != 3


def test_a_secret_may_lie_in_a_file_and_then_nowhere_else(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-token-long-enough\n")
    told = load(SUPERVISOR_TOKEN_FILE=str(file))
    assert told.supervisor_token is not None
    assert told.supervisor_token.get_secret_value() == "a-token-long-enough"
    assert any("keep one" in fault for fault in faults(SUPERVISOR_TOKEN_FILE=str(file), SUPERVISOR_TOKEN="x" * 20))
    assert any("cannot be read" in fault for fault in faults(SUPERVISOR_TOKEN_FILE=str(tmp_path / "none")))
    file.write_bytes(b"\xff\xfe")
    assert any("not UTF-8" in fault for fault in faults(SUPERVISOR_TOKEN_FILE=str(file)))
    file.chmod(stat.S_IRUSR)


def test_every_fault_is_told_at_once_by_name_with_the_value_masked() -> None:
    told = faults(
        DATABASE_URL="mysql://root:hunter2@db/shop",
        PORT="eighty",
        WORKERS="0",
        LOG_LEVEL="chatty",
        PROBE_TIMEOUT="9",
        GRACEFUL_TIMEOUT="40",
        PROBE_MAGIC_CRITICALITY="info",
        RUNTIME_DIR="/" + "x" * 100,
        DISK_FAIL_BYTES="9999999999999",
        PROBES='[{"name": "Tax Office", "kind": "http", "target": "x"}]',
    )
    for name in (
        *("DATABASE_URL", "PORT", "WORKERS", "LOG_LEVEL", "PROBE_TIMEOUT", "STOP_GRACE_PERIOD"),
        *("PROBE_MAGIC_CRITICALITY", "RUNTIME_DIR", "DISK_FAIL_BYTES", "PROBES"),
    ):
        assert any(fault.startswith(name) for fault in told), (name, told)
    text = "\n".join(told)
    assert not any(value in text for value in ("hunter2", "eighty", "chatty", "Tax Office"))


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"PROBE_TIMEOUT": "6"}, "longer than PROBE_INTERVAL"),
        ({"STOP_GRACE_PERIOD": "26"}, "too short for DRAIN_DELAY + GRACEFUL_TIMEOUT"),
        ({"SUPERVISOR_PORT": "8000"}, "the same as PORT"),
        ({"PROBES": '[{"name": "tax", "kind": "oracle", "target": "x"}]'}, "no probe of that kind"),
        ({"PROBES": '[{"name": "redis", "kind": "redis", "target": "redis://x"}]'}, "the name is taken"),
        (
            {"PROBES": '[{"name": "tax", "kind": "redis", "target": "redis://x", "timeout": 7}]'},
            "timeout longer than interval",
        ),
        ({"PROBES": "{"}, "must be a JSON list"),
        ({"DATABASE_URL": "postgresql://h:99999/x"}, "must be a URL"),
        ({"REDIS_URL": "http://cache"}, "must be a URL that starts with redis://"),
    ],
)
def test_what_cannot_be_is_said(given_: dict[str, str], said: str) -> None:
    assert [fault for fault in faults(**given_) if said in fault]


def test_a_fault_of_one_setting_is_not_told_again_as_a_contradiction_with_others() -> None:
    assert len(faults(STOP_GRACE_PERIOD="soon")) == 1


def test_probes_are_discovered_by_their_files() -> None:
    assert {"postgres", "redis", "disk", "workers"} <= probe_kinds()


def test_an_empty_variable_counts_as_not_given() -> None:
    assert load(REDIS_URL="", WORKERS="").redis_url is None


def test_what_is_shown_of_the_effective_settings_holds_no_secret() -> None:
    shown = effective_settings({"DATABASE_URL": URL, "SUPERVISOR_TOKEN": "t" * 20}, env_file=None)
    values = {one.name: one.value for one in shown}
    assert values["DATABASE_URL"] == values["SUPERVISOR_TOKEN"] == MASK
    assert values["REDIS_URL"] == ""
    assert values["WORKERS"] == "4"
    assert "correct-horse" not in repr(shown) + repr(load())


NUMBERS = st.one_of(st.integers(-10, 100_000).map(str), st.floats().map(str), st.text(max_size=5))
ANY = st.fixed_dictionaries(
    {},
    optional={
        "ENVIRONMENT": st.sampled_from([*PROFILES, "holiday"]),
        "DATABASE_URL": st.one_of(st.just(URL), st.text(max_size=20)),
        "REDIS_URL": st.one_of(st.just("redis://:pepper-mill@cache/0"), st.text(max_size=20)),
        "SUPERVISOR_TOKEN": st.text(max_size=30),
        "LOG_LEVEL": st.one_of(st.sampled_from(["info", "DEBUG"]), st.text(max_size=8)),
        "PROBES": st.one_of(st.just("[]"), st.text(max_size=20)),
        **dict.fromkeys(
            ["PORT", "SUPERVISOR_PORT", "WORKERS", "PROBE_INTERVAL", "PROBE_TIMEOUT", "DRAIN_DELAY"], NUMBERS
        ),
        **dict.fromkeys(["GRACEFUL_TIMEOUT", "STOP_GRACE_PERIOD", "DISK_WARN_BYTES", "PROBE_RISE"], NUMBERS),
    },
)


@pytest.mark.property("P3")
@settings(max_examples=300)
@given(ANY)
def test_any_environment_gives_valid_settings_or_names_every_fault(environ: dict[str, str]) -> None:
    try:
        told = load_settings(environ, env_file=None)
    except ConfigurationError as error:
        named = {fault.split(":")[0].split("=")[0] for fault in error.faults}
        assert named <= {name.upper() for name in Settings.model_fields}
        for name in SECRETS:
            value = environ.get(name.upper(), "")
            assert len(value) < 8 or value not in str(error)
        # each one alone, beside nothing but a good database, is a fault of its own or was none
        for name, value in environ.items():
            if name != "DATABASE_URL" and _alone_is_wrong(name, value, environ.get("ENVIRONMENT")):
                assert name in named, (name, error.faults)
    else:
        assert told.probe_timeout <= told.probe_interval
        assert told.drain_delay + told.graceful_timeout < told.stop_grace_period
        profile: dict[str, Any] = dict(PROFILES[told.environment])
        for name, value in profile.items():
            if not environ.get(name.upper()):
                assert str(getattr(told, name)) in (value, f"{value}.0")


def _alone_is_wrong(name: str, value: str, environment: str | None) -> bool:
    try:
        Settings(**{"database_url": URL, name.lower(): value} if value else {"database_url": URL})  # type: ignore[arg-type]
    except ValueError:
        return True
    return False
