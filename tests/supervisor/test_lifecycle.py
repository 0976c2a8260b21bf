"""Real supervisors over a service that is no bookshop: what it does as a parent, as a sidecar, and at the end."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from supervisor import processes
from supervisor.talk import ask
from tests.system.pod import SUPERVISOR, Answer, Pod, get

Build = Callable[..., Pod]


def status(pod: Pod) -> dict[str, Any]:
    return ask(pod.directory / "supervisor.sock", "/status")


def command(pod: Pod, path: str) -> dict[str, Any]:
    return ask(pod.directory / "supervisor.sock", path, method="POST", timeout=60)


def history(pod: Pod) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (pod.directory / "history.jsonl").read_text().splitlines()]


def phases(pod: Pod) -> list[str]:
    return [entry["to"] for entry in history(pod) if not entry["check"]]


def boots(pod: Pod) -> set[str]:
    return {path.stem for path in (pod.directory / "workers").glob("*.sock")}


def requests_total(pod: Pod) -> float:
    families = text_string_to_metric_families(pod.supervisor("/metrics").text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == "requests_total")


class Request(threading.Thread):
    """One under way."""

    def __init__(self, pod: Pod, path: str) -> None:
        super().__init__()
        self.pod, self.path, self.answer = pod, path, Answer(None)
        self.start()

    def run(self) -> None:
        self.answer = get(self.pod.port, self.path)


def read_state(pod: Pod) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((pod.directory / "supervisor.json").read_text())
    return state


def in_flight(pod: Pod) -> int:
    return sum(worker.get("in_flight", 0) for worker in status(pod)["workers"].values())


def test_a_pod_comes_up_in_order_serves_and_ends_without_losing_what_is_in_flight(pod: Build) -> None:
    one = pod(workers=2)
    supervisor = one.start()
    one.wait_until_ready()
    assert phases(one) == ["waiting_for_database", "migrating", "warming", "serving"]
    assert one.api("/").status == 200
    assert status(one)["schema"]["applied"] == ["0001.first"]
    one.wait_until(lambda: read_state(one)["ready"], "the file says so too: it is written a moment after the answer")
    state = read_state(one)
    assert (state["phase"], state["schema"]) == ("serving", {"applied": ["0001.first"]})
    assert set(state["checks"]) == {"database", "redis", "disk_space", "workers", "migrations"}
    assert state["checks"]["redis"]["status"] == "disabled"

    slow = Request(one, "/?seconds=1.5")
    one.wait_until(lambda: in_flight(one) == 1, "the request is in flight")
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(timeout=30) == 0
    slow.join()
    assert slow.answer.status == 200
    assert slow.answer.headers["Connection"] == "close"
    assert one.processes() == set()
    assert phases(one)[-2:] == ["draining", "stopped"]
    after_the_drain = history(one)[[entry["to"] for entry in history(one)].index("draining") :]
    assert [entry["check"] for entry in after_the_drain] == ["", ""], "that workers end when told to is no news"
    assert json.loads((one.directory / "supervisor.json").read_text())["phase"] == "stopped"
    assert not (one.directory / "supervisor.sock").exists()


def test_no_total_falls_when_a_worker_or_the_master_is_killed_and_the_cause_is_kept(pod: Build) -> None:
    one = pod(workers=2, probe_workers_interval=0.5)
    one.start()
    one.wait_until_ready()
    for _ in range(10):
        assert one.api("/").status == 200
    one.wait_until(lambda: requests_total(one) == 10, "the requests are counted")

    before = boots(one)
    victim = next(iter(status(one)["workers"].values()))["pid"]
    os.kill(victim, signal.SIGKILL)
    one.wait_until(
        lambda: len(boots(one) - before) == 1 and len(boots(one)) == 2, "its socket is gone, and it is replaced"
    )
    assert requests_total(one) == 10
    (ending,) = [entry for entry in history(one) if entry["check"] == "worker"]
    assert (ending["to"], f"worker {victim} (" in ending["reason"], "cause: unknown" in ending["reason"]) == (
        *("ended", True, True),
    )
    assert any(f"worker {victim} (" in line["message"] and line["level"] == "WARNING" for line in one.log())
    one.wait_until(
        lambda: 'worker_endings_total{cause="unknown"} 1' in one.supervisor("/metrics").text, "it is counted"
    )

    master = status(one)["service"]["pid"]
    os.kill(master, signal.SIGKILL)
    one.wait_until(lambda: "SIGKILL" in str(status(one)["service"].get("ending")), "its end is noticed")
    one.wait_until_ready()
    assert one.api("/").status == 200
    assert status(one)["service"]["restarts"] == 1
    assert any("was ended by SIGKILL" in entry["reason"] for entry in history(one))
    one.wait_until(lambda: requests_total(one) == 11, "totals go on from where they were")


def test_one_hung_worker_of_two_is_degraded_and_both_are_not_ready(pod: Build) -> None:
    one = pod(workers=2, probe_fall=2)
    one.start()
    one.wait_until_ready()
    one.wait_until(lambda: status(one)["status"] == "healthy", "both answer")  # half of them are enough to be ready
    first, second = (worker["pid"] for worker in status(one)["workers"].values())
    os.kill(first, signal.SIGSTOP)
    one.wait_until(lambda: status(one)["status"] == "degraded", "one hangs")
    assert one.supervisor().status == 200
    told = [worker.get("error", "") for worker in status(one)["workers"].values()]
    assert any("no answer within" in error for error in told), told
    os.kill(second, signal.SIGSTOP)
    one.wait_until(lambda: one.supervisor().status == 503, "both hang")
    for pid in (first, second):
        os.kill(pid, signal.SIGCONT)
    one.wait_until(lambda: status(one)["status"] == "healthy", "both answer again")
    assert one.supervisor().status == 200


def test_beside_a_serving_api_a_killed_supervisor_comes_back_without_a_moment_of_not_ready(pod: Build) -> None:
    one = pod()
    one.start_service()
    supervisor = one.start_supervisor()
    one.wait_until_ready()
    assert one.api("/").status == 200
    one.wait_until(lambda: requests_total(one) == 1, "the request is counted")
    supervisor.kill()
    supervisor.wait()
    seen = len(history(one))
    one.start_supervisor()
    one.wait_until(lambda: one.supervisor("/health/live").status == 200, "it lives again")
    assert one.supervisor().status == 200
    one.wait_until(lambda: status(one)["migration_seconds"] is not None, "it has looked at the database")
    assert one.supervisor().status == 200
    assert [entry["to"] for entry in history(one)[seen:]] == ["serving"]
    assert requests_total(one) == 1


def test_a_drain_goes_on_where_a_killed_supervisor_left_it_until_it_is_undone(pod: Build) -> None:
    one = pod()
    one.start_service()
    supervisor = one.start_supervisor()
    one.wait_until_ready()
    command(one, "/drain")
    one.wait_until(lambda: one.api("/").headers.get("Connection") == "close", "the worker has seen it")
    one.wait_until(lambda: status(one)["drain"]["step"] == "empty", "the drain is done")
    supervisor.kill()
    supervisor.wait()
    one.start_supervisor()
    one.wait_until(lambda: one.supervisor("/health/live").status == 200, "it lives again")
    assert (one.phase(), one.supervisor().status) == ("draining", 503)
    assert one.api("/").status == 200
    command(one, "/undrain")
    one.wait_until_ready()
    one.wait_until(lambda: "Connection" not in one.api("/").headers, "the worker keeps connections again")


def test_what_a_killed_supervisor_left_is_ended_before_the_next_start_and_a_stranger_is_not(pod: Build) -> None:
    one = pod()
    supervisor = one.start()
    one.wait_until_ready()
    before = boots(one)
    master = status(one)["service"]["pid"]
    os.kill(master, signal.SIGSTOP)  # so that it cannot follow its parent
    supervisor.kill()
    supervisor.wait()
    stranger = one.run([sys.executable, "-c", "import time; time.sleep(600)"])
    (one.directory / "gunicorn.pid").write_text(f"{stranger.pid}\n")

    one.start()
    one.wait_until_ready()
    assert one.api("/").status == 200
    assert not boots(one) & before
    left = processes.look_at(master)
    assert left is None or left.state == "Z"
    assert stranger.poll() is None
    assert any("session before this one" in line["message"] for line in one.log())


def test_a_service_that_ends_with_78_ends_the_supervisor_with_78(pod: Build) -> None:
    one = pod(service=[sys.executable, "-c", "raise SystemExit(78)"])
    assert one.start().wait(timeout=30) == 78
    assert any("configuration" in line["message"] for line in one.log())
    assert one.processes() == set()


def test_a_service_that_hangs_before_it_answers_is_started_again(pod: Build) -> None:
    one = pod(service=[sys.executable, "-c", "import time; time.sleep(600)"], boot_timeout=1)
    supervisor = one.start()
    one.wait_until(lambda: "no 1 workers answered within 1 s" in one.output, "the deadline is kept")
    one.wait_until(lambda: status(one)["service"]["restarts"] >= 2, "it is started again, and again")
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(timeout=20) == 0  # 2 s on a machine that does nothing else
    assert one.processes() == set()


def test_a_service_that_cannot_be_started_is_tried_again_and_the_reason_is_told(pod: Build) -> None:
    one = pod(service=["/no/such/program"])
    one.start()
    one.wait_until(lambda: "cannot be started: No such file" in one.output, "it says so")
    one.wait_until(lambda: status(one)["service"]["restarts"] >= 2, "it tries again")
    assert one.supervisor("/health/startup").status == 200


@pytest.mark.parametrize("how", ["signal", "socket"])
def test_reload_replaces_every_worker_after_migrating_and_stays_ready(pod: Build, how: str, tmp_path: Path) -> None:
    one = pod(workers=2)
    supervisor = one.start()
    one.wait_until_ready()
    (tmp_path / "migrations" / "0002.second.sql").write_text("CREATE TABLE lamp (id int);")
    before, answers, ended = boots(one), [], threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            answers.append(one.supervisor().status)

    balancer = threading.Thread(target=go_on)
    balancer.start()
    if how == "signal":
        supervisor.send_signal(signal.SIGHUP)
    else:
        assert command(one, "/reload")["done"]
    one.wait_until(lambda: not boots(one) & before and len(boots(one)) == 2, "the workers are new")
    ended.set()
    balancer.join()
    assert set(answers) == {200}
    one.wait_until(
        lambda: (
            [(e["from"], e["to"]) for e in history(one) if e["check"] == "service"]
            == [("serving", "reloading"), ("reloading", "serving")]
        ),
        "the reload is told, and its end",
    )
    assert not [entry for entry in history(one) if entry["check"] == "worker"], "the old ones left in order"
    assert status(one)["schema"]["applied"] == ["0001.first", "0002.second"]
    assert one.api("/").status == 200


def test_a_sidecar_reloads_by_a_pidfile_it_can_verify_and_else_says_why_not(pod: Build) -> None:
    one = pod()
    one.start_service()
    one.start_supervisor()
    one.wait_until_ready()
    before = boots(one)
    assert command(one, "/reload")["done"]
    one.wait_until(lambda: boots(one) and not boots(one) & before, "the workers are new")
    (one.directory / "gunicorn.pid").write_text(f"{os.getpid()}\n")
    assert "no gunicorn that can be seen" in command(one, "/reload")["message"]
    (one.directory / "gunicorn.pid").unlink()
    assert "no gunicorn.pid" in command(one, "/reload")["message"]


def test_a_second_signal_hurries_and_a_request_without_end_is_cut_at_the_deadline(pod: Build) -> None:
    one = pod(graceful_timeout=20)
    supervisor = one.start()
    one.wait_until_ready()
    endless = Request(one, "/?seconds=300")
    one.wait_until(lambda: in_flight(one) == 1, "the request is in flight")
    started = time.monotonic()
    supervisor.send_signal(signal.SIGTERM)
    one.wait_for_phase("draining")
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(timeout=60) == 0
    assert time.monotonic() - started < 18
    endless.join()
    assert endless.answer.status is None
    assert one.processes() == set()


def test_a_request_longer_than_the_deadline_does_not_keep_the_pod(pod: Build) -> None:
    one = pod(graceful_timeout=2)
    supervisor = one.start()
    one.wait_until_ready()
    endless = Request(one, "/?seconds=300")
    one.wait_until(lambda: in_flight(one) == 1, "the request is in flight")
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(timeout=20) == 0  # DRAIN_DELAY 0 + GRACEFUL_TIMEOUT 2 s, on a machine that does nothing else
    endless.join()
    assert endless.answer.status is None
    assert one.processes() == set()


def test_a_closed_terminal_ends_the_pod_and_leaves_nothing(pod: Build) -> None:
    one = pod(log_format="text")
    ours, theirs = pty.openpty()
    supervisor = one.run(
        [*SUPERVISOR, "--", *one.service],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    one.wait_until(lambda: _look_at(ours) and one.supervisor().status == 200, "the pod is ready")
    os.close(ours)
    assert supervisor.wait(timeout=30) == 0
    assert one.processes() == set()
    assert phases(one)[-2:] == ["draining", "stopped"]


def _look_at(terminal: int) -> bool:
    """Somebody must, or it fills up."""
    with contextlib.suppress(BlockingIOError):
        os.read(terminal, 65536)
    return True


def test_orphans_of_the_service_are_reaped(pod: Build) -> None:
    orphan = "import os, time; os.fork() or (os.fork() or os._exit(0), time.sleep(0.2), os._exit(0)); time.sleep(600)"
    one = pod(
        service=[sys.executable, "-c", orphan.replace("os.fork() or (", "os.fork() or (os.fork() and os._exit(0), ")]
    )
    supervisor = one.start()
    one.wait_for_phase("warming")
    zombie = lambda: {  # noqa: E731
        process.pid for process in processes.everybody() if process.parent == supervisor.pid and process.state == "Z"
    }
    one.wait_until(zombie, "an orphan ends")
    one.wait_until(lambda: not zombie(), "it is reaped")


def test_a_runtime_directory_deleted_under_a_pod_is_put_back(pod: Build) -> None:
    one = pod()
    one.start()
    one.wait_until_ready()
    for path in sorted(one.directory.glob("*.json*")):
        path.unlink()
    one.wait_until((one.directory / "supervisor.json").exists, "the state is there again")
    assert one.supervisor().status == 200


def test_a_taken_port_and_a_held_directory_are_faults_of_the_configuration(pod: Build) -> None:
    one = pod()
    one.start_supervisor()
    one.wait_until(lambda: one.supervisor("/health/live").status == 200, "it lives")
    second = one.start_supervisor()
    assert second.wait(timeout=30) == 78
    assert "is held by another supervisor" in one.output
    other = pod(supervisor_port=one.supervisor_port)
    assert other.start_supervisor().wait(timeout=30) == 78
    assert f"SUPERVISOR_PORT: {one.supervisor_port} cannot be had: Address already in use" in other.output


def test_every_fault_of_the_settings_is_told_before_anything_is_begun(pod: Build) -> None:
    one = pod(stop_grace_period=3, probes="[", port="many")
    assert one.start().wait(timeout=30) == 78
    for name in ("STOP_GRACE_PERIOD", "PROBES", "PORT"):
        assert name in one.output or name == "STOP_GRACE_PERIOD"
    assert not (one.directory / "supervisor.json").exists()
