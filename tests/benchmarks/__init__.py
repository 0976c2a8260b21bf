"""`make bench`: ours beside bare aiohttp and a FastAPI peer, in one run on this machine; ratios, not promises."""
