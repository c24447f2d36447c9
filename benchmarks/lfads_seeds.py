"""LFADS-JSLDS on the spikes of an integrator: seeds of integrator, trials and networks.

    python -m benchmarks lfads_seeds --out benchmarks/lfads_seeds

Each run writes its own JSON; runs that are there already are not repeated, so an interrupted table resumes.
`--run` with some seeds, or none, runs those alone; a seed of --seeds without a file stands in table.json as not run.

Held-out trials, both branches by one protocol: means of q in place of samples. Controls: expansion points in another
order ("shuffled_points"); the same networks trained with no term that asks anything of the linear system ("alone");
and trained and judged on spikes whose trials were shuffled for each neuron by itself ("shuffled_trials"), where no
rates are to be found. The last two train for --control-steps.
"""

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax

from benchmarks import seed_runs
from jaxfp.cli import lfads_training, report
from jaxfp.cli.lfads_training import Spikes
from jaxfp.models import lfads

COLUMNS = (
    "nll",
    "nll_excess",
    "bits_per_spike",
    "r2",
    "sampled_nll",
    "kl",
    "input_correlation",
    "relative_error",
    "residual",
    "expansion_term",
    "approximation_term",
    "eigenvalues",
    "leading_range",
    "shuffled_points",
    "alone",
    "shuffled_trials",
    "train_s",
)
STATISTICS: seed_runs.Statistics = {
    "held-out likelihood of the linear system within 2 % of the generator's": lambda r: abs(r["nll_excess"]) <= 0.02,
    "so are its bits a spike": lambda r: r["bits_per_spike"]["jslds"] >= 0.98 * r["bits_per_spike"]["rnn"],
    "so it is with one sample of q a trial": lambda r: (
        abs(r["sampled_nll"]["jslds"] / r["sampled_nll"]["rnn"] - 1) <= 0.02
    ),
    "both divergences above 0": lambda r: r["kl"]["start"] > 0 and r["kl"]["inputs"] > 0,
    "R2 of inferred against true rates above 0.9 in both": lambda r: min(r["r2"]["rnn"], r["r2"]["jslds"]) > 0.9,
    "inferred input follows the true one, correlation above 0.5": lambda r: r["input_correlation"] > 0.5,
    "a slow mode, median largest |eigenvalue| within 0.05 of 1": lambda r: abs(r["eigenvalues"][0] - 1) <= 0.05,
    "control: shuffled expansion points, rates at least 10 times as wrong": lambda r: (
        1 - r["shuffled_points"]["r2"] >= 10 * (1 - r["r2"]["jslds"])
    ),
    "control: a linear system that nothing was asked of misses by more than 2 %": lambda r: (
        r["alone"]["nll_excess"] > 0.02
    ),
    "control: no rates in shuffled trials, R2 below 0.1 in both": lambda r: (
        max(r["shuffled_trials"]["r2"]["rnn"], r["shuffled_trials"]["r2"]["jslds"]) < 0.1
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Train or load, judge and tabulate.

    Args:
      argv: arguments after the program's name.
    """
    recipe = lfads.Recipe()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    seed_runs.add_arguments(parser, "lfads_seeds", n_seeds=5)
    parser.add_argument("--n-hidden", type=int, default=recipe.config.n_generator, help="units of the generator")
    parser.add_argument("--n-steps", type=int, default=recipe.n_steps, help="updates")
    parser.add_argument("--control-steps", type=int, default=800, help="updates of the controls")
    parser.add_argument("--train-trials", type=int, default=lfads_training.N_TRAIN)
    parser.add_argument("--trials", type=int, default=lfads_training.N_TEST, help="held out")
    arguments = parser.parse_args(argv)
    seed_runs.run_all(arguments, lambda seed: one_run(seed, arguments), COLUMNS, STATISTICS)


def one_run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One integrator, its trials, and the networks.

    Args:
      seed: of all of them.
      arguments: sizes.

    Returns:
      The row, JSON-like.
    """
    config = dataclasses.replace(lfads.LfadsConfig(), n_generator=arguments.n_hidden)
    recipe = lfads.Recipe(config, n_steps=arguments.n_steps)
    short = dataclasses.replace(recipe, n_steps=arguments.control_steps)
    alone = dataclasses.replace(short, strengths=lfads_training.ALONE)
    given = lfads_training.draw_spikes(seed, arguments.train_trials, arguments.trials)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 3), 5)
    mixed = [lfads_training.shuffle_neurons(key, part) for key, part in zip(keys[3:], given, strict=True)]

    seconds = report.stopwatch()
    said, training = judged(keys[0], f"lfads_{seed}", seed, recipe, given, arguments)
    total_s = seconds()
    controls = {
        "alone": judged(keys[1], f"alone_{seed}", seed, alone, given, arguments)[0],
        "shuffled_trials": judged(keys[2], f"shuffled_{seed}", seed, short, mixed, arguments)[0],
    }
    kept = ("nll", "nll_excess", "r2", "relative_error")
    return {
        **said,
        **{name: {k: control[k] for k in kept} for name, control in controls.items()},
        "control_steps": arguments.control_steps,
        "train_s": training["seconds"],
        "total_s": total_s,
        "training": training,
    }


def judged(
    key: jax.Array, name: str, seed: int, recipe: lfads.Recipe, given: Sequence[Spikes], arguments: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train or load networks and judge them on held-out trials.

    Args:
      key: of the judgment.
      name: of the weights.
      seed: of the weights.
      recipe: how they are trained.
      given: trials to train on, held-out trials.
      arguments: with the folder of weights.

    Returns:
      What is said of them, and their provenance.
    """
    train = functools.partial(lfads_training.train_network, seed, given[0], recipe)
    arrays, training = seed_runs.kept(arguments.weights, name, train)
    network = lfads_training.as_network(arrays, training)
    return lfads_training.evaluate(key, network, given[1], arrays["mean_counts"])[1], training


if __name__ == "__main__":
    main()
