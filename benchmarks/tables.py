"""Tables and plots of what `python -m benchmarks engine` measured.

    python -m benchmarks tables RESULTS

prints one table for each network and K, with times relative to FixedPointFinder's search of the same run, and writes to
RESULTS: time_against_k.png, time_against_n_hidden.png (at the K most networks have) and work_against_precision.png
(time against the median q of the candidates' ends, in float64). --markdown prints the README's table instead.
"""

import argparse
import json
import pathlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
REFERENCE = "fpf"


def main(argv: Sequence[str] | None = None) -> None:
    """Print and plot.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--no-plots", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args(argv)
    rows = read_lines(arguments.results / "engine.jsonl")
    if arguments.markdown:
        print(markdown(rows))
        return
    console = Console(width=160)
    for name, k in sorted({(row["network"], row["k"]) for row in rows}):
        console.print(table([row for row in rows if (row["network"], row["k"]) == (name, k)]))
    if not arguments.no_plots:
        plot(rows, arguments.results)


def read_lines(path: pathlib.Path) -> list[Row]:
    """Rows of a file of JSON lines.

    Args:
      path: the file.

    Returns:
      Rows.

    Raises:
      ValueError: if there is no such file.
    """
    if not path.exists():
        raise ValueError(f"cannot read {path}: there is no such file; `python -m benchmarks engine` makes it.")
    return [json.loads(line) for line in path.read_text().splitlines()]


def ratio(row: Row, rows: Sequence[Row]) -> float | None:
    """How many times faster than FixedPointFinder's search a side is, warm medians of one run.

    Args:
      row: of the side.
      rows: among them the reference.

    Returns:
      The ratio, or None where the two were not measured in one run.
    """
    key = ("network", "k", "run", "device")
    same = [r for r in rows if r["side"] == REFERENCE and "missing" not in r and all(r[k] == row[k] for k in key)]
    return same[0]["warm_median_s"] / row["warm_median_s"] if same and "missing" not in row else None


def markdown(rows: Sequence[Row]) -> str:
    """README's table: our searches beside FixedPointFinder's, a line for each network.

    Args:
      rows: all.

    Returns:
      Markdown; in each cell warm seconds, true points found of those that any side found, spurious ones where there are
      some, and for ours how many times faster than FixedPointFinder at its example's settings.
    """
    shown = {
        "fpf": "FixedPointFinder",
        "fpf 0.01": "the same, rate 0.01",
        "jaxfp": "jaxfp",
        "jaxfp complete": "complete",
    }
    lines = [f"| network | {' | '.join(shown.values())} |", f"|---|{'---|' * len(shown)}"]
    ran = [row for row in rows if "missing" not in row]
    for name in sorted({row["network"] for row in ran}, key=lambda name: (name.strip("0123456789"), len(name), name)):
        here = {row["side"]: row for row in ran if row["network"] == name}
        lines.append(f"| {name} | {' | '.join(_cell(here.get(side), rows) for side in shown)} |")
    return "\n".join(lines)


def _cell(row: Row | None, rows: Sequence[Row]) -> str:
    if row is None:
        return ""
    text = f"{row['warm_median_s']:.2g} s, {row['n_found']}/{row['n_true']}"
    if row["n_spurious"]:
        text += f", {row['n_spurious']} spurious"
    faster = ratio(row, rows) if row["side"].startswith("jaxfp") else None
    return text if faster is None else f"{text}, {faster:.2g}x"


def table(rows: Sequence[Row]) -> Table:
    """One network at one K.

    Args:
      rows: of it, all sides.

    Returns:
      A rich table.
    """
    first = rows[0]
    devices = ", ".join(sorted({row["device"] for row in rows}))
    shown = Table(title=f"{first['network']}, {first['n_hidden']} units, K = {first['k']}, {devices}")
    for name in _COLUMNS:
        shown.add_column(name, justify="left" if name == "side" else "right")
    for row in sorted(rows, key=lambda row: row.get("warm_median_s", np.inf)):
        if "missing" in row:
            shown.add_row(row["side"], row["missing"])
            continue
        right = f"{row['inputs_right']}/{row['n_inputs']}" if "n_inputs" in row else f"{row['index_sum']:+d}"
        shown.add_row(
            row["side"], f"{row['first_s']:.2f}", f"{row['warm_median_s']:.3g}", f"{row['warm_spread_s']:.2g}",
            str(row["n_repeats"]), _text(ratio(row, rows), ".1f"), f"{row['memory_delta_mib']:.0f}",
            _text(row["lane_q"]["0.5"], ".0e"), _text(row["lane_q"]["1.0"], ".0e"),
            *(_text(row[f"share_{name}"], ".3f") for name in ("fixed", "slow", "lost")),
            f"{row['n_found']}/{row['n_true']}", str(row["n_spurious"]), right,
        )  # fmt: skip
    return shown


_COLUMNS = ("side", "first s", "warm s", "spread", "times", "/fpf", "MiB", "median q", "largest q", "FIXED", "SLOW",
            "lost", "found", "spurious", "index")  # fmt: skip


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def plot(rows: Sequence[Row], folder: pathlib.Path) -> None:
    """Write the three figures.

    Args:
      rows: all.
      folder: where to.
    """
    rows = [row for row in rows if "missing" not in row]
    if not rows:
        return
    usual = Counter(row["k"] for row in rows).most_common(1)[0][0]
    by_network = {f"{name}": [r for r in rows if r["network"] == name] for name in sorted({r["network"] for r in rows})}
    at_usual = [row for row in rows if row["k"] == usual]
    _figure(folder / "time_against_k.png", by_network, lambda r: r["k"], lambda r: r["warm_median_s"], "K", "warm s")
    by_family: dict[str, list[Row]] = {}  # tanh16 and tanh64 are of one, and a line between them says something
    for row in at_usual:
        by_family.setdefault(row["network"].rstrip("0123456789_"), []).append(row)
    _figure(
        folder / "time_against_n_hidden.png", by_family, lambda r: r["n_hidden"], lambda r: r["warm_median_s"],
        "n_hidden", f"warm s, K = {usual}",
    )  # fmt: skip
    _figure(
        folder / "work_against_precision.png",
        {name: [r for r in at_usual if r["network"] == name and r["lane_q"]["0.5"]] for name in by_network},
        lambda r: r["warm_median_s"], lambda r: r["lane_q"]["0.5"], "warm s", "median q",
    )  # fmt: skip


def _figure(
    path: pathlib.Path, panels: dict[str, list[Row]], x: Callable, y: Callable, xlabel: str, ylabel: str
) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    n_columns = min(len(panels), 4)
    n_rows = -(-len(panels) // n_columns)
    size = (3.5 * n_columns + 2, 3.2 * n_rows)
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    names = sorted({row["side"] for rows in panels.values() for row in rows})
    styles = {side: {"color": f"C{i % 10}", "marker": "osv^D"[i // 10 % 5]} for i, side in enumerate(names)}
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    for ax, (title, rows) in zip(axes.flat, panels.items(), strict=False):
        for side in sorted({row["side"] for row in rows}):
            dots = sorted((x(row), y(row)) for row in rows if row["side"] == side)
            ax.loglog(*zip(*dots, strict=True), label=side, **styles[side])
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
        ax.xaxis.set_minor_formatter(NullFormatter())  # they overlap where a panel spans less than a decade
    handles = [plt.Line2D([], [], label=side, **style) for side, style in styles.items()]
    figure.legend(handles=handles, loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
