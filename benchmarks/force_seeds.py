"""Seeds of the flip-flop network trained by FORCE, 1,000 units with output feedback: does it hold its memories?

    python -m benchmarks force_seeds --out benchmarks/force_seeds

Each run writes its own JSON; runs that are there already are not repeated, so an interrupted table resumes.
`--run` with some seeds, or none, runs those alone; a seed of --seeds without a file stands in table.json as not run.

A run trains for 60,000 steps of 0.1 tau: one pulse of 10 steps at a time on a random line, gaps of 30 to 89 steps.
sign_accuracy is over 20,000 fresh steps with gaps twice as long, begun in the last state of training: those that
`flip_flop.scored_steps` says, in silence, once every line has been pulsed. A memory is held if from one state of those
steps that stores it, 2,000 silent steps do not change a sign of the outputs. Searches begin at the states so held.

With --candidates as many states of the run, the memories, means of them and the mirror images of all these are searched
in float32 until the audit finds nothing missing: `complete` is its verdict, `mirror_images_not_found` what the symmetry
says to it. by_index and index_sum are of the points and their mirror images.
"""

import argparse
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxfp
from benchmarks import seed_runs
from jaxfp.cli import flip_flop_force, report
from jaxfp.cli.flip_flop_training import Network
from jaxfp.models import force
from jaxfp.search import candidates
from jaxfp.tasks import flip_flop
from jaxfp.types import FIXED

COLUMNS = (
    "sign_accuracy",
    "memories_held",
    "stable_points",
    "stable_codes",
    "largest_real_part",
    "odd_to",
    "train_s",
    "by_index",
)
STATISTICS: seed_runs.Statistics = {
    "trained in less than 60 s": lambda r: r["train_s"] < 60,
    "8 of 8 memories held": lambda r: r["memories_held"] == 8,
    "signs right in 99.9 % of the steps": lambda r: r["sign_accuracy"] >= 0.999,
    "8 stable points with the 8 codes": lambda r: r["stable_points"] == r["stable_codes"] == 8,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Train, score, search and tabulate.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    seed_runs.add_arguments(parser, "force_seeds")
    parser.add_argument("--n-hidden", type=int, default=1000)
    parser.add_argument("--n-bits", type=int, default=3)
    parser.add_argument("--n-time", type=int, default=60_000, help="training steps")
    parser.add_argument(
        "--candidates",
        type=int,
        default=0,
        help="states of the run that the search for saddles begins in; 0: no such search",
    )
    arguments = parser.parse_args(argv)
    seed_runs.run_all(arguments, lambda seed: one_run(seed, arguments), COLUMNS, STATISTICS)


def one_run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One network, from random weights to its row.

    Args:
      seed: of weights, pulses and candidates.
      arguments: sizes.

    Returns:
      The row, JSON-like.
    """
    n_bits = arguments.n_bits
    key_train, key_weights, key_test, key_mix = jax.random.split(jax.random.key(seed), 4)
    config = force.ForceConfig(n_hidden=arguments.n_hidden, n_inputs=n_bits, n_outputs=n_bits)
    run = flip_flop.sample_stream(key_train, n_bits, arguments.n_time)
    seconds = report.stopwatch()
    with report.compile_seconds() as compiling:
        result = jax.jit(force.train_force, static_argnums=1)(key_weights, config, run.inputs, run.targets)
        errors = np.asarray(result.errors)
        train_s, compile_s = seconds(), compiling()
    step_fn, params = force.closed_loop(result.network, config.alpha)
    narrow = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), params)
    w_out = np.asarray(result.network.w_out)

    fresh = flip_flop.sample_stream(key_test, n_bits, 20_000, gaps=(60, 180))
    states = np.asarray(_simulate(step_fn, narrow, result.hidden, fresh.inputs))
    outputs, targets = np.tanh(states) @ w_out.T, np.asarray(fresh.targets)
    scored = np.asarray(flip_flop.scored_steps(fresh.inputs))  # the run goes on from the last state of training
    codes = list(itertools.product((-1.0, 1.0), repeat=n_bits))
    last = [np.flatnonzero(scored & (targets == code).all(1))[-1:] for code in codes]
    stored = states[np.concatenate(last)]
    kept = np.asarray(_simulate(step_fn, narrow, jnp.asarray(stored), n_time=2000))
    wanted = np.array(codes)[[len(row) > 0 for row in last]]
    held = (np.tanh(kept) @ w_out.T * wanted[:, None] > 0).all((1, 2))

    points = jaxfp.find_fixed_points(step_fn, params, kept[:, -1].astype(np.float64))
    fixed = points.hidden[points.status == FIXED]
    linear = jaxfp.linearize(force.flow, params, fixed)
    rates = np.linalg.eigvals(linear.jacobian).real.max(1)
    stable = rates < 0
    said = np.sign(np.tanh(fixed) @ w_out.T)[stable]
    row = {
        "n_hidden": arguments.n_hidden,
        "n_time": arguments.n_time,
        "sign_accuracy": float((outputs * targets > 0)[scored].mean()),
        "rms_error_in_silence": float(np.sqrt(np.square(outputs - targets)[scored].mean())),
        "rms_error_of_training": float(np.sqrt(np.square(errors[-len(errors) // 10 :]).mean())),
        "memories_held": int(held.sum()),
        "memories": len(codes),
        "stable_points": int(stable.sum()),
        "stable_codes": len({tuple(code) for code in said.tolist()}),
        "largest_real_part": float(rates[stable].max(initial=-np.inf)),
        "odd_to": float(np.abs(jaxfp.residual(force.flow, params, -fixed, kind="flow")).max(initial=0.0)),
        "train_s": train_s,
        "train_compile_s": compile_s,
        "search_s": seconds() - train_s,
    }
    if arguments.candidates:
        network = Network(step_fn, params, (w_out, 0 * w_out[:, 0]))
        row |= _saddles(key_mix, network, states, kept[:, -1], arguments.candidates)
    return row


def _saddles(key: jax.Array, network: Network, states: np.ndarray, kept: np.ndarray, n: int) -> dict[str, Any]:
    """Points from states of the run, the memories and means of them, all in pairs x, -x; then seeded waves."""
    step_fn, params, _ = network
    seconds = report.stopwatch()
    starts = flip_flop_force.symmetric(network, np.asarray(candidates.sample_candidates(key, states, n, 0.5)), kept)
    points = jaxfp.find_fixed_points(step_fn, params, starts, until="complete")
    search_s = seconds()
    verdict = jaxfp.audit(points, jaxfp.linearize(step_fn, params, points.hidden))
    fixed = points.hidden[points.status == FIXED]
    pairs = jaxfp.find_fixed_points(step_fn, params, np.concatenate([fixed, -fixed]))
    linear = jaxfp.linearize(step_fn, params, pairs.hidden)
    index = (np.abs(np.linalg.eigvals(linear.jacobian)) > 1).sum(1)[pairs.status == FIXED]
    numbers, counts = np.unique(index, return_counts=True)
    return {
        "by_index": {str(i): int(n) for i, n in zip(numbers, counts, strict=True)},
        "index_sum": jaxfp.audit(pairs, linear).index_sum,
        "mirror_images_not_found": flip_flop_force.oddness(network, points)["mirror_images_not_found"],
        "complete": verdict.complete,
        "n_candidates": len(starts),
        "counts": points.report.counts,
        "waves": points.report.waves,
        "saddles_s": search_s,
    }


_simulate = jax.jit(jaxfp.simulate, static_argnums=0, static_argnames="n_time")


if __name__ == "__main__":
    main()
