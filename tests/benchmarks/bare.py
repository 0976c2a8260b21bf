"""The floor: aiohttp under the same gunicorn worker, returning bytes fetched from ours beforehand. No feature at all.

BARE_BODIES=FILE python -m gunicorn -k aiohttp.GunicornUVLoopWebWorker tests.benchmarks.bare:application
"""

import json
import os
from pathlib import Path

from aiohttp import web


async def application() -> web.Application:
    app = web.Application()
    for path, body in json.loads(Path(os.environ["BARE_BODIES"]).read_text()).items():
        app.router.add_get(path, _constant(body.encode()))
    return app


def _constant(body: bytes):
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return answer
