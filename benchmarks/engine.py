"""Every side on every network from the same candidates: time, memory, and what was found.

    python -m benchmarks engine --networks FOLDER --out RESULTS --cases tanh64 --sides jaxfp fpf --fpf CHECKOUT

measures each case in a process of its own and keeps what it returned in RESULTS/raw; cases that are there already are
not repeated. Then it judges them (`benchmarks.truth`) and writes RESULTS/engine.jsonl, a line for each case; tables and
plots: `python -m benchmarks tables RESULTS`. `run` is the same for all that one command measured, back to back: only
times of one run are divided by each other.

A line: network, n_hidden, k, side, dtype, seed, run; first_s, warm_median_s, warm_spread_s, warm_s, memory (MiB);
lane_q, quantiles over the candidates in float64; share_fixed (their ends are within `truth.NEAR` of a true point; for
ours: their status), share_slow (only ours says), share_lost; n_searched (ours: candidates that had a turn); n_true of
all sides together, n_found, n_missed, n_spurious, index_sum (with inputs: inputs_right, at how many of n_inputs it is
+1), versions, device, date.
"""

import argparse
import json
import pathlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks import networks, sides, truth
from benchmarks.truth import Points
from jaxfp import io

QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and judge.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", nargs="+", choices=sorted(networks.SPECS), metavar="NETWORK", default=["tanh16", "tanh64"]
    )
    parser.add_argument("--sides", nargs="+", choices=sides.NAMES, metavar="SIDE", default=list(sides.NAMES))
    parser.add_argument("--candidates", nargs="+", type=int, default=[networks.N_CANDIDATES], metavar="K")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmark_results"), metavar="RESULTS")
    sides.add_options(parser)
    arguments = parser.parse_args(argv)
    run = new_run()
    for name in arguments.cases:
        for k in arguments.candidates:
            for side in arguments.sides:
                row = measured(name, side, sides.options_of(arguments, k), arguments.out, run)
                shown = ("network", "k", "side", "first_s", "warm_median_s", "n_repeats", "memory_delta_mib", "missing")
                print(json.dumps({key: row[key] for key in shown if key in row}), flush=True)
    judge_all(arguments.out, arguments.networks)


def new_run() -> str:
    """Name of the measurements that one command makes."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def measured(name: str, side: str, options: sides.Options, out: pathlib.Path, run: str) -> dict[str, Any]:
    """The row of a case, measured now unless it is there.

    Args:
      name: of the network.
      side: one of `sides.NAMES`.
      options: how.
      out: folder of results.
      run: see `new_run`.

    Returns:
      Row, JSON-like, not judged yet. A side that could not run has `missing`, and is tried again the next time.
    """
    stem = f"{name}_{options.n_candidates}_{options.dtype}_{side.replace(' ', '-')}"
    path = out / "raw" / f"{stem}.json"
    if path.exists():
        row = json.loads(path.read_text())
        if "missing" not in row:
            return row
    network = networks.load(name, pathlib.Path(options.folder), options.n_candidates)
    row = {
        "network": name,
        "n_hidden": network.candidates.shape[1],
        "k": options.n_candidates,
        "side": side,
        "dtype": options.dtype,
        "seed": 0,
        "run": run,
        **io.environment(),
    }
    numbers, arrays = sides.measure(name, side, options)
    # what a process says of itself replaces what this one says; versions of both are kept
    row |= numbers | {"versions": row["versions"] | numbers.get("versions", {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    if arrays:
        np.savez(path.with_suffix(".npz"), **_reduced(network, arrays))
    io.save_json(path, row)
    return row


def _reduced(network: networks.Network, arrays: dict[str, Any]) -> dict[str, Any]:
    """Lanes to distinct ends with how many came there, and their q in float64."""
    kept = {name: array for name, array in arrays.items() if name not in ("lanes", "reported")}
    lanes = arrays.get("lanes")
    if lanes is not None:
        inputs = network.inputs
        ends = Points(lanes.astype(np.float64), None if inputs is None else inputs.astype(np.float64))
        kept["lane_q"] = truth.q_of(network, ends)
        finite = np.isfinite(kept["lane_q"])
        order = np.flatnonzero(finite)[np.argsort(kept["lane_q"][finite], kind="stable")]  # the best one stands for all
        reported = arrays.get("reported", np.ones(len(lanes), bool))[order]
        ends = truth.take(ends, order)
        label = truth.merge(ends, np.full(len(order), truth.NEAR * lanes.shape[1] ** 0.5))
        firsts, hits = np.unique(label, return_counts=True)
        told = np.isin(firsts, label[reported])
        distinct = truth.take(ends, firsts)
        kept |= {"ends": distinct.hidden, "end_inputs": distinct.inputs, "end_hits": hits}
        if "points" not in kept:
            kept |= {"points": distinct.hidden[told], "point_inputs": truth.take(distinct, told).inputs}
    return {name: array for name, array in kept.items() if array is not None and array.dtype != object}


def judge_all(out: pathlib.Path, folder: pathlib.Path | None) -> list[dict[str, Any]]:
    """Judge what lies in `out`/raw and write `out`/engine.jsonl.

    Args:
      out: folder of results.
      folder: of the networks.

    Returns:
      The lines.
    """
    rows = [json.loads(path.read_text()) | {"path": path} for path in sorted((out / "raw").glob("*.json"))]
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["network"], row["k"]), []).append(row)
    judged = []
    for (name, k), group in sorted(groups.items()):
        there = [row for row in group if "missing" not in row]
        network = networks.load(name, folder, k) if there else None
        arrays = [dict(np.load(row["path"].with_suffix(".npz"))) for row in there]
        verdicts = iter(judge(network, arrays, k) if network else ())
        judged += [row | ({} if "missing" in row else next(verdicts)) for row in group]
    lines = [{key: value for key, value in row.items() if key != "path"} for row in judged]
    write_lines(out / "engine.jsonl", lines)
    return lines


def write_lines(path: pathlib.Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, whole or not at all."""
    text = "".join(json.dumps(io.plain(row)) + "\n" for row in rows)
    io.write_whole(path, lambda file: file.write(text.encode()))


