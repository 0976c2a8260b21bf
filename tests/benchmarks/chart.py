"""The requests a second of the last run as bars, for the README."""

from pathlib import Path
from typing import Any

COLOURS = {"ours": "#2f6f4f", "bare aiohttp": "#9aa5a0", "FastAPI peer": "#c98b2b"}


def draw(kept: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bookstore"  # the same run draws the same bytes
    from matplotlib import pyplot

    groups: dict[str, dict[str, float]] = {}
    for row in kept["rows"]:
        if row["unit"] == "requests/s" and row["against"] in ("", *COLOURS):
            group = groups.setdefault(row["what"], {"ours": row["ours"]})
            if row["other"]:
                group[row["against"]] = row["other"]
    bars = [(what, name, rate) for what, group in groups.items() for name, rate in group.items()]
    figure, axes = pyplot.subplots(figsize=(8, 0.34 * len(bars) + 1.2))
    labels = [name if name != "ours" else f"{what}  ·  ours" for what, name, _ in bars]
    drawn = axes.barh(range(len(bars)), [rate for _, _, rate in bars], color=[COLOURS[name] for _, name, _ in bars])
    axes.bar_label(drawn, labels=[f"{rate:,.0f}" for _, _, rate in bars], padding=4, fontsize=8)
    axes.set_yticks(range(len(bars)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("requests a second, one process on one core", fontsize=10, loc="left")
    axes.set_xlabel(kept["machine"], fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
