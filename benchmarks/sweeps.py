"""A sweep of fixed points over inputs and conditions against one search for each of them.

    python -m benchmarks sweeps --units 128 --inputs 20 --conditions 16 --out RESULTS

The network h' = tanh(W h + B u) holds --patterns planted memories (W = 0.9 G / sqrt(N) + 2.5 / N sum_k xi_k xi_k', G
random and xi_k random signs). In each condition, a direction of pattern space drawn from the seed, the input grows from
0 to --strength in --inputs equal steps; memories and saddles die in folds on the way. "separate" is
`find_fixed_points` with --candidates states around mixtures of the patterns for each input of each condition: "all",
one wave, which misses saddles, and "complete", with seeded waves. They are run for the first --searched conditions,
and their time is multiplied by how many more there are. "sweep" is one search at zero input, until "complete", and
`sweep` from there, all conditions at once, with the stability of each point, which is the default; "no_stability" does
without. Sides take turns: after the searches of each condition the whole sweep is run both ways, and the medians of
these are reported. Programs are compiled before.

Quality, in the conditions searched: of the points that the complete searches found, how many the sweep has, and the
reverse; and in all, `wrong` counts points of the sweep that are none, and `swapped` those that, followed from the last
sample back to the first, do not return to themselves.

RESULTS/sweeps.jsonl gets one line a run, with device, versions and seed.
"""

import argparse
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import jaxfp
from jaxfp import io


