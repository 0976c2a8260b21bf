"""How a pod comes up: gated until migrated, once for all pods, whoever is killed in the middle."""

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from tests.conftest import MIGRATIONS, Databases
from tests.supervisor.migration_folders import ask, is_sleeping, write
from tests.system.pod import SMALL, Pod, get

pytestmark = pytest.mark.system

PodBuilder = Callable[..., Pod]
APPLIED = "SELECT migration_id, count(*) FROM _yoyo_log GROUP BY 1 ORDER BY 1"
SLOW_WHEN_ASKED = """
    CREATE TABLE last (id int);
    SELECT CASE WHEN to_regclass('be_slow') IS NOT NULL THEN pg_sleep(60) END;
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project's migrations, to add to."""
    return shutil.copytree(MIGRATIONS, tmp_path / "migrations")


@pytest.fixture
def migrations_held(empty_database_url: str) -> Iterator[psycopg2.extensions.connection]:
    """The migrator's lock in other hands, until this is closed."""
    holder = psycopg2.connect(empty_database_url)
    holder.cursor().execute("SELECT pg_advisory_lock(%s, 1)", (0x796F796F,))
    yield holder
    holder.close()


def ids() -> list[str]:
    return sorted(path.stem for path in MIGRATIONS.glob("*.sql") if not path.name.endswith(".rollback.sql"))


def test_beside_its_supervisor_an_api_answers_503_until_the_database_is_migrated(
    pod: PodBuilder, empty_database_url: str
) -> None:
    one = pod(empty_database_url)
    one.start_service()
    one.wait_until(lambda: one.api("/health/live").status == 200, "the API is alive")

    assert one.api("/health/ready").status == 503
    refused = one.api()
    assert (refused.status, refused.json["error"]) == (503, "not_ready")
    assert int(refused.headers["Retry-After"]) >= 1

    one.start_supervisor()
    one.wait_until_ready()
    one.wait_until(lambda: one.api("/health/ready").status == 200, "the API itself says that it is ready")
    assert one.api().status == 200


def test_as_a_parent_the_supervisor_keeps_the_port_closed_until_the_database_is_migrated(
    pod: PodBuilder, empty_database_url: str, migrations_held: psycopg2.extensions.connection
) -> None:
    one = pod(empty_database_url)
    one.start()
    one.wait_for_phase("migrating")
    one.wait_until(lambda: "another migrator is at work" in one.output, "it says whom it waits for")

    assert one.api("/health/live").status is None
    assert one.supervisor("/health/live").status == 200
    assert one.supervisor("/health/startup").status == one.supervisor("/health/ready").status == 503

    migrations_held.close()
    one.wait_until_ready()
    assert one.api().status == 200
    assert one.supervisor("/health/startup").status == 200


def test_two_pods_on_one_empty_database_both_become_ready_and_each_migration_ran_once(
    pod: PodBuilder, postgres: Databases, empty_database_url: str
) -> None:
    both = [pod(empty_database_url) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.wait_until_ready()
        assert one.api().status == 200
    assert ask(empty_database_url, APPLIED) == [(id_, 1) for id_ in ids()]


@pytest.mark.timeout(400)
def test_twenty_times_two_pods_on_an_empty_database(pod: PodBuilder, postgres: Databases) -> None:
    """With a service that is quick to start: what is tested is the two supervisors and their migrators."""
    together = threading.Semaphore(4)  # rounds at a time: much of each is waiting
    wrong: list[object] = []

    def a_round() -> None:
        with together:
            url = postgres.create()
            both = [pod(url, service=SMALL) for _ in range(2)]
            try:
                for one in both:
                    one.start()
                for one in both:
                    one.wait_until_ready()
                if (ran := ask(url, APPLIED)) != [(id_, 1) for id_ in ids()]:
                    wrong.append(ran)
            except BaseException as error:
                wrong.append(error)
            for one in both:
                one.remove()
            postgres.drop(url)

    rounds = [threading.Thread(target=a_round) for _ in range(20)]
    for thread in rounds:
        thread.start()
    for thread in rounds:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("victim", ["supervisor", "migrator"])
def test_kill_9_in_the_middle_of_a_migration_and_the_pod_still_comes_up(
    pod: PodBuilder, empty_database_url: str, folder: Path, victim: str
) -> None:
    write(folder, _9999_last=SLOW_WHEN_ASKED)
    ask(empty_database_url, "CREATE TABLE be_slow ()")
    one = pod(empty_database_url, service=SMALL, migrations_dir=folder)
    supervisor = one.start()
    one.wait_until(lambda: is_sleeping(empty_database_url), "the migration is in its middle")
    if victim == "supervisor":
        supervisor.kill()
        supervisor.wait()
        one.wait_until(lambda: not one.processes(), "nothing is left of the pod")
        ask(empty_database_url, "DROP TABLE be_slow")
        one.start()
    else:
        ask(empty_database_url, "DROP TABLE be_slow")
        (migrator,) = one.processes() - {supervisor.pid}
        one.run(["kill", "-9", str(migrator)])
        one.wait_until(lambda: "was ended by SIGKILL" in one.output, "the supervisor says what happened")

    one.wait_until_ready()
    assert ask(empty_database_url, APPLIED) == [*((id_, 1) for id_ in ids()), ("9999.last", 1)]


def test_a_broken_migration_is_told_everywhere_and_nothing_is_served_until_it_is_mended(
    pod: PodBuilder, empty_database_url: str, folder: Path
) -> None:
    write(folder, _9999_last="ALTER TABLE no_such_shelf ADD COLUMN x int;")
    one = pod(empty_database_url, migrations_dir=folder, supervisor_token="a-token-of-the-tests")
    one.start()
    one.wait_for_phase("migration_failed")

    assert one.supervisor().status == one.supervisor("/health/startup").status == 503
    assert one.supervisor("/health/live").status == 200
    assert one.api("/health/live").status is None
    assert any("9999.last" in line["message"] and "no_such_shelf" in line["message"] for line in one.log())
    status = get(one.supervisor_port, "/status", {"Authorization": "Bearer a-token-of-the-tests"}).json
    assert "no_such_shelf" in str(status)
    assert "no_such_shelf" not in one.supervisor("/status").text  # to others, words

    write(folder, _9999_last="SELECT 1;")
    one.wait_until_ready()
    assert one.api().status == 200


@pytest.mark.parametrize("phase", ["waiting_for_database", "migrating"])
def test_told_to_stop_before_it_serves_a_pod_ends_at_once_and_leaves_nothing(
    pod: PodBuilder, empty_database_url: str, folder: Path, phase: str
) -> None:
    write(folder, _9999_last=SLOW_WHEN_ASKED)
    ask(empty_database_url, "CREATE TABLE be_slow ()")
    url = empty_database_url if phase == "migrating" else "postgresql://nobody@127.0.0.1:1/nowhere"
    one = pod(url, service=SMALL, migrations_dir=folder, graceful_timeout=60, stop_grace_period=90)
    supervisor = one.start()
    one.wait_for_phase(phase)
    if phase == "migrating":
        one.wait_until(lambda: is_sleeping(empty_database_url), "the migration is in its middle")
    supervisor.send_signal(signal.SIGTERM)

    assert supervisor.wait(timeout=20) == 0  # 2 s on a machine that does nothing else
    one.wait_until(lambda: not one.processes(), "nothing is left of the pod")
    assert ask(empty_database_url, "SELECT to_regclass('last')") == [(None,)]
