"""What training with a switching linear system costs: its update over that of the network alone, on the same trials.

    python -m benchmarks jslds_speed --out benchmarks/jslds_speed.json

Both are whole updates (data, gradient, Adam) of one network in one process, in turns; each time is the least of all
turns, since whatever else the machine does only adds. "products" counts matrix products of a cell's size in a forward
step: F takes G with the state (G gates), the linear branch G for F(e, u*), as many for its derivative and 2 for the
expansion network, so (3 G + 2) / G: 11/3 of a gru, 5 of a tanh.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxfp import io
from jaxfp.cli import jslds_training
from jaxfp.models import equations, train

CASES = ("gru:32:64", "gru:64:64", "gru:100:128", "tanh:64:64")


def main(argv: Sequence[str] | None = None) -> None:
    """Time and write.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), help="CELL:UNITS:TRIALS")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--updates", type=int, default=20, help="in a turn")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("jslds_speed.json"))
    arguments = parser.parse_args(argv)
    rows = []
    for case in arguments.cases:
        cell, n_units, batch_size = case.split(":")
        rows.append(one_case(cell, int(n_units), int(batch_size), arguments.turns, arguments.updates))
        print(json.dumps(rows[-1]), flush=True)
    io.save_json(arguments.out, {"rows": rows, **io.environment()})


def one_case(cell: Any, n_units: int, batch_size: int, n_turns: int, n_updates: int) -> dict[str, Any]:
    """Both updates of one network.

    Args:
      cell: kind of the network.
      n_units: number of units.
      batch_size: trials an update.
      n_turns: how often each is timed.
      n_updates: updates in a turn.

    Returns:
      The row, JSON-like.
    """
    both = jslds_training.Recipe(cell=cell, n_units=n_units, batch_size=batch_size)
    alone = dataclasses.replace(both, strengths=jslds_training.ALONE)
    first_s, turns = {}, {}
    for name, recipe in (("jslds", both), ("network", alone)):
        network = jslds_training.init_network(jax.random.key(0), recipe)
        start = jslds_training.Training(network.params, jnp.zeros(()))
        optimizer = jslds_training.optimizer_of(recipe)
        update = jax.jit(
            functools.partial(
                train.train_steps,
                loss_fn=jslds_training.loss_of(network.model, recipe),
                optimizer=optimizer,
                steps=jnp.arange(n_updates),
            )
        )
        turns[name] = functools.partial(update, jax.random.key(1), params=start, optimizer_state=optimizer.init(start))
        first_s[name] = _seconds(turns[name])
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(n_turns):
        for name, turn in turns.items():
            seconds[name].append(_seconds(turn) / n_updates)
    n_gates = equations.N_GATES[cell]
    return {
        "cell": cell,
        "n_units": n_units,
        "batch_size": batch_size,
        "n_time": 25,
        "n_turns": n_turns,
        "n_updates": n_updates,
        "first_s": first_s,
        "least_s": {name: min(took) for name, took in seconds.items()},
        "spread_s": {name: max(took) - min(took) for name, took in seconds.items()},
        "ratio": min(seconds["jslds"]) / min(seconds["network"]),
        "products": (3 * n_gates + 2) / n_gates,
    }


def _seconds(turn: Any) -> float:
    began = time.perf_counter()
    jax.block_until_ready(turn())
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