def step(params: Any, hidden: Any, inputs: Any) -> Any:
    """One step: h' = tanh(W h + B u)."""
    return jnp.tanh(params["W"] @ hidden + params["B"] @ inputs)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both sides.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--inputs", type=int, default=20)
    parser.add_argument("--conditions", type=int, default=16)
    parser.add_argument("--patterns", type=int, default=2)
    parser.add_argument("--searched", type=int, default=4, help="conditions in which separate searches are run")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--candidates", type=int, default=256, metavar="K")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmark_results"), metavar="RESULTS")
    row = measured(parser.parse_args(argv))
    out = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    with (out / "sweeps.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row))


def network(n_units: int, n_patterns: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Weights, and the patterns (n_patterns, n_units)."""
    rng = np.random.default_rng(seed)
    patterns = rng.choice([-1.0, 1.0], size=(n_patterns, n_units))
    chance = rng.normal(size=(n_units, n_units)) * 0.9 / np.sqrt(n_units)
    mixing = rng.normal(size=(n_units, n_patterns)) * 0.3
    return {"W": chance + 2.5 / n_units * patterns.T @ patterns, "B": patterns.T + mixing}, patterns


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """One line.

    Args:
      options: as parsed.

    Returns:
      Sizes, seconds, ratios, and what each side found.
    """
    params, patterns = network(options.units, options.patterns, options.seed)
    rng = np.random.default_rng(options.seed + 1)
    directions = rng.normal(size=(options.conditions, options.patterns))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    amount = np.linspace(0, options.strength, options.inputs)
    paths = directions[:, None] * amount[:, None]  # (n_conditions, n_steps, n_inputs)
    mix = rng.normal(size=(options.candidates, options.patterns)) @ patterns
    candidates = np.tanh(mix + 0.5 * rng.normal(size=mix.shape)).astype(np.float32)

    def search(inputs: np.ndarray, until: Literal["all", "complete"] = "complete") -> jaxfp.FixedPoints:
        return jaxfp.find_fixed_points(step, params, candidates, inputs, until=until)

    def swept(stability: bool) -> tuple[jaxfp.Family, np.ndarray]:
        first = search(paths[0, 0])
        first = jaxfp.take(first, first.status == jaxfp.FIXED)
        hidden = np.tile(first.hidden, (options.conditions, 1))
        own = np.repeat(paths, len(first.hidden), axis=0)
        family = jaxfp.sweep(step, params, (hidden, None), inputs_path=own, stability=stability)
        return family, np.repeat(np.arange(options.conditions), len(first.hidden))

    for warm in (lambda: search(paths[0, -1], "all"), lambda: search(paths[0, -1]), lambda: swept(True)):
        warm()
    taken: dict[str, list[float]] = {"separate_all": [], "separate_complete": [], "sweep": [], "sweep_no_stability": []}
    found: dict[str, list[Any]] = {name: [] for name in taken}
    for path in paths[: options.searched]:
        runs: dict[str, Callable[[], Any]] = {
            "separate_all": lambda path=path: [search(u, "all") for u in path],
            "separate_complete": lambda path=path: [search(u) for u in path],
            "sweep": lambda: swept(True),
            "sweep_no_stability": lambda: swept(False),
        }
        for name, run in runs.items():
            began = time.perf_counter()
            found[name].append(run())
            taken[name].append(time.perf_counter() - began)
    family, condition = found["sweep"][-1]
    separate = {name: len(paths) * float(np.mean(taken[name])) for name in ("separate_all", "separate_complete")}
    ours = {name: float(np.median(taken[name])) for name in ("sweep", "sweep_no_stability")}
    return {
        "units": options.units, "inputs": options.inputs, "conditions": options.conditions,
        "searched": options.searched, "patterns": options.patterns, "strength": options.strength,
        "candidates": options.candidates, "seed": options.seed, "cores": len(os.sched_getaffinity(0)),
        **{f"{name}_s": seconds for name, seconds in (separate | ours).items()}, "seconds": taken,
        **{f"{mine}_times_faster_than_{theirs}": separate[theirs] / ours[mine] for mine in ours for theirs in separate},
        "points_of_all": sum((p.status == jaxfp.FIXED).sum().item() for row in found["separate_all"] for p in row),
        **quality(params, found["separate_complete"], family, condition, paths), **io.environment(),
    }  # fmt: skip


def quality(
    params: Any, separate: list[list[jaxfp.FixedPoints]], family: jaxfp.Family, condition: np.ndarray, paths: np.ndarray
) -> dict[str, int]:
    """What one side has of the other's points, and whether identities come back.

    Args:
      params: weights.
      separate: points of each condition and input.
      family: result of the sweep.
      condition: of each point given.
      paths: (n_conditions, n_steps, n_inputs).

    Returns:
      Counts.
    """
    of_branch = np.full(len(family.at_path), -1)
    of_branch[family.branch_of_point] = condition
    there = ~np.isnan(family.at_path[..., 0])
    counts = {"points_of_searches": 0, "of_these_swept": 0, "points_of_sweep": 0, "of_these_searched": 0}
    wrong = 0
    for c, k in np.ndindex(len(separate), paths.shape[1]):
        ours = family.at_path[(of_branch == c) & there[:, k], k]
        points = separate[c][k]
        theirs = points.hidden[points.status == jaxfp.FIXED]
        gaps = np.linalg.norm(theirs[:, None] - ours, axis=2)
        counts["points_of_searches"] += len(theirs)
        counts["points_of_sweep"] += len(ours)
        counts["of_these_swept"] += int((gaps.min(axis=1, initial=np.inf) < 1e-6).sum())
        counts["of_these_searched"] += int((gaps.min(axis=0, initial=np.inf) < 1e-6).sum())
        drive = np.tile(paths[c, k], (len(ours), 1))
        wrong += int((np.asarray(jaxfp.speed(step, params, ours, drive)) > 1e-10).sum()) if len(ours) else 0
    ends = np.flatnonzero(there[:, -1] & there[:, 0] & (of_branch >= 0))
    n_steps = paths.shape[1]
    back = jaxfp.sweep(
        step, params, (family.at_path[ends, -1], None), inputs_path=paths[of_branch[ends]], start=n_steps - 1,
        stability=False,
    )  # fmt: skip
    returned = back.at_path[back.branch_of_point]
    swapped = (np.nan_to_num(np.abs(returned - family.at_path[ends]), nan=np.inf).max(axis=(1, 2)) > 1e-8).sum()
    folds = {"folds": int((family.events.kind == "fold").sum()), "lost": int((family.ends == "lost").sum())}
    return {**counts, "wrong": wrong, "swapped": int(swapped), "followed_back": len(ends), **folds}


if __name__ == "__main__":
    with jax.default_matmul_precision("highest"):
        main()
