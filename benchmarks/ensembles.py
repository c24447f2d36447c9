"""An ensemble of 3-bit memories, trained and searched in shared programs: how many solved it with which structure.

    python -m benchmarks ensembles --out benchmarks/ensembles

All networks have the recipe of `python -m jaxfp flip-flop`, in a small size, and differ in their seed alone. Each is
searched until complete. `structures` counts networks with the same fixed points by index, the number of unstable
dimensions. A row of `networks` is one network; `compared` times the ensemble beside a loop over `find_fixed_points`, on
the same networks and in the same process: a call that compiles, then warm calls in turn.
"""

import argparse
import collections
import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxfp
from jaxfp import io
from jaxfp.cli import flip_flop, flip_flop_training, report
from jaxfp.models import adapters, equations, train
from jaxfp.tasks import flip_flop as task
from jaxfp.types import FIXED, FixedPoints

_STRUCTURE = ("by_index", "index_sum", "complete", "stable_codes", "memories_held")


def main(argv: Sequence[str] | None = None) -> None:
    """Train, search, compare and tabulate.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=64)
    parser.add_argument("--n-hidden", type=int, default=32)
    parser.add_argument("--n-steps", type=int, default=500, help="training steps")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--candidates", type=int, default=512, help="of each network")
    parser.add_argument("--compared", type=int, default=8, help="networks in the comparison with a loop; 0: none")
    parser.add_argument("--repeats", type=int, default=5, help="warm calls of each in the comparison")
    parser.add_argument("--trials", type=int, default=64, help="to see whether a network does the task")
    parser.add_argument("--seed", type=int, default=0, help="of the first network; the others follow")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("ensembles"))
    arguments = parser.parse_args(argv)
    recipe = flip_flop.Recipe(n_steps=arguments.n_steps, batch_size=arguments.batch_size)
    seeds = range(arguments.seed, arguments.seed + arguments.networks)

    training = timed(lambda: train_ensemble(seeds, arguments.n_hidden, recipe))
    step_fn, trained, losses = training["result"]
    networks = [
        flip_flop.Network(step_fn, *(jax.tree.map(lambda x, i=i: np.asarray(x[i]), trained[k]) for k in trained))
        for i in range(len(seeds))
    ]
    candidates = draw(step_fn, trained["cell"], seeds, arguments.candidates)

    def search(n: int) -> tuple[FixedPoints, ...]:
        params = jax.tree.map(lambda x: x[:n], trained["cell"])
        return jaxfp.find_fixed_points_ensemble(step_fn, params, candidates[:n], until="complete")

    def loop(n: int) -> list[FixedPoints]:
        return [jaxfp.find_fixed_points(step_fn, networks[i].params, candidates[i], until="complete") for i in range(n)]

    first, warm = timed(lambda: search(len(seeds))), timed(lambda: search(len(seeds)))
    rows = [
        row(seed, network, points, recipe, arguments.trials) | {"final_loss": float(loss[-50:].mean())}
        for seed, network, points, loss in zip(seeds, networks, warm["result"], losses, strict=True)
    ]
    said = {
        "recipe": dataclasses.asdict(recipe),
        "n_networks": len(seeds),
        "n_hidden": arguments.n_hidden,
        "n_candidates": arguments.candidates,
        "seed": arguments.seed,
        "train_s": training["seconds"],
        "train_compile_s": training["compile_s"],
        "search_s": first["seconds"],
        "search_compile_s": first["compile_s"],
        "search_warm_s": warm["seconds"],
        "structures": structures(rows),
        "compared": compare(loop, search, min(arguments.compared, len(seeds)), arguments.repeats),
        "networks": rows,
        **io.environment(),
    }
    io.save_json(arguments.out / "ensembles.json", said)
    for structure in said["structures"]:
        print(structure)
    print({name: said[name] for name in ("train_s", "search_s", "search_warm_s", "compared")})


def compare(loop: Callable, ensemble: Callable, n: int, n_repeats: int) -> dict[str, Any]:
    """Both ways to search n networks: one call that compiles, then warm calls in turn, and their medians."""
    if not n:
        return {"n_networks": 0}
    calls = {"loop": loop, "ensemble": ensemble}
    first = {name: timed(lambda call=call: call(n)) for name, call in calls.items()}
    warm = [{name: timed(lambda call=call: call(n)) for name, call in calls.items()} for _ in range(n_repeats)]
    said: dict[str, Any] = {"n_networks": n}
    for name in calls:
        wall, cpu = ([turn[name][what] for turn in warm] for what in ("seconds", "cpu_s"))
        said[name] = {
            "first_s": first[name]["seconds"],
            "warm_s": wall,
            "warm_median_s": float(np.median(wall)),
            "warm_median_cpu_s": float(np.median(cpu)),
        }
    distance = max(map(apart, first["loop"]["result"], first["ensemble"]["result"]))
    return said | {
        "loop_over_ensemble": said["loop"]["warm_median_s"] / said["ensemble"]["warm_median_s"],
        "loop_over_ensemble_cpu": said["loop"]["warm_median_cpu_s"] / said["ensemble"]["warm_median_cpu_s"],
        "same_number_of_points": bool(np.isfinite(distance)),
        "largest_distance": distance,
    }


def train_ensemble(
    seeds: Sequence[int], n_units: int, recipe: flip_flop.Recipe
) -> tuple[Any, dict[str, Any], np.ndarray]:
    """Networks from random weights, in one program; a network begins and goes on as `train_network` has it.

    Args:
      seeds: of the networks.
      n_units: of each.
      recipe: of all.

    Returns:
      Step function, weights {"cell", "readout"} with a leading axis n_networks, and losses (n_networks, n_steps).
    """
    starts, keys = [], []
    for seed in seeds:
        key_cell, key_readout, key_train = jax.random.split(jax.random.key(seed), 3)
        arrays = equations.init_arrays(key_cell, "tanh", n_units, recipe.n_bits, gain=recipe.gain)
        step_fn, params = adapters.from_arrays("tanh", arrays)
        w_out = jax.random.normal(key_readout, (recipe.n_bits, n_units)) / n_units**0.5
        starts.append({"cell": params, "readout": (w_out, jnp.zeros(recipe.n_bits))})
        keys.append(key_train)
    together = jax.tree.map(lambda *x: jnp.stack(x), *starts)
    loss_fn, optimizer = flip_flop_training.loss_of(step_fn, n_units, recipe), flip_flop_training.optimizer_of(recipe)
    result = train.fit(jnp.stack(keys), loss_fn, together, optimizer, recipe.n_steps)
    return step_fn, result.params, result.losses


def draw(step_fn: Any, params: Any, seeds: Sequence[int], n_candidates: int) -> np.ndarray:
    """Candidates of each network, states of its trials with noise, (n_networks, n_candidates, n_hidden)."""
    batch = task.sample_batch(jax.random.key(seeds[0]), task.FlipFlopConfig(n_time=64), 64)
    start = jnp.zeros(params["w_rec"].shape[-1])
    states = jax.jit(jax.vmap(lambda p: jaxfp.simulate(step_fn, p, start, batch.inputs)))(params)
    keys = [jax.random.key(seed) for seed in seeds]
    return np.stack([jaxfp.sample_candidates(k, s, n_candidates, 0.5) for k, s in zip(keys, states, strict=True)])


def row(
    seed: int, network: flip_flop.Network, points: FixedPoints, recipe: flip_flop.Recipe, n_trials: int
) -> dict[str, Any]:
    """What one network does, and with which points."""
    does = flip_flop.behaviour(jax.random.key(seed), network, recipe, n_trials)
    linear = jaxfp.linearize(network.step_fn, network.params, points.hidden)
    modes = jaxfp.spectrum(linear.jacobian)
    audit = jaxfp.audit(points, linear)
    fixed = points.status == FIXED
    codes = np.array(flip_flop.sign_codes(network, points.hidden))
    return {
        "seed": seed,
        "by_index": "/".join(map(str, np.bincount(modes.n_unstable[fixed]))),
        "stable_codes": len(set(codes[fixed & (modes.n_unstable == 0)].tolist())),
        "n_slow": int((~fixed).sum()),
        "index_sum": audit.index_sum,
        "complete": audit.complete,
        "unseen_mass": audit.unseen_mass,
        "n_waves": len(points.report.waves),
        "sign_accuracy": does["sign_accuracy"],
        "memories_held": does["memories_held"],
    }


def structures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many networks have which structure, most first."""
    counted = collections.Counter(tuple(row[name] for name in _STRUCTURE) for row in rows)
    return [{"n_networks": n, **dict(zip(_STRUCTURE, s, strict=True))} for s, n in counted.most_common()]


def apart(points: FixedPoints, others: FixedPoints) -> float:
    """Largest distance from a point of one set to the nearest of the other, both ways; infinite for unequal numbers."""
    if len(points.hidden) != len(others.hidden):
        return float("inf")
    distance = np.linalg.norm(points.hidden[:, None] - others.hidden[None], axis=2)
    return float(max(distance.min(0).max(initial=0.0), distance.min(1).max(initial=0.0)))


def timed(call: Callable[[], Any]) -> dict[str, Any]:
    """Result of a call, its seconds, those of them that went into compiling, and seconds of this process's CPUs."""
    with report.compile_seconds() as compiling:
        began, cpu_began = time.perf_counter(), time.process_time()
        result = jax.block_until_ready(call())
        return {
            "result": result,
            "seconds": time.perf_counter() - began,
            "cpu_s": time.process_time() - cpu_began,
            "compile_s": compiling(),
        }


if __name__ == "__main__":
    main()
