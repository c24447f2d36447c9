"""Training seeds of each flip-flop network: how many points of which index come out, the ugly ones too.

    python -m benchmarks flip_flop_seeds --out benchmarks/flip_flop_seeds

Ten seeds of the tanh network, five of the GRU and of the LSTM. Each run writes its own JSON; runs that are there
already are not repeated: an interrupted table resumes. `--run` with some seeds, or none, runs those alone; a seed
without a file stands in table.json as not run.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import seed_runs
from jaxfp.cli import flip_flop, flip_flop_mechanism, report
from jaxfp.types import FIXED

COLUMNS = (
    "by_index",
    "stable_codes",
    "n_slow",
    "index_sum",
    "unseen_mass",
    "complete",
    "sign_accuracy",
    "memories_held",
    "topology.edges.by_hamming_distance",
    "topology.edges.distinct_with_one_bit",
    "topology.truth_table.right",
    "topology.truth_table.asked",
    "topology.critical_pulses.of",
    "topology.critical_pulses.to_the_saddle_between",
    "train_s",
    "search_s",
)
STATISTICS: seed_runs.Statistics = {
    "audit complete": lambda r: r["complete"],
    "index sum +1": lambda r: r["index_sum"] == 1,
    "stable points with the 8 codes": lambda r: len(r["stable_codes"]) == 8,
    "8 of 8 memories held": lambda r: r["memories_held"] == 8,
    "signs right in 99.9 % of the steps": lambda r: r["sign_accuracy"] >= 0.999,
    "saddles join all 12 pairs of memories one bit apart": lambda r: r["topology.edges.distinct_with_one_bit"] == 12,
    "pulses lead where the truth table says": lambda r: (
        r["topology.truth_table.right"] == r["topology.truth_table.asked"]
    ),
    "each critical pulse leads to the saddle between": lambda r: (
        r["topology.critical_pulses.to_the_saddle_between"] == r["topology.critical_pulses.of"]
    ),
}
SEEDS = {"tanh": 10, "gru": 5, "lstm": 5}


def main(argv: Sequence[str] | None = None) -> None:
    """Train, search and tabulate.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    seed_runs.add_arguments(parser, "flip_flop_seeds")
    parser.set_defaults(seeds=None)
    parser.add_argument("--cells", nargs="+", default=sorted(flip_flop.CELLS), choices=sorted(flip_flop.CELLS))
    parser.add_argument("--n-hidden", type=int, help="units (default: that of the packaged network)")
    parser.add_argument("--n-bits", type=int, default=3, help="lines of the task")
    parser.add_argument("--n-steps", type=int, help="training steps (default: the recipe's)")
    parser.add_argument("--candidates", type=int, default=1024)
    arguments = parser.parse_args(argv)
    cells = {cell: arguments.seeds or range(SEEDS[cell]) for cell in arguments.cells}
    seed_runs.run_all(arguments, lambda cell, seed: one_run(cell, seed, arguments), COLUMNS, STATISTICS, cells)


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
    arrays, provenance = seed_runs.kept(
        arguments.weights,
        f"{cell}_{seed}",
        lambda: flip_flop.train_network(seed, cell, arguments.n_hidden, recipe),
    )
    network = flip_flop.as_network(cell, arrays)
    does = flip_flop.behaviour(jax.random.key(seed), network, recipe)
    seconds = report.stopwatch()
    with report.compile_seconds() as compiling:
        analysis, _, _ = flip_flop.explore(seed, network, recipe, n_candidates=arguments.candidates)
        search_s, compile_s = seconds(), compiling()
    summary = report.summary(analysis)
    stable = (analysis.points.status == FIXED) & (analysis.modes.n_unstable == 0)
    codes = np.array(flip_flop.sign_codes(network, analysis.points.hidden))
    mechanism = flip_flop_mechanism.explain(*network[:2], analysis, codes.tolist(), recipe.n_bits)
    slow = [p["speed"] for p in summary["points"] if p["status"] == "SLOW"]
    return {
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
        "topology": mechanism.summary,
        **does,
        "train_s": provenance["seconds"],
        "search_s": search_s,
        "search_compile_s": compile_s,
        "training": provenance,
    }


if __name__ == "__main__":
    main()
