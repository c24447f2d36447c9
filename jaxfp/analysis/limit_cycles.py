"""Limit cycles of flows, and the invariant circles of maps that stand for them, with their period.

m states a period T apart from each other by T/m, and the phase held by the velocity f at the first guess a:

    phi(x_i, T/m) = x_{i+1},  x_m = x_0,  f(a) (x_0 - a) = 0        (multiple shooting; unknown: all x_i, and T)

by Newton, whether the cycle is stable or not. phi(x, t) is

    flow    Runge-Kutta 4 over t. What its steps cost in T is measured with steps twice as long.
    map     t/dt iterations of F; where t/dt is no integer, interpolation between iterates (8 points). An Euler network
            is such a map, and this is ITS invariant circle. For the limit cycle of the flow (F(h) - h)/dt, which lies
            O(dt) away and has another period, pass that flow. On a circle that turns by the angle rho a step, the
            iterates are samples h(j rho) of a smooth closed curve, T = 2 pi dt / rho, and interpolation leaves
            O(rho^8); a stencil of 6 says how much. Within a resonance tongue, where the circle is made of cycles and
            the curve not smooth, nothing converges, or to what interpolation makes of it.

Floquet multipliers are those of phi(., T) at x_0; one of them is 1. For a map they belong to the interpolated return:
growth in one turn of the circle.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import arguments, compiling, dynamics
from jaxfp.analysis import cycles
from jaxfp.types import Array, Kind, Params, StepFn

_STENCIL = 8
_SUBSTEPS = 256  # of Runge-Kutta, in each of the m pieces at least
_N_NEWTON = 20
_SAME = 0.1  # of the size of the orbit: what 8 states say of the curve between them


class LimitCycles(NamedTuple):
    """Limit cycles, in the order of the candidates that first reached them.

    Attributes:
      hidden: (n_cycles, n_segments, n_hidden) states at equal times, from t = 0 to (1 - 1/n_segments) T.
      period: (n_cycles,) T, in the unit of dt.
      period_error: (n_cycles,) how far T moves with steps twice as long (flow) or a stencil of 6 points (map).
      inputs: (n_cycles, n_inputs) or None.
      speed: (n_cycles,) norm of the equations left.
      multipliers: (n_cycles, n_hidden) complex, largest modulus first; one of them is 1, along the orbit.
      n_hits: (n_cycles,) candidates that ended here.
      cycle_of_candidate: (n_candidates,) the cycle each ended on, -1 where it went to none.
    """

    hidden: np.ndarray
    period: np.ndarray
    period_error: np.ndarray
    inputs: np.ndarray | None
    speed: np.ndarray
    multipliers: np.ndarray
    n_hits: np.ndarray
    cycle_of_candidate: np.ndarray


def find_limit_cycles(
    step_fn: StepFn,
    params: Params,
    candidates: Array,
    inputs: Any = None,
    *,
    dt: float,
    kind: Kind = "map",
    period: Any = None,
    n_segments: int = 8,
    n_settle: int = 2000,
    n_time: int = 4000,
) -> LimitCycles:
    """Limit cycles that candidates run into, or lie near.

    A host function: NumPy in, NumPy out, float64 whatever the caller's x64 setting.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      candidates: (n_candidates, n_hidden) states.
      inputs: None, (n_inputs,) for all, or (n_candidates, n_inputs) one each, held constant.
      dt: duration of one step of the map; of a flow, of one step of the simulation that makes the first guess.
      kind: "map" or "flow"; says what the cycle is, see the module.
      period: scalar or (n_candidates,), the first guess of T for candidates that lie near a cycle, which need not
        be stable. By default each candidate is simulated, and a cycle found where it comes back.
      n_segments: m, states of multiple shooting.
      n_settle: steps of simulation before a return is looked for.
      n_time: steps in which it is looked for; the longest period is n_time dt.

    Returns:
      LimitCycles.

    Raises:
      ValueError: if shapes do not fit or numbers are out of range.

    Example:
      >>> def circle(mu, h, u):  # radius sqrt(mu), period 2 pi
      ...     return (mu - h @ h) * h + jnp.stack([-h[1], h[0]])
      >>> found = find_limit_cycles(circle, 0.25, np.array([[0.1, 0.0]]), dt=0.05, kind="flow")
      >>> found.period.round(8).tolist(), np.linalg.norm(found.hidden[0], axis=1).round(6)[0]
      ([6.28318531], np.float64(0.5))

    Source: Keller (1968), Numerical Methods for Two-Point Boundary-Value Problems; for maps Kuznetsov (2004), ch. 4 and
      7. Differs: the circle of a map by interpolated returns.
    """
    dynamics.check_kind(kind)
    arguments.check_step(step_fn)
    arguments.check_params(params)
    arguments.check_finite("params", params)
    arguments.check_number("dt", dt, positive=True)
    arguments.check_count("n_segments", n_segments)
    arguments.check_count("n_settle", n_settle, least=0)
    arguments.check_count("n_time", n_time)
    candidates, inputs = arguments.candidates_with_inputs(candidates, inputs)
    candidates, n_candidates = candidates.astype(np.float64), len(candidates)
    with jax.enable_x64(True):
        wide = dynamics.widen(params)
        if period is None:
            states = _run(step_fn, kind, n_settle, n_time, wide, candidates, inputs, float(dt))
            starts, periods = _returns(np.asarray(states), dt)
        else:
            starts, periods = candidates, _given(period, n_candidates)
        rows = np.flatnonzero(np.isfinite(periods))
        if not len(rows):
            return _nothing(n_candidates, candidates.shape[1], n_segments, inputs)
        longest = int(np.ceil(1.25 * periods[rows].max() / dt / n_segments)) + _STENCIL
        n_steps = longest if kind == "map" else max(_SUBSTEPS, longest)
        drive = None if inputs is None else inputs[rows]
        found = [
            np.asarray(x)
            for x in _solve(step_fn, kind, n_segments, n_steps, wide, starts[rows], periods[rows], drive, float(dt))
        ]
        return _distinct(rows, n_candidates, inputs, found)


def _given(period: Any, n_candidates: int) -> np.ndarray:
    """(n_candidates,)."""
    periods = arguments.as_numpy("period", period, f"a number or ({n_candidates},)")
    if isinstance(period, bool) or periods.shape not in ((), (n_candidates,)) or not (periods > 0).all():
        raise ValueError(f"period must be positive, a number or ({n_candidates},), got {arguments.came(period)}.")
    arguments.check_finite("period", periods)
    return np.broadcast_to(periods, (n_candidates,)).astype(np.float64)


def _moves(step_fn: StepFn, kind: Kind, params: Params, inputs: Any, n_steps: int, stencil: int, dt: Any) -> Any:
    """phi(x, t)."""

    def step(x: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return arguments.step(step_fn, params, x, inputs).astype(x.dtype)

    def flow(x: jax.Array, t: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, _: (cycles.runge_kutta(step, x, t / n_steps), None), x, None, length=n_steps)[0]

    def iterate(x: jax.Array, t: jax.Array) -> jax.Array:
        first = jnp.clip(jnp.floor(t / dt).astype(int) - stencil // 2 + 1, 0, n_steps)
        place, number = t / dt - first.astype(x.dtype), np.arange(float(stencil))
        others = number[:, None] != number  # Lagrange's weights, as products over the other nodes
        weights = jnp.prod(jnp.where(others, place - number, 1.0), axis=1) / np.prod(
            np.where(others, number[:, None] - number, 1.0), axis=1
        )
        weights = jax.lax.dynamic_update_slice_in_dim(jnp.zeros(n_steps + stencil, x.dtype), weights, first, 0)

        def add(state: Any, weight: jax.Array) -> Any:  # summed on the way: an orbit with its derivatives is large
            x, total = state
            return (step(x), total + weight * x), None

        return jax.lax.scan(add, (x, jnp.zeros_like(x)), weights)[0][1]

    return flow if kind == "flow" else iterate


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(
    step_fn: StepFn, kind: Kind, n_settle: int, n_time: int, params: Params, hidden: Any, inputs: Any, dt: Any
) -> jax.Array:
    """States (n_candidates, n_time, n_hidden) after n_settle steps."""

    def one(h: jax.Array, u: Any) -> jax.Array:
        def step(x: jax.Array, _: Any) -> Any:
            field = functools.partial(lambda x: arguments.step(step_fn, params, x, u).astype(x.dtype))
            return (cycles.runge_kutta(field, x, dt) if kind == "flow" else field(x)), x

        h = jax.lax.scan(lambda x, _: (step(x, None)[0], None), h, None, length=n_settle)[0]
        return jax.lax.scan(step, h, None, length=n_time)[1]

    return jax.vmap(one, in_axes=(0, None if inputs is None else 0))(hidden, inputs)


def _returns(states: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """First states, and the time after which each comes back through the plane it began in; NaN where it does not."""
    starts, periods = states[:, 0], np.full(len(states), np.nan)
    for i, orbit in enumerate(states):
        size = np.ptp(orbit, axis=0).max()
        if not np.isfinite(orbit).all() or size <= 1e-6 * (1 + np.abs(orbit[0]).max()):
            continue
        side = (orbit - orbit[0]) @ (orbit[1] - orbit[0])
        ups = np.flatnonzero((side[:-1] <= 0) & (side[1:] > 0))
        ups = ups[ups > 1]
        share = -side[ups] / (side[ups + 1] - side[ups])
        gap = np.linalg.norm(orbit[ups] + share[:, None] * (orbit[ups + 1] - orbit[ups]) - orbit[0], axis=1)
        near = np.flatnonzero(gap <= 0.02 * size)
        if len(near):
            periods[i] = (ups[near[0]] + share[near[0]]) * dt
    return starts, periods


def _solve(
    step_fn: StepFn, kind: Kind, m: int, n_steps: int, params: Params, starts: Any, periods: Any, inputs: Any, dt: float
) -> Any:
    return _program()(step_fn, kind, m, n_steps, params, starts, periods, inputs, dt)


@functools.cache
def _program() -> Any:
    return compiling.jit(_newton, static_argnums=(0, 1, 2, 3))


def _newton(
    step_fn: StepFn, kind: Kind, m: int, n_steps: int, params: Params, starts: Any, periods: Any, inputs: Any, dt: Any
) -> Any:
    """(states, period, the same with coarser steps, norm of the equations, Jacobians of the pieces), each candidate."""

    def one(start: jax.Array, period: jax.Array, u: Any) -> Any:
        n = start.shape[0]
        fine = _moves(step_fn, kind, params, u, n_steps, _STENCIL, dt)
        coarse = _moves(step_fn, kind, params, u, n_steps // 2 if kind == "flow" else n_steps, _STENCIL - 2, dt)
        velocity = arguments.step(step_fn, params, start, u) - (0 if kind == "flow" else start)
        velocity = velocity / jnp.linalg.norm(velocity)

        def equations(unknown: jax.Array, move: Any) -> jax.Array:
            x, t = unknown[:-1].reshape(m, n), unknown[-1]
            gaps = jax.vmap(lambda h: move(h, t / m))(x) - jnp.roll(x, -1, axis=0)
            return jnp.append(gaps.reshape(-1), velocity @ (x[0] - start))

        def pieces(unknown: jax.Array, move: Any) -> tuple[jax.Array, jax.Array]:
            x, t = unknown[:-1].reshape(m, n), unknown[-1]
            by_state = jax.vmap(jax.jacfwd(move), in_axes=(0, None))(x, t / m)
            by_time = jax.vmap(lambda h: jax.jvp(lambda s: move(h, s), (t / m,), (jnp.ones_like(t),))[1])(x)
            return by_state, by_time / m

        def improve(unknown: jax.Array, move: Any) -> jax.Array:
            by_state, by_time = pieces(unknown, move)
            matrix = jnp.zeros((m, n, m, n))
            each = jnp.arange(m)
            matrix = matrix.at[each, :, each].set(by_state)
            matrix = matrix.at[each, :, (each + 1) % m].add(-jnp.eye(n)[None])
            matrix = jnp.concatenate([matrix.reshape(m * n, m * n), by_time.reshape(m * n, 1)], axis=1)
            phase = jnp.zeros((1, m * n + 1)).at[0, :n].set(velocity)
            return unknown - jnp.linalg.solve(jnp.concatenate([matrix, phase]), equations(unknown, move))

        def solved(unknown: jax.Array, move: Any) -> jax.Array:
            def goes_on(state: Any) -> jax.Array:
                _, number, size = state
                return (number < _N_NEWTON) & (size > 1e-11)  # false for NaN, too

            def step(state: Any) -> Any:
                old, number, _ = state
                new = improve(old, move)
                return new, number + 1, jnp.linalg.norm(new - old) / (1 + jnp.linalg.norm(old))

            return jax.lax.while_loop(goes_on, step, (unknown, 0, jnp.inf))[0]

        x = jax.lax.scan(lambda x, _: (fine(x, period / m), x), start, None, length=m)[1]
        unknown = solved(jnp.append(x.reshape(-1), period), fine)
        rough = improve(unknown, coarse)  # one Newton step: it begins next to its end
        left = jnp.linalg.norm(equations(unknown, fine))
        return unknown[:-1].reshape(m, n), unknown[-1], rough[-1], left, pieces(unknown, fine)[0]

    return jax.vmap(one, in_axes=(0, 0, None if inputs is None else 0))(starts, periods, inputs)


def _nothing(n_candidates: int, n_hidden: int, m: int, inputs: Any) -> LimitCycles:
    none = np.zeros(0)
    drive = None if inputs is None else inputs[:0]
    empty = np.zeros((0, n_hidden), complex)
    return LimitCycles(
        np.zeros((0, m, n_hidden)), none, none, drive, none, empty, none.astype(int), np.full(n_candidates, -1)
    )


def _distinct(rows: np.ndarray, n_candidates: int, inputs: Any, found: list[np.ndarray]) -> LimitCycles:
    """What converged to a cycle, each cycle once."""
    states, period, rough, left, jacobians = found
    n_hidden = states.shape[2]
    size = np.ptp(states, axis=1).max(axis=1)
    with np.errstate(invalid="ignore"):
        well = (left <= 1e-8 * (1 + size)) & (period > 0) & (size > 1e-6 * (1 + np.abs(states).max(axis=(1, 2))))
    of_candidate, kept = np.full(n_candidates, -1), list[int]()
    for i in map(int, np.flatnonzero(well)):
        for number, j in enumerate(kept):
            alike = inputs is None or (inputs[rows[i]] == inputs[rows[j]]).all()
            if alike and abs(period[i] - period[j]) <= 1e-6 * period[j] and _on(states[i], states[j]):
                of_candidate[rows[i]] = number
                break
        else:
            of_candidate[rows[i]] = len(kept)
            kept.append(i)
    multipliers = np.array([cycles.floquet_multipliers(jacobians[i]) for i in kept], complex).reshape(-1, n_hidden)
    return LimitCycles(
        states[kept], period[kept], np.abs(rough - period)[kept], None if inputs is None else inputs[rows[kept]],
        left[kept], multipliers, np.bincount(of_candidate[of_candidate >= 0], minlength=len(kept)), of_candidate,
    )  # fmt: skip


def _on(states: np.ndarray, others: np.ndarray) -> bool:
    """Are states of one orbit near the curve through those of another? Equal periods say the rest."""
    m = len(others)
    size = np.linalg.norm(np.ptp(others, axis=0))
    curve = np.fft.irfft(np.fft.rfft(others, axis=0), n=32 * m, axis=0) * 32  # trigonometric interpolation
    gaps = np.linalg.norm(states[:, None] - curve, axis=2).min(axis=1)
    return bool(gaps.max() <= _SAME * size)
