"""Seeds of the moving average: is there a sheet of slow points, and can both values be read off it?

    python -m benchmarks moving_average_seeds --out benchmarks/moving_average_seeds

Each run writes its own JSON; runs that are there already are not repeated, so an interrupted table resumes.
`--run` with some seeds, or none, runs those alone; a seed of --seeds without a file stands in table.json as not run.

The recipe is that of `python -m jaxfp moving-average --train`, the same for every seed; the slow tolerance was fixed
before any was run. `--cell tanh` tries tanh networks, in a folder of their own: many have no sheet, or fail, and their
rows say so. "control" is the network of the same seed that had to remember the last pulse alone.
"""

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax

from benchmarks import seed_runs
from jaxfp.cli import average_mechanism, average_training, moving_average
from jaxfp.cli.average_mechanism import DELAY

COLUMNS = (
    "cell",
    "failed",
    "r2",
    "r2_gap_60",
    "n_points",
    "variance_pc1",
    "variance_pc12",
    "decoded_last",
    "decoded_second",
    "gap_1_2",
    "gap_2_3",
    "pulse_last",
    "pulse_second",
    "readout_along_the_mean",
    "growing",
    "train_s",
    "control",
)
STATISTICS: seed_runs.Statistics = {
    "R2 above 0.999 on fresh trials": lambda r: r["r2"] > 0.999,
    "two directions hold more than 95 % of the slow points' variance": lambda r: r["variance_pc12"] > 0.95,
    "the third mode is at least 3 times as fast as the second": lambda r: r["gap_2_3"] >= 3,
    "last and second-last value decoded with R2 above 0.95": lambda r: (
        min(r["decoded_last"], r["decoded_second"]) > 0.95
    ),
    "a pulse shifts both values with R2 above 0.93": lambda r: min(r["pulse_last"], r["pulse_second"]) > 0.93,
    "control: one direction holds more than 95 %, second-last value with R2 below 0.05": lambda r: (
        r["control"]["variance_pc1"] > 0.95 and r["control"]["decoded_second"] < 0.05
    ),
}
_CONTROL = (
    "failed",
    "r2",
    "variance_pc1",
    "variance_pc12",
    "decoded_last",
    "decoded_second",
    "gap_1_2",
    "gap_2_3",
    "train_s",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, search and tabulate.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    seed_runs.add_arguments(parser, "moving_average_seeds")
    parser.add_argument("--cell", default="gru", choices=("gru", "tanh"))
    parser.add_argument("--n-hidden", type=int, default=64)
    parser.add_argument("--n-steps", type=int, help="updates (default: the recipe's)")
    parser.add_argument("--states", type=int, default=moving_average.N_STATES, help="to search slow points from")
    arguments = parser.parse_args(argv)
    seed_runs.run_all(arguments, lambda seed: one_run(seed, arguments), COLUMNS, STATISTICS)


def one_run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """A network and its control, from random weights to their row.

    Args:
      seed: of weights, data and trials.
      arguments: sizes.

    Returns:
      The row, JSON-like.
    """
    rows: list[dict[str, Any]] = []
    for recipe in (average_training.Recipe(), average_training.CONTROL):
        if arguments.n_steps is not None:
            recipe = dataclasses.replace(recipe, n_steps=arguments.n_steps, warm_up=1)
        train = functools.partial(average_training.train_network, seed, arguments.cell, arguments.n_hidden, recipe)
        arrays, provenance = seed_runs.kept(arguments.weights, f"{seed}_{recipe.n_values}", train)
        rows.append(row(seed, arguments.cell, arrays, provenance, arguments.states))
    network, control = rows
    kept = (
        "failed",
        "r2",
        "variance_pc1",
        "variance_pc12",
        "decoded_last",
        "decoded_second",
        "gap_1_2",
        "gap_2_3",
        "train_s",
    )
    return {**network, "control": {name: control[name] for name in kept if name in control}}


def row(seed: int, cell: Any, arrays: Any, provenance: dict[str, Any], n_states: int) -> dict[str, Any]:
    """What one trained network does, and with what.

    Args:
      seed: of trials and pulses.
      cell: "gru" or "tanh".
      arrays: as of `average_training.as_network`.
      provenance: of them.
      n_states: to search slow points from.

    Returns:
      The numbers, JSON-like.
    """
    common = {"cell": cell, "train_s": provenance["seconds"], "training": provenance}
    n_values, does = provenance["recipe"]["n_values"], {}
    try:
        network = average_training.as_network(cell, arrays)
        does = average_mechanism.behaviour(jax.random.key(seed), network, n_values)
        finding = moving_average.examine(seed, network, n_values, n_states)
    except ValueError as error:  # weights that are not finite, or too few searches that got anywhere slow
        return {"failed": str(error), **does, **common}
    shift = finding.said["pulse_map"][DELAY]["r2"]
    return {
        **finding.does,
        **finding.said,
        "pulse_last": float(shift[0]),
        "pulse_second": float(shift[1]),
        **common,
    }


if __name__ == "__main__":
    main()
