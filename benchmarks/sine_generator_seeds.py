"""Seeds of the sine generator: is there one point in the middle of each orbit, and does it say how fast the orbit is?

    python -m benchmarks sine_generator_seeds --out benchmarks/sine_generator_seeds

Each run writes its own JSON; runs that are there already are not repeated, so an interrupted table resumes.
`--run` with some seeds, or none, runs those alone; a seed of --seeds without a file stands in table.json as not run.

Recipe and retry rule are those of `python -m jaxfp sine-generator --train` (jaxfp/cli/sine_training.py), the same for
every seed; "missed" is what the rule found wrong at first. The untrained network of the same seed is the control.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import seed_runs
from jaxfp.cli import report, sine_generator, sine_mechanism, sine_training

COLUMNS = (
    "one_point_inside",
    "points_elsewhere",
    "index_2_with_one_complex_pair",
    "certified",
    "orbit_error_median",
    "orbit_error_largest",
    "within_1_percent",
    "within_2_percent",
    "correlation",
    "correlation_shuffled_mean",
    "ratio_median",
    "ratio_range",
    "ratio_median_slowest",
    "retried",
    "missed",
    "train_s",
    "untrained",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, search and tabulate.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    seed_runs.add_arguments(parser, "sine_generator_seeds")
    parser.add_argument("--n-hidden", type=int, default=100)
    parser.add_argument("--n-steps", type=int, help="updates in each stage (default: the recipe's)")
    parser.add_argument("--candidates", type=int, default=sine_mechanism.PER_INPUT, help="on each orbit")
    arguments = parser.parse_args(argv)
    seed_runs.run_all(arguments, lambda seed: one_run(seed, arguments), COLUMNS)


def one_run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One network, from random weights to its row.

    Args:
      seed: of weights, noise and search.
      arguments: sizes.

    Returns:
      The row, JSON-like.
    """
    recipe = sine_training.Recipe()
    if arguments.n_steps is not None:
        stages = [dataclasses.replace(stage, n_steps=arguments.n_steps) for stage in (*recipe.stages, recipe.retry)]
        recipe = dataclasses.replace(recipe, stages=tuple(stages[:-1]), retry=stages[-1])
    arrays, provenance = seed_runs.kept(
        arguments.weights, str(seed), lambda: sine_generator.train_whole(seed, arguments.n_hidden, recipe)
    )
    said, analysis = look(seed, arrays, recipe, arguments.candidates)
    random, _ = sine_training.train_network(seed, arguments.n_hidden, dataclasses.replace(recipe, stages=()))
    network = sine_training.as_network(random, recipe.dt)
    orbits = sine_mechanism.run_freely(network, recipe)
    points, spectra = sine_mechanism.search(network, orbits, arguments.candidates)
    control = sine_mechanism.explain(points, spectra, orbits)
    return {
        **said,
        "retried": provenance["retried"],
        "missed": provenance["missed"],
        "train_s": provenance["seconds"],
        "training": provenance,
        "counts": analysis.points.report.counts,
        "unseen_mass": analysis.audit.unseen_mass,
        "complete": analysis.audit.complete,
        "untrained": {
            "n_points": len(points.hidden),
            "oscillates": int(np.isfinite(orbits.omega).sum()),
            "one_point_inside": int((control.n_inside == 1).sum()),
            "n_unstable": np.unique(np.asarray(spectra.n_unstable)).tolist(),
        },
    }


def look(
    seed: int, arrays: Any, recipe: sine_training.Recipe, per_input: int
) -> tuple[dict[str, Any], report.Analysis]:
    """The numbers of a trained network, and its points.

    Args:
      seed: of the seeded waves.
      arrays: as of `sine_training.as_network`.
      recipe: of the training.
      per_input: candidates on each orbit.

    Returns:
      See `sine_mechanism.summarize`; the analysis.
    """
    network = sine_training.as_network(arrays, recipe.dt)
    orbits = sine_mechanism.run_freely(network, recipe)
    starts, inputs = sine_mechanism.draw_candidates(orbits, per_input)
    analysis = report.analyze(
        network.step_fn, network.params, starts, inputs, dt=recipe.dt, key=jax.random.key(seed), progress=False
    )
    mechanism = sine_mechanism.explain(analysis.points, analysis.modes, orbits)
    norms = sine_mechanism.taylor_norms(network, analysis.points, mechanism, orbits)
    proved = np.zeros(len(analysis.points.hidden), bool) if analysis.proof is None else analysis.proof.exists
    return sine_mechanism.summarize(orbits, mechanism, norms, proved), analysis


if __name__ == "__main__":
    main()
