"""gunicorn's configuration, and the coroutine it calls in each worker.

    gunicorn -c python:bookstore.server bookstore.server:application

The master imports no more of ours than this file, the settings and the logs; each worker drops even those before it
imports the application, so that HUP starts workers on the code that is on the disk now.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib
import logging
import math
import os
import sys
from typing import TYPE_CHECKING, Any

from gunicorn.glogging import Logger

from bookstore.logs import configure_logging
from bookstore.settings import ConfigurationError, Settings, load_settings

if TYPE_CHECKING:
    from aiohttp import web


def _settings_or_exit() -> Settings:
    try:
        return load_settings()
    except ConfigurationError as refused:
        print(refused, file=sys.stderr)  # noqa: T201 - there are no settings to log by
        sys.exit(refused.exit_status)


class GunicornLog(Logger):  # type: ignore[misc]
    """gunicorn's loggers write where everything else does."""

    def setup(self, cfg: Any) -> None:
        for each in (self.error_log, self.access_log):
            each.handlers, each.propagate = [], True
        self.error_log.setLevel(logging.INFO)

    def info(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        # At every stop: the loop has closed the listening socket by the time gunicorn closes it too.
        if not (str(msg).startswith("Error while closing socket") and f"[Errno {errno.EBADF}]" in str(args)):
            super().info(msg, *args, **kwargs)


def post_fork(_arbiter: Any, _worker: Any) -> None:
    """Forget our modules as the master knew them: the worker imports them anew.

    Settings that broke since the master started (a secret's file, say) are a failed boot, which stops the master. Found
    later, at the import of this file, they would end the worker with 78, and gunicorn would start it again for ever.
    """
    for name in [name for name in sys.modules if name == "bookstore" or name.startswith("bookstore.")]:
        del sys.modules[name]
    importlib.import_module("bookstore.settings").load_settings()


async def application() -> web.AppRunner:
    """What a worker serves."""
    from bookstore.app import create_runner

    settings = load_settings()
    configure_logging(settings)
    asyncio.get_running_loop().set_exception_handler(_log_loop_error)
    runner = create_runner(
        settings,
        keepalive_timeout=keepalive,
        shutdown_timeout=settings.graceful_timeout * 0.95,
        logger=logging.getLogger("aiohttp.server"),
    )
    gc.collect()
    gc.freeze()  # what was imported is no garbage: the collector need not look through it again
    return runner


def _log_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    raised = context.get("exception")
    if type(raised).__name__ == "QueryCanceledError":  # aiopg reports here what the query's caller is told anyway
        return
    logging.getLogger("asyncio").error("%s", context.get("message", "unhandled"), exc_info=raised)


_settings = _settings_or_exit()
configure_logging(_settings)
_settings.runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

bind = [f"{_settings.host}:{_settings.port}"]
workers = _settings.workers
worker_class = "aiohttp.GunicornUVLoopWebWorker"
graceful_timeout = math.ceil(_settings.graceful_timeout)
timeout = graceful_timeout + 10  # a worker that stops gracefully beats no more: a shorter one aborts it
keepalive = 75  # longer than a balancer keeps an idle connection, so that it is never us who hang up
max_requests = 0  # recycling workers drops connections (aiohttp#8212)
preload_app = False
pidfile = str(_settings.runtime_dir / "gunicorn.pid")
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - heartbeats must not touch a disk
logger_class = GunicornLog
accesslog = None
proc_name = "bookstore"
