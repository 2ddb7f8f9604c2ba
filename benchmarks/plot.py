"""Plot of the results: bars of medians, with the lowest and the highest round."""

from pathlib import Path

import matplotlib

from benchmarks.lab import Lab

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "dabbawala"

from matplotlib import pyplot  # noqa: E402

SHOWN = (
    ("count and forward", "records/s", "Count and forward: records/s (log)", True),
    ("match", "us a match", "A match, by number of waiting drivers: us", False),
    ("whole flow with HTTP", "orders/s", "Whole flow with HTTP: orders/s", False),
    ("whole flow without HTTP", "CPU ms an order: worker", "Whole flow without HTTP: CPU ms an order", False),
    (
        "one restaurant hangs",
        "ms an order of another, p99",
        "Orders of other restaurants while one hangs: ms, p99",
        False,
    ),
    ("where an order's time goes", "us an order without HTTP", "Where an order's time goes, without HTTP: us", False),
)
WIDTH, ROW = 9.0, 0.32


def draw(lab: Lab, file: Path) -> None:
    """Draw a panel for each measured entry of `SHOWN`."""
    panels = [panel for panel in SHOWN if any((s.bench, s.of) == panel[:2] for s in lab.samples)]
    if not panels:
        return
    subjects = [list(dict.fromkeys(s.subject for s in lab.samples if (s.bench, s.of) == p[:2])) for p in panels]
    heights = [len(names) * ROW + 0.7 for names in subjects]
    figure, axes = pyplot.subplots(
        len(panels), 1, figsize=(WIDTH, sum(heights)), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axis, (bench, of, title, log), names in zip(axes[:, 0], panels, subjects, strict=True):
        medians = [lab.median(bench, name, of) for name in names]
        spread = [
            [m - min(lab.values(bench, name, of)) for m, name in zip(medians, names, strict=True)],
            [max(lab.values(bench, name, of)) - m for m, name in zip(medians, names, strict=True)],
        ]
        axis.barh(names, medians, xerr=spread, color="#3d7ea6", error_kw={"ecolor": "#888", "capsize": 2})
        axis.invert_yaxis()
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xscale("log" if log else "linear")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
