"""What is certified: fixed points of cells with random weights, of trained networks and of toys; ghosts are excluded.

    python -m benchmarks certificates --networks FOLDER --out benchmarks/certificates

writes OUT/certificates.json: `cells`, a row a kind of cell, over random weights, points found by find_fixed_points from
uniform states; `networks`, trained ones (tanh100, lstm32 and gru64 are the packaged memories; tanh256 comes with
the benchmarks), with the time `certify` takes, median of five; `ghosts`, for x' = x + a + x^2 and Sussillo & Barak's
second toy, how far around the slow point a fixed point is excluded, in units of sqrt(a), and whether FixedPointFinder's
rule q < 1e-12 takes it for one; `saturated`, states outside [-1, 1] where the residual of a GRU vanishes by rounding.
"""

import argparse
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

import jaxfp
from benchmarks import networks
from jaxfp import io
from jaxfp.models import adapters, equations, flax_adapters
from jaxfp.tasks import toys
from jaxfp.types import FIXED, Params, StepFn

N_INPUTS = 3
FPF_TOLERANCE = 1e-12  # FixedPointFinder's tol_q
NETWORKS = ("tanh16", "tanh64", "tanh100", "lstm32", "gru64", "tanh256")
Build = Callable[[int, float, int], tuple[StepFn, Params]]


def _drawn(tree: Any, scale: float, seed: int) -> Any:
    """Like `tree`, every leaf drawn anew: matrices with `scale` over the root of their columns, biases with 0.1."""
    rng = np.random.default_rng(seed)

    def leaf(x: Any) -> jax.Array:
        size = scale / max(x.shape) ** 0.5 if len(x.shape) > 1 else 0.1
        return jnp.asarray(size * rng.normal(size=x.shape), jnp.float32)

    return jax.tree.map(leaf, tree)


def _nnx(cell_type: Any) -> Build:
    def build(n_hidden: int, scale: float, seed: int) -> tuple[StepFn, Params]:
        made = nnx.eval_shape(lambda: cell_type(N_INPUTS, n_hidden, rngs=nnx.Rngs(0)))
        graphdef, state = nnx.split(made)
        return flax_adapters.from_nnx(nnx.merge(graphdef, _drawn(state, scale, seed)))

    return build


def _linen(cell_type: Any) -> Build:
    def build(n_hidden: int, scale: float, seed: int) -> tuple[StepFn, Params]:
        cell = cell_type(features=n_hidden)
        carry = jax.eval_shape(lambda: cell.initialize_carry(jax.random.key(0), (N_INPUTS,)))
        shapes = jax.eval_shape(lambda carry: cell.init(jax.random.key(0), carry, jnp.zeros(N_INPUTS)), carry)
        return flax_adapters.from_linen(cell, _drawn(shapes, scale, seed))

    return build


def _ours(kind: Any, **options: Any) -> Build:
    def build(n_hidden: int, scale: float, seed: int) -> tuple[StepFn, Params]:
        rank = 2 if kind == "low_rank" else None
        made = lambda: equations.init_arrays(jax.random.key(0), kind, n_hidden, N_INPUTS, rank=rank)  # noqa: E731
        arrays = _drawn(jax.eval_shape(made), scale, seed)
        if rank:  # m n' / N: of order one where m and n are
            arrays |= {name: n_hidden**0.5 * arrays[name] for name in ("m", "n")}
        return adapters.from_arrays(kind, arrays, **options)

    return build


CELLS: dict[str, Build] = {
    "nnx.SimpleCell": _nnx(nnx.SimpleCell),
    "nnx.GRUCell": _nnx(nnx.GRUCell),
    "nnx.LSTMCell": _nnx(nnx.LSTMCell),
    "nnx.OptimizedLSTMCell": _nnx(nnx.OptimizedLSTMCell),
    "linen.SimpleCell": _linen(nn.SimpleCell),
    "linen.GRUCell": _linen(nn.GRUCell),
    "linen.MGUCell": _linen(nn.MGUCell),
    "linen.LSTMCell": _linen(nn.LSTMCell),
    "linen.OptimizedLSTMCell": _linen(nn.OptimizedLSTMCell),
    "tanh": _ours("tanh"),
    "gru": _ours("gru"),
    "lstm": _ours("lstm"),
    "ugrnn": _ours("ugrnn"),
    "euler, rate": _ours("euler", alpha=0.3, form="rate"),
    "euler, current": _ours("euler", alpha=0.3, form="current"),
    "low rank": _ours("low_rank", alpha=0.3),
}


