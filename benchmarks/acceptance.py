"""Acceptance figures that no other script has: the two toys, the gradient of q, and untrained networks.

    python -m benchmarks acceptance --out benchmarks/acceptance

T1 and T2: both planar flows from a 15 x 15 grid. T3: grad q against J'r and the Gauss-Newton matrix against the Hessian
of q, at states and fixed points of the packaged memory of 100 units, relative errors in float64. T10: the same finder
on random networks of that size; `n_stable` is the number of stable fixed points of each seed.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxfp
from jaxfp import dynamics, io
from jaxfp.cli import flip_flop
from jaxfp.models import equations
from jaxfp.tasks import toys
from jaxfp.types import FIXED, SLOW


def main(argv: Sequence[str] | None = None) -> None:
    """Compute all and write them.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=16, help="of T3")
    parser.add_argument("--seeds", type=int, default=10, help="of T10")
    parser.add_argument("--n-hidden", type=int, default=100, help="of T10")
    parser.add_argument("--candidates", type=int, default=256, help="of T10")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("acceptance"))
    arguments = parser.parse_args(argv)
    said = {
        "T1": three_points(),
        "T2": [ghost(a) for a in (1e-3, 1e-2, 1e-1)],
        "T3": derivatives(arguments.states),
        "T10": [untrained(gain, arguments.seeds, arguments.n_hidden, arguments.candidates) for gain in (0.8, 1.0, 1.5)],
        **io.environment(),
    }
    io.save_json(arguments.out / "acceptance.json", said)
    print({name: said[name] for name in ("T1", "T2", "T3", "T10")})


def _grid() -> np.ndarray:
    side = np.linspace(-2, 2, 15)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)


def three_points() -> dict[str, Any]:
    """T1: the points of toy A, their errors and indices."""
    points = jaxfp.find_fixed_points(toys.three_points, None, _grid(), kind="flow")
    modes = jaxfp.spectrum(jaxfp.linearize(toys.three_points, None, points.hidden).jacobian, kind="flow")
    known = np.array([point.hidden for point in toys.known_three_points()])
    distance = np.linalg.norm(points.hidden[:, None] - known[None], axis=2)
    return {
        "n_points": len(points.hidden),
        "n_fixed": int((points.status == FIXED).sum()),
        "largest_error": float(max(distance.min(0).max(), distance.min(1).max())),
        "indices": sorted(modes.n_unstable.tolist()),
    }


def ghost(a: float) -> dict[str, Any]:
    """T2: the slow point of toy B at one distance from the bifurcation."""
    points = jaxfp.find_fixed_points(toys.ghost, a, _grid(), kind="flow")
    modes = jaxfp.spectrum(jaxfp.linearize(toys.ghost, a, points.hidden).jacobian, kind="flow")
    return {
        "a": a,
        "n_fixed": int((points.status == FIXED).sum()),
        "n_slow": int((points.status == SLOW).sum()),
        "q_relative_error": float(np.abs(points.q / (a**2 / 4) - 1).max()),
        "zero_eigenvalue": float(np.abs(modes.eigenvalues).min(1).max()),
    }


def derivatives(n_states: int) -> dict[str, Any]:
    """T3: largest relative errors over states of the box and the fixed points that 200 steps from them lead near."""
    network = flip_flop.as_network("tanh", io.load_packaged("flip_flop_tanh")[0])
    n_hidden = network.readout[0].shape[1]
    starts = np.random.default_rng(0).uniform(-1, 1, (n_states, n_hidden))
    fixed = jaxfp.simulate(network.step_fn, network.params, starts, n_time=200)[:, -1]
    for _ in range(8):  # of Newton's
        left = jaxfp.residual(network.step_fn, network.params, fixed)
        fixed = fixed - np.linalg.solve(_slopes(network, fixed), left[..., None])[..., 0]
    with jax.enable_x64(True):
        params = dynamics.widen(network.params)

        def q_of(hidden: jax.Array) -> jax.Array:
            return jaxfp.q(network.step_fn, params, hidden)

        gradient, hessian = jax.jit(jax.vmap(jax.grad(q_of))), jax.jit(jax.hessian(q_of))
        by_jax = np.asarray(gradient(jnp.asarray(starts)))
        jacobians = _slopes(network, starts)
        ours = np.einsum("pij,pi->pj", jacobians, jaxfp.residual(network.step_fn, params, starts))
        away = np.asarray(hessian(jnp.asarray(starts[0])))
        at = _slopes(network, fixed)
        matrices = [np.asarray(hessian(jnp.asarray(h))) for h in fixed]
    return {
        "n_states": n_states,
        "gradient": float(max(map(_relative, ours, by_jax))),
        "largest_speed_of_fixed_points": float(np.linalg.norm(left, axis=1).max()),
        "gauss_newton_at_fixed_points": float(max(_relative(j.T @ j, m) for j, m in zip(at, matrices, strict=True))),
        "gauss_newton_away_from_them": _relative(jacobians[0].T @ jacobians[0], away),
    }


def _slopes(network: flip_flop.Network, hidden: np.ndarray) -> np.ndarray:
    """dr/dh at each state."""
    jacobians = jaxfp.linearize(network.step_fn, network.params, hidden).jacobian
    return jacobians - np.eye(hidden.shape[1])


def untrained(gain: float, n_seeds: int, n_hidden: int, n_candidates: int) -> dict[str, Any]:
    """T10: stable fixed points of random tanh networks."""
    n_stable, n_fixed = [], []
    for seed in range(n_seeds):
        key_weights, key_starts = jax.random.split(jax.random.key(seed))
        step_fn, params = jaxfp.from_arrays("tanh", equations.init_arrays(key_weights, "tanh", n_hidden, 3, gain=gain))
        points = jaxfp.find_fixed_points(
            step_fn, params, np.asarray(jax.random.normal(key_starts, (n_candidates, n_hidden)))
        )
        points = jaxfp.take(points, points.status == FIXED)
        jacobians = jaxfp.linearize(step_fn, params, points.hidden).jacobian
        n_fixed.append(len(points.hidden))
        n_stable.append(int((np.abs(np.linalg.eigvals(jacobians)) < 1).all(1).sum()))
    return {"gain": gain, "n_hidden": n_hidden, "n_stable": n_stable, "n_fixed": n_fixed}


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


if __name__ == "__main__":
    main()
