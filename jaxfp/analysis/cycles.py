"""Cycles of maps, Floquet multipliers, and Lyapunov exponents.

k-cycle of a map: x_{i+1} = F(x_i), x_k = x_0. These are the fixed points of the map on k states at once

    (x_0, ..., x_{k-1}) -> (F(x_{k-1}), F(x_0), ..., F(x_{k-2}))      (multiple shooting)

and are searched, judged and deduplicated as such. Its least period divides k.

Floquet multipliers: eigenvalues of J_m ... J_1. The product loses what is eps times smaller than its largest. Swept by
QR, J_i Q_{i-1} = Q_i R_i, it is similar to (Q_0' Q_m) R_m ... R_1, graded, so that small multipliers keep their digits.

Lyapunov exponents: lim (1/t) sum ln |diag R_i| of the same sweep along any orbit (Benettin et al. 1980).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import arguments, dynamics
from jaxfp.search import judgment
from jaxfp.search import wave as waves
from jaxfp.types import FIXED, Array, Kind, Params, StepFn

_N_SWEEPS = 12
_SAME = 1e-6  # relative to the size of the orbit


class Cycles(NamedTuple):
    """Cycles of a map, by period, then by n_hits, most first.

    Attributes:
      hidden: (n_cycles, k, n_hidden) the orbit; where the period is less than k it is run through k / period times.
      period: (n_cycles,) least period, a divisor of k; 1 is a fixed point.
      inputs: (n_cycles, n_inputs) or None.
      speed: (n_cycles,) norm of all F(x_i) - x_{i+1} together.
      n_hits: (n_cycles,) how many candidates ended here.
      multipliers: (n_cycles, n_hidden) complex, of one least period, largest modulus first.
    """

    hidden: np.ndarray
    period: np.ndarray
    inputs: np.ndarray | None
    speed: np.ndarray
    n_hits: np.ndarray
    multipliers: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Unrolled:
    """The map on k states at once whose fixed points are k-cycles."""

    step_fn: StepFn
    k: int

    def __call__(self, params: Params, hidden: Any, inputs: Any) -> Any:
        moved = jax.vmap(lambda h: self.step_fn(params, h, inputs))(hidden.reshape(self.k, -1))
        return jnp.roll(moved, 1, axis=0).reshape(-1)


def find_cycles(
    step_fn: StepFn, params: Params, candidates: Array, k: int, inputs: Any = None, *, max_steps: int = 200
) -> Cycles:
    """Cycles of a map whose period divides k, stable or not.

    A host function: NumPy in, NumPy out, float64 whatever the caller's x64 setting.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step.
      params: pytree that `step_fn` understands.
      candidates: (n_candidates, n_hidden); each search begins with the orbit of one, k states long.
      k: states of a cycle.
      inputs: None, (n_inputs,) for all, or (n_candidates, n_inputs) one each, held constant.
      max_steps: iterations a search may take.

    Returns:
      Cycles.

    Raises:
      ValueError: if shapes do not fit, numbers are out of range, or params or inputs are not finite.

    Example:
      >>> cycles = find_cycles(lambda r, h, u: r * h * (1 - h), 3.2, np.array([[0.1], [0.5], [0.69]]), 2)
      >>> int(cycles.period[-1]), cycles.hidden[-1].ravel().round(4).tolist(), cycles.multipliers[-1].real.round(2)
      (2, [0.513, 0.7995], array([0.16]))

    Source: Kuznetsov (2004), Elements of Applied Bifurcation Theory, ch. 10.
    """
    arguments.check_step(step_fn)
    arguments.check_params(params)
    arguments.check_finite("params", params)
    arguments.check_count("k", k)
    arguments.check_count("max_steps", max_steps)
    candidates, inputs = arguments.candidates_with_inputs(candidates, inputs)
    n_candidates, n = candidates.shape
    with jax.enable_x64(True):
        wide = dynamics.widen(params)
        starts = _orbits()(step_fn, int(k), wide, jnp.asarray(candidates, jnp.float64), inputs)
        problem = judgment.Problem(
            _Unrolled(step_fn, int(k)), wide, "map", None, np.dtype(np.float64), float(np.finfo(float).eps), max_steps,
            0.0, None, None, None, 4, None, None,
        )  # fmt: skip
        points = waves.search_wave(problem, np.asarray(starts).reshape(n_candidates, -1), inputs).known.points
        rows = np.flatnonzero((points.status == FIXED) & points.isolated)
        orbits = points.hidden[rows].reshape(-1, k, n)
        drive = None if points.inputs is None else points.inputs[rows]
        periods = np.array([_least_period(orbit) for orbit in orbits], int)
        order = rows[np.lexsort((-points.n_hits[rows], periods))]
        owner = _up_to_shifts(orbits, drive)
        first = np.flatnonzero(owner == np.arange(len(owner)))
        hits = np.array([points.n_hits[rows[owner == i]].sum() for i in first], int)
        order = np.lexsort((-hits, periods[first]))
        first, hits = first[order], hits[order]
        inputs = None if drive is None else drive[first]
        multipliers = np.zeros((len(first), n), complex)
        for i, cycle in enumerate(first):
            own = None if drive is None else drive[cycle]
            jacobians = _jacobians()(step_fn, wide, jnp.asarray(orbits[cycle]), own)
            multipliers[i] = floquet_multipliers(np.asarray(jacobians)[: periods[cycle]])
    return Cycles(orbits[first], periods[first], inputs, points.speed[rows[first]], hits, multipliers)


@functools.cache
def _orbits() -> Any:
    def orbits(step_fn: StepFn, k: int, params: Params, hidden: Any, inputs: Any) -> Any:
        def one(h: Any, u: Any) -> Any:
            def step(x: Any, _: Any) -> Any:
                return arguments.step(step_fn, params, x, u).astype(x.dtype), x

            return jax.lax.scan(step, h, None, length=k)[1]

        return jax.vmap(one, in_axes=(0, None if inputs is None else 0))(hidden, inputs)

    return jax.jit(orbits, static_argnums=(0, 1))


@functools.cache
def _jacobians() -> Any:
    def jacobians(step_fn: StepFn, params: Params, orbit: Any, inputs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return jax.vmap(jax.jacfwd(lambda h: step_fn(params, h, inputs)))(orbit)

    return jax.jit(jacobians, static_argnums=0)


def _least_period(orbit: np.ndarray) -> int:
    k, scale = len(orbit), 1 + np.abs(orbit).max()
    divisors = (d for d in range(1, k + 1) if k % d == 0)
    return next(d for d in divisors if np.abs(np.roll(orbit, -d, axis=0) - orbit).max() <= _SAME * scale)


def _up_to_shifts(orbits: np.ndarray, inputs: np.ndarray | None) -> np.ndarray:
    """The first of those that are one orbit, begun elsewhere."""
    owner = np.arange(len(orbits))
    for i, orbit in enumerate(orbits):
        for j in range(i):
            if owner[j] == j and (inputs is None or (inputs[i] == inputs[j]).all()):
                gaps = [np.abs(np.roll(orbit, d, axis=0) - orbits[j]).max() for d in range(len(orbit))]
                if min(gaps) <= _SAME * (1 + np.abs(orbit).max()):
                    owner[i] = j
                    break
    return owner


def floquet_multipliers(jacobians: Array) -> np.ndarray:
    """Eigenvalues of a product of Jacobians J_m ... J_1, small ones as well as large ones.

    Args:
      jacobians: (m, n_hidden, n_hidden), J_1 first, along a closed orbit.

    Returns:
      (n_hidden,) complex, largest modulus first.

    Raises:
      ValueError: if jacobians are not a stack of finite square matrices.

    Example:
      >>> floquet_multipliers(np.stack([np.diag([2.0, 1e-9])] * 30)).real
      array([1.07374182e+009, 1.00000000e-270])

    Source: Bojanczyk, Golub & Van Dooren (1992), Proc. SPIE 1770:31 (periodic Schur form). Differs: some QR sweeps
      of it; multipliers of nearly equal moduli come from the eigenvalues of what is left.
    """
    jacobians = arguments.as_numpy("jacobians", jacobians, "(m, n_hidden, n_hidden)").astype(np.float64)
    if jacobians.ndim != 3 or jacobians.shape[1] != jacobians.shape[2] or not jacobians.size:
        raise ValueError(f"jacobians must be (m, n_hidden, n_hidden), none of them 0, got {jacobians.shape}.")
    arguments.check_finite("jacobians", jacobians)
    n = jacobians.shape[1]
    first = np.eye(n)
    for _ in range(_N_SWEEPS):
        basis, upper = first, np.eye(n)
        for jacobian in jacobians:
            basis, factor = np.linalg.qr(jacobian @ basis)
            upper = factor @ upper
        turn = first.T @ basis
        first = basis
    # Where the sweeps have converged, turn is block diagonal but for rounding, and the eigenvalues those of the blocks.
    cuts = [i for i in range(1, n) if np.abs(turn[i:, :i]).max() <= 64 * n * np.finfo(float).eps]
    parts = [slice(a, b) for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    values = np.concatenate([np.linalg.eigvals(turn[p, p] @ upper[p, p]) for p in parts]).astype(complex)
    return values[np.argsort(-np.abs(values), kind="stable")]


@dynamics.float64_on_numpy
def lyapunov_exponents(
    step_fn: StepFn,
    params: Params,
    hidden: Array,
    inputs: Array | None = None,
    *,
    n_time: int = 10_000,
    n_settle: int = 1_000,
    k: int | None = None,
    dt: float = 1.0,
    kind: Kind = "map",
) -> Any:
    """Lyapunov exponents of the orbit that begins at a state: mean growth rates of k perpendicular perturbations.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      hidden: (n_hidden,) or (n_points, n_hidden), where the orbit begins.
      inputs: None, (n_inputs,) or (n_points, n_inputs), held constant.
      n_time: steps averaged over.
      n_settle: steps before that: the orbit reaches its attractor, the perturbations their order.
      k: how many exponents, largest first; None for all.
      dt: duration of one step; of a flow that of one Runge-Kutta step.
      kind: "map" or "flow".

    Returns:
      (k,) or (n_points, k), per unit of time, largest first; -inf where a perturbation dies at once.

    Raises:
      ValueError: if the shapes do not fit, k or kind is out of range.

    Example:
      >>> lyapunov_exponents(lambda p, h, u: p @ h, np.diag([2.0, 0.5]), np.zeros(2), n_time=10).round(6).tolist()
      [0.693147, -0.693147]

    Source: Benettin, Galgani, Giorgilli & Strelcyn (1980), Meccanica 15:9.
    """
    n = hidden.shape[-1]
    arguments.check_count("n_time", n_time)
    k = n if k is None else k
    if k > n:
        raise ValueError(f"k must be from 1 to n_hidden = {n}, got {k}.")

    def one(h: jax.Array, u: jax.Array | None) -> jax.Array:
        def move(state: jax.Array) -> jax.Array:
            with jax.default_matmul_precision("highest"):
                return (
                    runge_kutta(lambda x: arguments.step(step_fn, params, x, u), state, dt)
                    if kind == "flow"
                    else arguments.step(step_fn, params, state, u)
                )

        def step(carry: Any, _: Any) -> Any:
            state, basis, total = carry
            moved, push = jax.linearize(move, state)
            basis, factor = jnp.linalg.qr(jax.vmap(push, in_axes=1, out_axes=1)(basis))
            return (moved, basis, total + jnp.log(jnp.abs(jnp.diagonal(factor)))), None

        start = np.linalg.qr(np.cos(np.arange(1.0, n * k + 1) ** 2).reshape(n, k))[0]  # in no invariant subspace
        begin = (h, jnp.asarray(start, h.dtype), jnp.zeros(k, h.dtype))
        (h, basis, _), _ = jax.lax.scan(step, begin, None, length=n_settle)
        (_, _, total), _ = jax.lax.scan(step, (h, basis, jnp.zeros(k, h.dtype)), None, length=n_time)
        return jnp.sort(total / (n_time * dt), descending=True)

    return dynamics.over_points(one, hidden, inputs)


def runge_kutta(velocity: Any, hidden: jax.Array, dt: Any) -> jax.Array:
    """One step of the classical Runge-Kutta method of order 4.

    Args:
      velocity: function of hidden (n_hidden,).
      hidden: (n_hidden,).
      dt: duration.

    Returns:
      (n_hidden,).

    Example:
      >>> round(float(runge_kutta(lambda x: x, jnp.ones(1), 0.1)[0]), 5)
      1.10517
    """
    k1 = velocity(hidden)
    k2 = velocity(hidden + dt / 2 * k1)
    k3 = velocity(hidden + dt / 2 * k2)
    k4 = velocity(hidden + dt * k3)
    return hidden + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