def proved(step_fn: StepFn, params: Params, hidden: np.ndarray, inputs: np.ndarray | None) -> dict[str, Any]:
    """How many of the points are certified, and the radii.

    Args:
      step_fn: map.
      params: of it.
      hidden: (n_points, n_hidden).
      inputs: (n_points, n_inputs), or None.

    Returns:
      n_points, n_certified, largest error radius, smallest and largest uniqueness radius, smallest distance of two
      points at equal inputs; activation units, in the max-norm.
    """
    proof = jaxfp.certify(step_fn, params, hidden, inputs)
    gaps = np.abs(hidden[:, None] - hidden).max(axis=2) + np.where(np.eye(len(hidden)), np.inf, 0)
    if inputs is not None:
        gaps = np.where((inputs[:, None] == inputs).all(axis=2), gaps, np.inf)
    of_proved = proof.unique_radius[proof.exists]
    return {
        "n_points": len(hidden),
        "n_certified": int(proof.exists.sum()),
        "error_radius_largest": float(proof.error_radius[proof.exists].max(initial=0)),
        "unique_radius_smallest": float(of_proved.min(initial=np.inf)),
        "unique_radius_largest": float(of_proved.max(initial=0)),
        "gap_smallest": float(gaps.min(initial=np.inf)),
    }


def cell_row(name: str, n_hidden: int, n_networks: int, n_candidates: int, scale: float) -> dict[str, Any]:
    """Points of cells with random weights, certified.

    Args:
      name: key of `CELLS`.
      n_hidden: units.
      n_networks: one a seed.
      n_candidates: uniform in [-1, 1].
      scale: of the weights.

    Returns:
      The row.
    """
    rows = []
    for seed in range(n_networks):
        step_fn, params = CELLS[name](n_hidden, scale, seed)
        n_state = 2 * n_hidden if "LSTM" in name or name == "lstm" else n_hidden
        starts = np.random.default_rng(seed).uniform(-1, 1, (n_candidates, n_state))
        points = jaxfp.take(found := jaxfp.find_fixed_points(step_fn, params, starts), found.status == FIXED)
        rows.append(
            proved(step_fn, params, points.hidden, points.inputs) | {"n_slow": int((found.status != FIXED).sum())}
        )
    return {
        "cell": name,
        "n_networks": n_networks,
        **{key: sum(row[key] for row in rows) for key in ("n_points", "n_certified", "n_slow")},
        "error_radius_largest": max(row["error_radius_largest"] for row in rows),
        "unique_radius_smallest": min(row["unique_radius_smallest"] for row in rows),
        "gap_smallest": min(row["gap_smallest"] for row in rows),
    }


def network_row(name: str, folder: pathlib.Path | None, n_candidates: int) -> dict[str, Any]:
    """The FIXED points of a network, certified and timed.

    Args:
      name: of the network.
      folder: where it is, unless it is packaged.
      n_candidates: of the search.

    Returns:
      The row.
    """
    step_fn, params, candidates, inputs = networks.load(name, folder, n_candidates)[1:]
    found = jaxfp.find_fixed_points(step_fn, params, candidates, inputs, until="complete")
    points = jaxfp.take(found, found.status == FIXED)
    row = proved(step_fn, params, points.hidden, points.inputs)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        jaxfp.certify(step_fn, params, points.hidden, points.inputs)
        seconds.append(time.perf_counter() - began)
    shape = {"network": name, "n_hidden": candidates.shape[1], "n_slow": int((found.status != FIXED).sum())}
    return {**shape, **row, "certify_s": float(np.median(seconds)), "spread_s": max(seconds) - min(seconds)}


def fold(params: None, hidden: Any, inputs: Any) -> Any:
    """The step h' = h + a + h^2 with its drive a: two points, one or none."""
    return hidden + inputs + hidden**2


def second_toy(params: None, hidden: Any, inputs: Any) -> Any:
    """The field `toys.ghost` with its drive as parameter."""
    return toys.ghost(inputs[0], hidden)


