r"""Seeds of the sine generator: is there one point in the middle of each orbit, and does it say how fast the orbit is?

    python -m benchmarks sine_generator_seeds --out benchmarks/sine_generator_seeds
    python -m benchmarks sine_generator_seeds --n-hidden 200 --seeds 0 1 2 3 4 \
        --out benchmarks/sine_generator_seeds/n200

Each run writes its own JSON; runs that are there already are not repeated, so an interrupted table resumes.
`--run` with some seeds, or none, runs those alone; a seed of --seeds without a file stands in table.json as not run.

Recipe and retry rule are those of `python -m jaxfp sine-generator --train` (jaxfp/cli/sine_training.py), the same for
every seed; "missed" is what the rule found wrong at first. The points inside the orbits are followed through all inputs
as one family; "identity_errors" are inputs where the point followed is not proved to be the one found there. A cycle is
the invariant circle of the map; "cycles_agree" with the frequency of the free runs, within what crossings can tell.
Controls: targets shuffled, and the untrained network of the same seed.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import seed_runs
from jaxfp.cli import report, sine_family, sine_generator, sine_mechanism, sine_training

COLUMNS = (
    "failed",
    "n_hidden",
    "one_point_inside",
    "points_elsewhere",
    "index_2_with_one_complex_pair",
    "certified",
    "orbit_error_median",
    "orbit_error_largest",
    "within_1_percent",
    "within_2_percent",
    "n_followed",
    "n_same",
    "identity_errors",
    "events",
    "cycles_found",
    "cycles_agree",
    "cycles_around_the_point",
    "cycle_error_median",
    "cycle_error_largest",
    "multiplier_across_largest",
    "multiplier_along_off_1",
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
N = sine_training.Recipe().n_conditions
STATISTICS: seed_runs.Statistics = {
    "one certified point inside each orbit, unstable in one complex pair alone": lambda r: (
        r["one_point_inside"] == r["index_2_with_one_complex_pair"] == r["certified"] == N
    ),
    "frequency within 0.5 % in the median, within 2 % at 48 inputs or more": lambda r: (
        r["orbit_error_median"] <= 0.005 and r["within_2_percent"] >= 48
    ),
    "correlation of the leading pair with the targets above 0.99": lambda r: r["correlation"] > 0.99,
    "correlation of the leading pair with the targets above 0.95": lambda r: r["correlation"] > 0.95,
    "one family through all inputs, no error of identity": lambda r: r["n_same"] == N and r["identity_errors"] == 0,
    "a limit cycle at each input, around the point, as fast as the free run": lambda r: (
        r["cycles_found"] == r["cycles_agree"] == r["cycles_around_the_point"] == N
    ),
    "controls: shuffled targets below 0.05, untrained without a point inside an orbit": lambda r: (
        abs(r["correlation_shuffled_mean"]) < 0.05 and r["untrained"]["one_point_inside"] == 0
    ),
}


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
    seed_runs.run_all(arguments, lambda seed: one_run(seed, arguments), COLUMNS, STATISTICS)


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
    network = sine_training.as_network(arrays, recipe.dt)
    try:
        said = look(seed, network, recipe, arguments.candidates)
    except ValueError as error:  # weights that went to infinity, say: data, too
        said = {"failed": str(error)}
    return {
        "n_hidden": arguments.n_hidden,
        **said,
        "retried": provenance["retried"],
        "missed": provenance["missed"],
        "train_s": provenance["seconds"],
        "training": provenance,
        "untrained": untrained(seed, arguments.n_hidden, recipe, arguments.candidates),
    }


def look(seed: int, network: sine_training.Network, recipe: sine_training.Recipe, per_input: int) -> dict[str, Any]:
    """The numbers of a trained network.

    Args:
      seed: of the seeded waves.
      network: see `sine_training.Network`.
      recipe: of the training.
      per_input: candidates on each orbit.

    Returns:
      What `sine_mechanism.summarize` and `sine_family.summarize` say, and the columns made of it.
    """
    orbits = sine_mechanism.run_freely(network, recipe)
    starts, inputs = sine_mechanism.draw_candidates(orbits, per_input)
    analysis = report.analyze(
        network.step_fn, network.params, starts, inputs, dt=recipe.dt, key=jax.random.key(seed), progress=False
    )
    points = analysis.points
    mechanism = sine_mechanism.explain(points, analysis.modes, orbits)
    norms = sine_mechanism.taylor_norms(network, points, mechanism, orbits)
    proved = np.zeros(len(points.hidden), bool) if analysis.proof is None else analysis.proof.exists
    seconds = report.stopwatch()
    tracked = sine_family.track(network, points, mechanism, orbits)
    track_s = seconds()
    circles = sine_family.close(network, points, mechanism, orbits)
    more = sine_family.summarize(tracked, circles, mechanism, orbits)
    family, cycles = more["family"], more["cycles"]
    return {
        **sine_mechanism.summarize(orbits, mechanism, norms, proved),
        **more,
        "elsewhere": sine_family.elsewhere(points, analysis.modes.n_unstable, mechanism, orbits),
        **{name: family[name] for name in ("n_followed", "n_same", "identity_errors", "events")},
        "cycles_found": cycles["n_found"],
        "cycles_agree": cycles["n_agree_with_free_runs"],
        "cycles_around_the_point": cycles["n_around_the_point"],
        "cycle_error_median": cycles["error_median"],
        "cycle_error_largest": cycles["error_largest"],
        **{name: cycles[name] for name in ("multiplier_across_largest", "multiplier_along_off_1")},
        "counts": points.report.counts,
        "unseen_mass": analysis.audit.unseen_mass,
        "complete": analysis.audit.complete,
        "track_s": track_s,
        "cycles_s": seconds() - track_s,
    }


def untrained(seed: int, n_hidden: int, recipe: sine_training.Recipe, per_input: int) -> dict[str, Any]:
    """The control: the network before training.

    Args:
      seed: of its weights.
      n_hidden: units.
      recipe: of the training that it does not get.
      per_input: candidates on each orbit.

    Returns:
      Its points, JSON-like.
    """
    arrays, _ = sine_training.train_network(seed, n_hidden, dataclasses.replace(recipe, stages=()))
    network = sine_training.as_network(arrays, recipe.dt)
    orbits = sine_mechanism.run_freely(network, recipe)
    points, spectra = sine_mechanism.search(network, orbits, per_input)
    mechanism = sine_mechanism.explain(points, spectra, orbits)
    return {
        "n_points": len(points.hidden),
        "oscillates": int(np.isfinite(orbits.omega).sum()),
        "one_point_inside": int((mechanism.n_inside == 1).sum()),
        "n_unstable": np.unique(np.asarray(spectra.n_unstable)).tolist(),
    }


if __name__ == "__main__":
    main()