def judge(network: networks.Network, sides_arrays: Sequence[dict[str, Any]], k: int) -> list[dict[str, Any]]:
    """What each side found of all that is true.

    Args:
      network: whose points.
      sides_arrays: what `measured` kept of each side.
      k: number of candidates.

    Returns:
      For each side the judged part of its line.
    """
    confirmed, n_spurious = [], []
    for arrays in sides_arrays:
        reported = _points(network, arrays, "points", "point_inputs")
        best = np.argsort(truth.q_of(network, reported), kind="stable")[: truth.MOST]
        refined, good = truth.refine(network, truth.take(reported, best))
        confirmed.append(truth.take(refined, good))
        n_spurious.append(int(len(reported.hidden) - good.sum()))  # what is beyond the most that are refined, too
    owner = np.repeat(np.arange(len(confirmed)), [len(points.hidden) for points in confirmed])
    everything = _together(network, confirmed)
    radius = 2 * np.finfo(np.float64).eps ** 0.5 * (1 + np.linalg.norm(everything.hidden, axis=1))
    label = truth.merge(everything, radius)
    true, label = np.unique(label, return_inverse=True)
    points = truth.take(everything, true)
    signs = truth.index_signs(network, points)
    verdicts = []
    for side, arrays in enumerate(sides_arrays):
        found = np.unique(label[owner == side])
        verdicts.append(
            {
                "n_true": len(true),
                "n_found": len(found),
                "n_missed": len(true) - len(found),
                "n_spurious": n_spurious[side],
                "n_slow": int(arrays["n_slow"]) if "n_slow" in arrays else None,
                **_index(network, truth.take(points, found), signs[found]),
                **_shares(network, arrays, points, k),
                "lane_q": {str(p): _quantile(arrays.get("lane_q"), p) for p in QUANTILES},
                **{n: float(arrays[n]) for n in ("n_searched", "n_steps", "n_products") if n in arrays},
            }
        )
    return verdicts


def _points(network: networks.Network, arrays: dict[str, Any], hidden: str, inputs: str) -> Points:
    """Of a side; its inputs count only where the network is searched at some."""
    states = arrays[hidden].astype(np.float64).reshape(-1, network.candidates.shape[1])
    return Points(states, None if network.inputs is None else arrays[inputs].astype(np.float64))


def _together(network: networks.Network, parts: Sequence[Points]) -> Points:
    hidden = np.concatenate([part.hidden for part in parts])
    return Points(hidden, None if network.inputs is None else np.concatenate([part.inputs for part in parts]))


def _index(network: networks.Network, points: Points, signs: np.ndarray) -> dict[str, Any]:
    if network.inputs is None:
        return {"index_sum": int(signs.sum())}
    drives = np.unique(network.inputs.astype(np.float64), axis=0)
    sums = [signs[(points.inputs == drive).all(axis=1)].sum() for drive in drives]
    return {"inputs_right": int(np.sum(np.array(sums) == 1)), "n_inputs": len(drives)}


def _shares(network: networks.Network, arrays: dict[str, Any], points: Points, k: int) -> dict[str, Any]:
    if "counts" in arrays:
        fixed, slow = (int(n) for n in arrays["counts"])
        k = int(arrays.get("n_searched", k))  # shares are of the candidates that had a turn
        return {"share_fixed": fixed / k, "share_slow": slow / k, "share_lost": (k - fixed - slow) / k}
    if "ends" not in arrays:
        return {"share_fixed": None, "share_slow": None, "share_lost": None}
    ends, near = _points(network, arrays, "ends", "end_inputs"), truth.NEAR * network.candidates.shape[1] ** 0.5
    met = np.zeros(len(ends.hidden), bool)
    for i, hidden in enumerate(points.hidden):
        here = np.linalg.norm(ends.hidden - hidden, axis=1) <= near
        met |= here if ends.inputs is None else here & (ends.inputs == points.inputs[i]).all(axis=1)
    fixed = int(arrays["end_hits"][met].sum())
    return {"share_fixed": fixed / k, "share_slow": None, "share_lost": (k - fixed) / k}


def _quantile(values: np.ndarray | None, p: float) -> float | None:
    return None if values is None or not len(values) else float(np.nanquantile(values, p))


if __name__ == "__main__":
    main()