def ghost_rows(exponents: Sequence[float]) -> list[dict[str, Any]]:
    """How far around each slow point fixed points are excluded.

    Args:
      exponents: of a = 10^exponent.

    Returns:
      A row for each toy and a.
    """
    factors, rows = np.linspace(0.02, 2, 100), []
    a = 10.0 ** np.asarray(exponents, float)
    drives = np.repeat(a, len(factors))[:, None]
    toy = [toys.known_ghost(x)[0] for x in a]
    for name, step_fn, kind, centers, q in (
        ("x + a + x^2", fold, "map", np.zeros((len(a), 1)), a**2 / 2),
        ("second toy", second_toy, "flow", np.array([p.hidden for p in toy]), np.array([p.q for p in toy])),
    ):
        radii = (np.sqrt(a)[:, None] * factors).ravel()
        balls = np.repeat(centers, len(factors), axis=0)
        out = jaxfp.excludes(step_fn, None, balls, radii, drives, kind=kind).reshape(len(a), -1)
        proof = jaxfp.certify(step_fn, None, centers, a[:, None], kind=kind)
        for i in range(len(a)):
            upto = float(factors[out[i]].max(initial=0))
            row = {"toy": name, "a": float(a[i]), "q": float(q[i]), "q_below_1e-12": bool(q[i] < FPF_TOLERANCE)}
            rows.append({**row, "excluded_radius_over_sqrt_a": upto, "certified": bool(proof.exists[i])})
    return rows


def saturated_row(n_hidden: int, n_states: int) -> dict[str, Any]:
    """States at |h| > 1 of a GRU whose update gates have rounded to 1: q vanishes, and nothing is proved.

    Args:
      n_hidden: units.
      n_states: drawn; those with q < 1e-24 are tried.

    Returns:
      The row.
    """
    rng = np.random.default_rng(0)
    params = {"V": np.eye(n_hidden), "W": rng.normal(size=(n_hidden, n_hidden)), "c": np.full(n_hidden, 50.0)}

    def step(params: Any, h: Any, u: Any) -> Any:
        z = jax.nn.sigmoid(params["V"] @ h + params["c"])
        return z * h + (1 - z) * jnp.tanh(params["W"] @ h)

    states = rng.uniform(1, 300, (n_states, n_hidden))
    q = np.asarray(jaxfp.q(step, params, states))
    tried = states[q < 1e-24]
    proof = jaxfp.certify(step, params, tried)
    return {
        "n_states": len(tried),
        "n_certified": int(proof.exists.sum()),
        "q_largest": float(q[q < 1e-24].max(initial=0)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Search, certify, tabulate.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=list(CELLS), metavar="CELL")
    parser.add_argument("--n-hidden", type=int, default=16)
    parser.add_argument("--n-weights", type=int, default=5, help="random networks of each cell")
    parser.add_argument("--scale", type=float, default=2.5, help="of their weights")
    parser.add_argument("--candidates", type=int, default=1024)
    parser.add_argument("--networks", type=pathlib.Path, help="folder of trained networks")
    parser.add_argument("--names", nargs="*", default=list(NETWORKS), choices=list(networks.SPECS), metavar="NETWORK")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("certificates"))
    arguments = parser.parse_args(argv)
    found: dict[str, Any] = {
        "n_hidden": arguments.n_hidden,
        "scale": arguments.scale,
        "candidates": arguments.candidates,
    }
    sizes = (arguments.n_hidden, arguments.n_weights, min(arguments.candidates, 256), arguments.scale)
    parts = {
        "cells": (lambda name: cell_row(name, *sizes), arguments.cells),
        "networks": (lambda name: network_row(name, arguments.networks, arguments.candidates), arguments.names),
    }
    for part, (row_of, names) in parts.items():
        found[part] = []
        for name in names:
            found[part].append(row_of(name))
            print(json.dumps(found[part][-1]), flush=True)
    found["ghosts"] = ghost_rows(range(-12, 0))
    found["saturated"] = saturated_row(8, 64)
    for row in (*found["ghosts"], found["saturated"]):
        print(json.dumps(row))
    io.save_json(arguments.out / "certificates.json", {**found, **io.environment()})


if __name__ == "__main__":
    main()
