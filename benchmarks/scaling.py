"""How the cost of a candidate grows with the number of units, and time and memory with that of candidates.

    python -m benchmarks scaling --networks FOLDER --out RESULTS --units 128 256 512 1024 --candidates 256 1024 4096

searches the planted networks (`benchmarks.networks`): each of --units with K = 1,024, and the one of --at units with
each of --candidates. Every search has its own process, so the peak memory is its own; cases in RESULTS/raw are not
repeated. RESULTS/scaling.json holds the rows and the exponents: the slope of log(time per candidate) over
log(n_hidden), and of log(time) over log(K), by least squares.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import engine, sides
from jaxfp import io


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and fit.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=sides.NAMES, default="jaxfp", metavar="SIDE")
    parser.add_argument("--units", nargs="*", type=int, default=[128, 256, 512, 1024, 2048])
    parser.add_argument("--at", type=int, default=256, help="units where K grows (default: %(default)s)")
    parser.add_argument("--candidates", nargs="*", type=int, default=[256, 1024, 4096, 16384, 65536])
    parser.add_argument("--per-units", type=int, default=1024, help="K where the units grow (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmark_results"), metavar="RESULTS")
    sides.add_options(parser)
    arguments = parser.parse_args(argv)
    run = engine.new_run()

    def rows(cases: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        found = []
        for n_units, k in cases:
            options = sides.options_of(arguments, k)
            row = engine.measured(f"planted{n_units}", arguments.side, options, arguments.out, run)
            if "missing" not in row:
                found.append(row | {"per_candidate_s": row["warm_median_s"] / k})
            print(json.dumps({key: row.get(key) for key in ("network", "k", *_COLUMNS, "missing")}), flush=True)
        return found

    by_units = rows([(n, arguments.per_units) for n in arguments.units])
    by_k = rows([(arguments.at, k) for k in arguments.candidates])
    exponents = {
        "per_candidate_with_n_hidden": exponent(by_units, "n_hidden", "per_candidate_s"),
        "with_k": exponent(by_k, "k", "warm_median_s"),
    }
    print(json.dumps(exponents))
    io.save_json(
        arguments.out / "scaling.json",
        {
            "side": arguments.side,
            "exponents": exponents,
            "by_units": by_units,
            "by_candidates": by_k,
            **io.environment(),
        },
    )


_COLUMNS = ("warm_median_s", "warm_spread_s", "first_s", "n_repeats", "memory_delta_mib", "memory_peak_mib")


def exponent(rows: Sequence[dict[str, Any]], x: str, y: str) -> float | None:
    """Slope of log y over log x, least squares.

    Args:
      rows: with both columns.
      x: name of a column.
      y: name of a column.

    Returns:
      The slope, None from fewer than two different x.
    """
    if len({row[x] for row in rows}) < 2:
        return None
    return float(np.polyfit(np.log([row[x] for row in rows]), np.log([row[y] for row in rows]), 1)[0])


if __name__ == "__main__":
    main()
