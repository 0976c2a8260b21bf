"""The whole judgement, as tables and as a property over any history of readings."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.policy import (
    LEVELS,
    Criticality,
    Finding,
    Outcome,
    Reading,
    Rule,
    Standing,
    Status,
    decide,
    expire,
    next_pause,
    quorum,
    restart_pause,
    warmed,
    weigh,
)

LETTERS: dict[str, Outcome] = {"H": "healthy", "D": "degraded", "U": "unhealthy"}


def after(readings: str, rule: Rule | None = None, start: Status = "unknown") -> Standing:
    """What is held to be true after one reading a second."""
    standing = Standing(rule or Rule("database"), start)
    for second, letter in enumerate(readings):
        standing = weigh(standing, Reading(Finding(LETTERS[letter], "because"), float(second)))
    return standing


@pytest.mark.parametrize(
    ("readings", "status"),
    [
        ("", "unknown"),
        ("H", "unknown"),
        ("HH", "healthy"),
        ("UU", "unknown"),
        ("UUU", "unhealthy"),
        ("HUHUHU", "unknown"),
        ("HHUU", "healthy"),
        ("HHUUU", "unhealthy"),
        ("HHUUHUU", "healthy"),
        ("HHUUUH", "unhealthy"),
        ("HHUUUHH", "healthy"),
        ("HHUUUHUH", "unhealthy"),
        ("DD", "degraded"),
        ("DH", "degraded"),
        ("HHDDD", "degraded"),
        ("HHDDUUU", "unhealthy"),
        ("HHDUU", "degraded"),
        ("HHUUUDD", "degraded"),
        ("HHDDDHH", "healthy"),
    ],
)
def test_a_status_moves_after_two_better_readings_in_a_row_or_three_worse(readings: str, status: Status) -> None:
    assert after(readings).status == status


def test_since_is_when_the_status_moved_and_not_when_it_was_last_confirmed() -> None:
    assert after("HHHHH").since == 1.0
    assert after("HHHUUU").since == 5.0


def test_a_check_that_falls_silent_is_unknown_and_must_rise_again() -> None:
    healthy = after("HH")
    silent = expire(healthy, 1.0 + healthy.rule.stale_after + 0.1)
    assert (healthy.status, silent.status) == ("healthy", "unknown")
    once = weigh(healthy, Reading(Finding("healthy"), 1000.0))
    assert once.status == "unknown"
    assert weigh(once, Reading(Finding("healthy"), 1001.0)).status == "healthy"


def test_the_slowest_pause_between_two_answers_is_not_silence() -> None:
    for interval in (0.5, 1, 5, 60):
        rule = Rule("database", interval=interval, timeout=min(1, interval))
        slowest = next_pause(Standing(rule, "unhealthy", recent=("unhealthy",) * 3), hurry=False, spread=1.0)
        assert slowest + rule.timeout < rule.stale_after


def test_a_check_that_is_not_configured_counts_for_nothing_and_never_changes() -> None:
    disabled = Standing(Rule("redis"), "disabled")
    assert weigh(disabled, Reading(Finding("unhealthy"), 1.0)) == disabled
    assert decide([disabled], 1e9).ready


@pytest.mark.parametrize(
    ("criticality", "readings", "status", "ready"),
    [
        ("critical", "HH", "healthy", True),
        ("critical", "DD", "degraded", True),
        ("critical", "UUU", "unhealthy", False),
        ("critical", "", "unhealthy", False),
        ("degrading", "HH", "healthy", True),
        ("degrading", "DD", "degraded", True),
        ("degrading", "UUU", "degraded", True),
        ("degrading", "", "degraded", True),
        ("info", "UUU", "healthy", True),
        ("info", "DD", "healthy", True),
        ("info", "", "healthy", True),
    ],
)
def test_what_a_check_does_to_the_pod(criticality: Criticality, readings: str, status: Status, ready: bool) -> None:
    verdict = decide([after("HH", Rule("other")), after(readings, Rule("redis", criticality))], 5.0)
    assert (verdict.status, verdict.ready) == (status, ready)


def test_the_reason_is_said_in_words_with_the_error_for_some_and_without_for_others() -> None:
    verdict = decide([after("UUU", Rule("database")), after("HH", Rule("redis"))], 3.0)
    assert verdict.reason == "database is unhealthy: because"
    assert verdict.words == "database is unhealthy"
    assert decide([after("", Rule("database"))], 0).reason == "database is unknown: it has not answered yet"
    assert decide([after("HH", Rule("database"))], 101.0).reason == "database is unknown: no answer for 100 s"
    assert decide([after("H", Rule("database"))], 1.0).reason == "database is unknown: too few answers to tell"
    assert decide([after("HH")], 1.0).reason == "every check that counts is healthy"
    assert decide([], 1.0).ready


def test_a_first_failure_is_looked_into_at_once_and_a_long_one_at_leisure() -> None:
    usual = next_pause(after("HHHH"), hurry=False, spread=0.5)
    assert next_pause(after("HHU"), hurry=False, spread=0.5) < usual / 3
    assert next_pause(after("HHUUU"), hurry=False, spread=0.5) > usual
    assert next_pause(after("HHUUUH"), hurry=False, spread=0.5) < usual / 3
    assert next_pause(after(""), hurry=False, spread=1) <= 0.25
    assert next_pause(after("UUU"), hurry=True, spread=1) < 1
    spread = {next_pause(after("UUU"), hurry=False, spread=share / 10) for share in range(11)}
    assert len(spread) == 11


@pytest.mark.parametrize(("workers", "needed"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (16, 8)])
def test_half_of_the_workers_rounded_up_are_enough(workers: int, needed: int) -> None:
    assert quorum(workers) == needed
    serving = {"gate": "open", "breaker": "closed"}
    assert warmed([serving] * needed, workers)
    assert not warmed([serving] * (needed - 1), workers)
    assert not warmed([serving] * (needed - 1) + [{"gate": "closed", "breaker": "closed"}] * workers, workers)
    assert not warmed([serving] * (needed - 1) + [{"gate": "open", "breaker": "half_open"}] * workers, workers)
    statuses = [Finding.from_quorum(answering, workers).status for answering in range(workers + 1)]
    assert statuses == sorted(statuses, key=LEVELS.__getitem__)
    assert statuses.index("healthy") == workers
    assert statuses.count("unhealthy") == needed


def test_a_worker_that_speaks_of_no_gate_or_breaker_has_none_to_open() -> None:
    assert warmed([{}], 1)


@pytest.mark.parametrize(("free", "status"), [(0, "unhealthy"), (9, "unhealthy"), (10, "degraded"), (20, "healthy")])
def test_thresholds(free: int, status: Outcome) -> None:
    finding = Finding.from_thresholds(free, warn=20, fail=10)
    assert finding.status == status
    assert (finding.error is None) == (status == "healthy")
    assert finding.facts["free"] == free


def test_restarts_begin_after_a_second_and_never_wait_longer_than_a_minute() -> None:
    pauses = [restart_pause(failures, spread=1.0) for failures in range(1, 12)]
    assert pauses[0] == 1.0
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60.0
    assert all(restart_pause(failures, spread=0.0) >= 1.0 for failures in range(12))


steps = st.lists(
    st.tuples(
        st.sampled_from(["database", "redis", "disk_space", "workers"]),
        st.sampled_from(["healthy", "degraded", "unhealthy", None]),
        st.floats(0, 30),
    ),
    max_size=80,
)
rules = st.builds(
    Rule,
    name=st.just("check"),
    criticality=st.sampled_from(["critical", "degrading", "info"]),
    interval=st.floats(0.1, 10),
    rise=st.integers(1, 5),
    fall=st.integers(1, 5),
)


@pytest.mark.property("P4")
@settings(max_examples=300)
@given(st.tuples(rules, rules, rules, rules), steps)
def test_never_ready_while_a_critical_check_is_down_or_unknown_and_no_move_without_rise_or_fall(
    given_rules: tuple[Rule, ...], history: list[tuple[str, Outcome | None, float]]
) -> None:
    names = ["database", "redis", "disk_space", "workers"]
    standings = {
        name: Standing(Rule(name, rule.criticality, rule.interval, 1.0, rule.rise, rule.fall))
        for name, rule in zip(names, given_rules, strict=True)
    }
    answers: dict[str, list[tuple[float, Outcome]]] = {name: [] for name in names}
    now = 0.0
    for name, outcome, waited in history:
        now += waited
        before = expire(standings[name], now)
        if outcome is not None:
            standings[name] = weigh(standings[name], Reading(Finding(outcome), now))
            answers[name].append((now, outcome))
        _moved_by_right(before, expire(standings[name], now), [told for _, told in answers[name]])
        _told_truly(decide(standings.values(), now).ready, standings, answers, now)


def _moved_by_right(before: Standing, after: Standing, told: list[Outcome]) -> None:
    if after.status == before.status:
        return
    assert after.status != "unknown", "only silence makes a check unknown"
    better = before.status == "unknown" or LEVELS[after.status] > LEVELS[before.status]  # type: ignore[index]
    rule = after.rule
    if after.status == "unhealthy":
        assert told[-rule.fall :] == ["unhealthy"] * rule.fall
    elif better:
        assert len(told) >= rule.rise and all(LEVELS[one] >= LEVELS[after.status] for one in told[-rule.rise :])  # type: ignore[index]
    else:
        assert len(told) >= rule.fall and all(LEVELS[one] <= LEVELS[after.status] for one in told[-rule.fall :])  # type: ignore[index]


def _told_truly(
    ready: bool, standings: dict[str, Standing], answers: dict[str, list[tuple[float, Outcome]]], now: float
) -> None:
    for name, standing in standings.items():
        if standing.rule.criticality != "critical":
            continue
        last = answers[name][-1][0] if answers[name] else -math.inf
        silent = now - last > standing.rule.stale_after
        down = [told for _, told in answers[name][-standing.rule.fall :]] == ["unhealthy"] * standing.rule.fall
        assert not (ready and (silent or down)), name
        assert not (ready and expire(standing, now).status in ("unhealthy", "unknown"))
