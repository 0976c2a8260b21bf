"""`make bench`: ours, bare aiohttp and a FastAPI peer, side by side in one run on this machine; ratios, not promises."""
