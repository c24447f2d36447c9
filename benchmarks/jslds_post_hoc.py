"""A switching linear system fitted to networks that were trained without one: the 3-bit memory, standard GRUs.

    python -m benchmarks jslds_post_hoc --out benchmarks/jslds_post_hoc

Each run writes its own JSON; runs that are there already are not repeated, so an interrupted table resumes.
`--run` with some seeds, or none, runs those alone; a seed of --seeds without a file stands in table.json as not run.

The network is a GRU of 32 units, trained alone and without noise, as the baseline of jslds_seeds is, which has 28.
Only the expansion network is trained, on simulated trials; all numbers are of other trials. Beside it linearization
about the nearest of all fixed points found, one step from the network's own state ("one_step") and running freely
("free_run"), as the switching linear system does. "free_points" is fitted without the fixed-point term: what a
linear system that switches with its own state can do at best, wherever its points are.
"""

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import seed_runs
from jaxfp.cli import jslds_mechanism, jslds_training, report
from jaxfp.models import jslds, jslds_post_hoc
from jaxfp.tasks import three_bit_memory

COLUMNS = (
    "sign_accuracy",
    "mse",
    "relative_error",
    "residual",
    "shuffled_over_own",
    "baseline",
    "baseline_over_own",
    "free_points",
    "by_index",
    "same_network",
    "fit_s",
    "train_s",
)
STATISTICS: seed_runs.Statistics = {
    "free-run error below that of linearization about the nearest fixed point": lambda r: (
        r["baseline_over_own"]["free_run"] > 1
    ),
    "free-run error below even its one-step error": lambda r: r["baseline_over_own"]["one_step"] > 1,
    "signs right in 99.9 % of the steps": lambda r: r["sign_accuracy"]["jslds"] >= 0.999,
    "no bit of the network changed": lambda r: r["same_network"],
}


def main(argv: Sequence[str] | None = None) -> None:
    """Train or load, fit and tabulate.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    seed_runs.add_arguments(parser, "jslds_post_hoc", n_seeds=5)
    parser.add_argument("--n-units", type=int, default=32)
    parser.add_argument("--n-steps", type=int, default=4000, help="updates of the network")
    parser.add_argument("--fit-steps", type=int, default=3000, help="updates of the expansion network")
    parser.add_argument("--lam-e", type=float, default=1.0, help="strength of the fixed-point term")
    parser.add_argument("--fit-trials", type=int, default=4096, help="to fit to")
    parser.add_argument("--trials", type=int, default=800, help="other ones, to judge by")
    parser.add_argument("--candidates", type=int, default=1024, help="states to search fixed points from")
    arguments = parser.parse_args(argv)
    seed_runs.run_all(arguments, lambda seed: one_run(seed, arguments), COLUMNS, STATISTICS)


def one_run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The network of a seed.

    Args:
      seed: of weights, data and trials.
      arguments: sizes.

    Returns:
      The row, JSON-like.
    """
    recipe = dataclasses.replace(jslds_training.STANDARD, n_units=arguments.n_units, n_steps=arguments.n_steps)
    train = functools.partial(jslds_training.train_network, seed, recipe)
    arrays, training = seed_runs.kept(arguments.weights, f"standard_{seed}", train)
    network = jslds_training.as_network(recipe.cell, arrays)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 2), 5)
    batch = three_bit_memory.sample_batch(keys[0], three_bit_memory.ThreeBitMemoryConfig(), arguments.trials)

    seconds = report.stopwatch()
    fitted = fit(keys[1], network, arguments.lam_e, arguments)
    fit_s = seconds()
    trials = jslds_mechanism.run_trials(fitted, batch)
    does = jslds_mechanism.behaviour(trials)
    shuffled = jslds_mechanism.shuffled_error(keys[2], fitted, batch, trials.both)
    points = jslds_mechanism.find_points(keys[3], network, trials.both.hidden, arguments.candidates)
    baseline = jslds_mechanism.baseline_error(network, trials, points.found)
    free = jslds_mechanism.behaviour(jslds_mechanism.run_trials(fit(keys[1], network, 0.0, arguments), batch))
    after = jslds_training.as_arrays(fitted.params)
    explained = jslds_mechanism.explain(jslds_mechanism.find_states(fitted, trials), points)
    return {
        **does,
        "shuffled_over_own": shuffled / does["relative_error"],
        **{name: said for name, said in explained.items() if name in EXPLAINED},
        "baseline": baseline,
        "baseline_over_own": {name: error / does["relative_error"] for name, error in baseline.items()},
        "free_points": {name: free[name] for name in ("relative_error", "residual")},
        "by_index": jslds_mechanism.count_by_index(network, points.found),
        "same_network": all(np.array_equal(after[name], arrays[name]) for name in (*network.params.cell, "hidden0")),
        "lam_e": arguments.lam_e,
        "fit_steps": arguments.fit_steps,
        "fit_s": fit_s,
        "train_s": training["seconds"],
        "training": training,
    }


EXPLAINED = ("n_clusters", "sizes", "n_codes", "readout_least", "n_proved", "distance_to_proved")


def fit(
    key: jax.Array, network: jslds_training.Network, lam_e: float, arguments: argparse.Namespace
) -> jslds_training.Network:
    """The same network with an expansion network trained on its states.

    Args:
      key: of trials and batches.
      network: trained.
      lam_e: strength of the fixed-point term.
      arguments: sizes.

    Returns:
      The network with its switching linear system.
    """
    key_trials, key_fit = jax.random.split(key)
    batch = three_bit_memory.sample_batch(key_trials, three_bit_memory.ThreeBitMemoryConfig(), arguments.fit_trials)
    start = jnp.asarray(network.params.hidden0)
    states = jslds_mechanism.run_trials(network, batch).both.hidden
    hidden = np.concatenate([np.broadcast_to(start, (len(states), 1, len(start))), states], axis=1)
    hidden = hidden.astype(np.float32)
    _, expansion = jslds.build_expansion(len(start))
    schedule = optax.cosine_decay_schedule(1e-2, arguments.fit_steps, alpha=0.01)
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))
    fitted = jslds_post_hoc.fit_expansion(
        key_fit, network.model, network.params.cell, expansion, hidden, np.asarray(batch.inputs), optimizer,
        arguments.fit_steps, lam_e=lam_e,
    )  # fmt: skip
    return network._replace(params=network.params._replace(expansion=fitted.params))


if __name__ == "__main__":
    main()
