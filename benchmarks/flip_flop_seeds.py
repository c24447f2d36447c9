"""Five training seeds of each flip-flop network: how many points of which index come out, the ugly ones too.

    python benchmarks/flip_flop_seeds.py --out benchmarks/flip_flop_seeds

Each run writes its own JSON; runs that are there already are not repeated, so an interrupted table resumes. The last
step puts all of them, and the runs asked for but missing, into table.json.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxfp import io
from jaxfp.cli import flip_flop, report
from jaxfp.types import FIXED


def main(argv: Sequence[str] | None = None) -> None:
    """Train, search and tabulate.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=sorted(flip_flop.CELLS), choices=sorted(flip_flop.CELLS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--n-hidden", type=int, help="units (default: that of the packaged network)")
    parser.add_argument("--n-bits", type=int, default=3, help="lines of the task")
    parser.add_argument("--n-steps", type=int, help="training steps (default: the recipe's)")
    parser.add_argument("--candidates", type=int, default=1024)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("flip_flop_seeds"))
    arguments = parser.parse_args(argv)
    rows = []
    for cell in arguments.cells:
        for seed in arguments.seeds:
            path = arguments.out / f"{cell}_{seed}.json"
            if not path.exists():
                io.save_json(path, one_run(cell, seed, arguments))
            rows.append(json.loads(path.read_text()))
            print(json.dumps({k: rows[-1][k] for k in ("cell", "seed", *_COLUMNS)}), flush=True)
    io.save_json(arguments.out / "table.json", {"rows": [{k: r[k] for k in ("cell", "seed", *_COLUMNS)} for r in rows]})


_COLUMNS = (
    "by_index",
    "stable_codes",
    "n_slow",
    "index_sum",
    "unseen_mass",
    "complete",
    "sign_accuracy",
    "memories_held",
    "train_s",
    "search_s",
)


def one_run(cell: Any, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One network, from random weights to its table row.

    Args:
      cell: "tanh", "gru" or "lstm".
      seed: of training, trials and candidates.
      arguments: sizes.

    Returns:
      The row, JSON-like.
    """
    recipe = dataclasses.replace(flip_flop.recipe_of(cell), n_bits=arguments.n_bits)
    if arguments.n_steps is not None:
        recipe = dataclasses.replace(recipe, n_steps=arguments.n_steps)
    arrays, provenance = flip_flop.train_network(seed, cell, arguments.n_hidden, recipe)
    network = flip_flop.as_network(cell, arrays)
    does = flip_flop.behaviour(jax.random.key(seed), network, recipe)
    seconds = report.stopwatch()
    with report.compile_seconds() as compiling:
        analysis, _, _ = flip_flop.explore(seed, network, recipe, n_candidates=arguments.candidates)
        search_s, compile_s = seconds(), compiling()
    summary = report.summary(analysis)
    stable = (analysis.points.status == FIXED) & (analysis.modes.n_unstable == 0)
    codes = np.array(flip_flop.sign_codes(network, analysis.points.hidden))
    slow = [p["speed"] for p in summary["points"] if p["status"] == "SLOW"]
    return {
        "cell": cell,
        "seed": seed,
        "n_candidates": arguments.candidates,
        "by_index": summary["fixed_points_by_unstable_dimensions"],
        "stable_codes": sorted(set(codes[stable].tolist())),
        "n_slow": summary["n_slow"],
        "slow_speeds": slow,
        "candidate_speed": analysis.points.report.candidate_speed,
        "largest_q_of_fixed": float(analysis.points.q[analysis.points.status == FIXED].max(initial=0.0)),
        "index_sum": analysis.audit.index_sum,
        "unseen_mass": analysis.audit.unseen_mass,
        "complete": analysis.audit.complete,
        "counts": analysis.points.report.counts,
        "reasons": analysis.points.report.reasons,
        "waves": analysis.points.report.waves,
        **does,
        "train_s": provenance["seconds"],
        "search_s": search_s,
        "search_compile_s": compile_s,
        "training": provenance,
        **io.environment(),
    }


if __name__ == "__main__":
    main()
