"""Trajectories in silence, until it is sure in which of the known points they end.

Arrival. At a stable point x with Jacobian J let P solve J'PJ - P = -1 (map) or J'P + PJ = -1 (flow), with eigenvalues
from p to g. In the norm ||d||_P = (d'Pd)^(1/2) the linear dynamics contract every displacement, and so do those of any
slope J + E with ||E|| < 2/(5g). Let s be the first of sqrt(eps) (1 + ||x||), and sixteenths of it, with

    ||J(x + s e) - J(x)||_F < 1/(40 g)     in 16 directions e, 8 normal vectors and their opposites.

A trajectory has arrived within s (p/g)^(1/2) of x: this ball lies in an ellipsoid of the norm P of extent s, in which
the dynamics contract if the slope changes no more than 16 times as much as in the directions tried. In a quadratic map
the chance that it does is 1e-8 (chi-squared of 8 degrees, below 8/16^2), be it in one unit of many. A kink or a third
derivative within s is seen, too. A ball reaches no further than halfway to the next point.

Where else they end. A state that comes back, to rounding, to one it had before is at rest or on a cycle of the map
(Brent's algorithm: the state is compared with that at the last power of two). At rest at a known point that is not
stable is AT_SADDLE, else ELSEWHERE. What still moves after max_steps, on a limit cycle for one, is MAX_STEPS.

A flow is integrated by the Dormand-Prince pair of order 5(4), the step chosen so that its local error is below 1e-8 of
the step's LENGTH, not of the state: errors shrink with the motion near a point, where manifolds begin.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import arguments as given
from jaxfp import compiling, dynamics
from jaxfp.analysis import linearization
from jaxfp.search import dedupe
from jaxfp.types import (
    AT_SADDLE,
    ELSEWHERE,
    FIXED,
    MAX_STEPS,
    NONFINITE,
    REACHED,
    RUNNING,
    FixedPoints,
    Kind,
    Params,
    StepFn,
)

_EPS = float(np.finfo(float).eps)
_N_NEWTON = 3
_N_DOUBLINGS = 60  # an eigenvalue of 1 - eps needs 53 and some
_N_PROBES = 8
_SAFETY = 16
_TOLERANCE = 1e-8  # local error of a flow's step, of the step's length
# Dormand & Prince (1980): nodes are not needed for a field that is constant in time.
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


class Landscape(NamedTuple):
    """Known points of one system, and the balls in which trajectories have arrived.

    Attributes:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: of the step, float64.
      kind: "map" or "flow".
      hidden: (n_points, n_hidden).
      inputs: (n_points, n_inputs), or None.
      group: (n_points,) number of the distinct input of each point.
      jacobian: (n_points, n_hidden, n_hidden).
      stable: (n_points,) bool, surely; FIXED and isolated.
      unstable: (n_points,) bool, surely; FIXED and isolated.
      radius: (n_points,) activation units; -1 where the point is not stable.
      gap: (n_points,) distance of the next point at the same input; those equal to rounding are one.
      first_step: duration of a flow's first step of integration.
    """

    step_fn: StepFn
    params: Params
    kind: Kind
    hidden: np.ndarray
    inputs: np.ndarray | None
    group: np.ndarray
    jacobian: np.ndarray
    stable: np.ndarray
    unstable: np.ndarray
    radius: np.ndarray
    gap: np.ndarray
    first_step: float


class Ends(NamedTuple):
    """Where trajectories end.

    Attributes:
      hidden: (n_lanes, n_hidden) last states.
      outcome: (n_lanes,) REACHED, AT_SADDLE, ELSEWHERE, MAX_STEPS or NONFINITE.
      target: (n_lanes,) row of the point they end in; -1 for none that is listed.
      n_steps: (n_lanes,) steps taken, of integration for a flow.
      closest: (n_lanes, n_points) least distance from each point on the way; that of a flow at the ends of its steps.
    """

    hidden: np.ndarray
    outcome: np.ndarray
    target: np.ndarray
    n_steps: np.ndarray
    closest: np.ndarray


def read(step_fn: StepFn, params: Params, points: Any, modes: Any, kind: Kind | None) -> Landscape:
    """Take the arguments that all functions of trajectories share.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands.
      points: result of `find_fixed_points`, or plain (hidden (n_points, n_hidden), inputs None, (n_inputs,) or
        (n_points, n_inputs)), all of them taken for isolated fixed points and, if four digits of them are right or
        more, taken to the last digit.
      modes: `spectrum` of their Jacobians, with vectors.
      kind: "map" or "flow"; by default what the report of points says, "map" for plain arrays.

    Returns:
      Landscape.

    Raises:
      ValueError: if these are not what they must be.

    Example:
      >>> from jaxfp import spectrum
      >>> x = np.array([[-0.858561], [0.0], [0.858561]])
      >>> modes = spectrum(1.5 * (1 - x**2)[:, :, None])
      >>> read(lambda w, h, u: jnp.tanh(w * h), 1.5, (x, None), modes, None).stable.tolist()
      [True, False, True]
    """
    given.check_host(params, points, modes)
    given.check_step(step_fn)
    given.check_params(params)
    hidden, inputs, counts, known_kind = _points(points)
    if kind is not None:
        dynamics.check_kind(kind)
        if isinstance(points, FixedPoints) and kind != known_kind:
            raise ValueError(f'kind must be that of the search, "{known_kind}", got "{kind}".')
    verdict: Any = getattr(modes, "verdict", None)
    if np.shape(verdict) != (len(hidden),) or np.asarray(verdict).dtype.kind != "U":
        raise ValueError(f"modes must be the spectrum, with vectors, of {len(hidden)} points, got {given.came(modes)}.")
    kind = kind or known_kind
    stable, unstable = (counts & (np.asarray(verdict) == word) for word in ("stable", "unstable"))
    if not len(hidden):
        nothing = np.zeros((0, hidden.shape[1], hidden.shape[1]))
        none, group = np.zeros(0), np.zeros(0, int)
        return Landscape(step_fn, params, kind, hidden, inputs, group, nothing, stable, unstable, none, none, 1.0)
    group = dedupe.input_groups(inputs, len(hidden))[0]
    jacobian = linearization.linearize(step_fn, params, hidden, None if inputs is None else inputs).jacobian
    if not isinstance(points, FixedPoints):
        hidden = _polished(step_fn, params, kind, hidden, inputs, jacobian)
    fastest = max(np.linalg.norm(j, 2) for j in jacobian) if kind == "flow" else 1.0
    gap = _gaps(hidden, group)
    radius = _radii(step_fn, params, kind, hidden, inputs, jacobian, np.flatnonzero(stable))
    with jax.enable_x64(True):
        params = dynamics.widen(params)
    return Landscape(
        step_fn,
        params,
        kind,
        hidden,
        inputs,
        group,
        jacobian,
        stable,
        unstable,
        np.minimum(radius, gap / 2),
        gap,
        0.1 / max(float(fastest), _EPS),
    )


def _points(points: Any) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, Kind]:
    """Hidden, inputs (n_points, n_inputs) or None, which are isolated and FIXED, and the kind of the search."""
    if isinstance(points, FixedPoints):
        return points.hidden, points.inputs, (points.status == FIXED) & points.isolated, points.report.kind
    if not isinstance(points, tuple) or len(points) != 2:
        raise ValueError(f"points must be FixedPoints or a pair (hidden, inputs), got {given.came(points)}.")
    hidden = given.as_numpy("points: hidden", points[0], "(n_points, n_hidden)").astype(np.float64)
    if hidden.ndim != 2 or not hidden.shape[1] or not np.isfinite(hidden).all():
        raise ValueError(f"points: hidden must be (n_points, n_hidden) and finite, got {given.came(hidden)}.")
    return hidden, input_rows("points: inputs", points[1], len(hidden)), np.ones(len(hidden), bool), "map"


def input_rows(name: str, inputs: Any, n_rows: int) -> np.ndarray | None:
    """Inputs of each state.

    Args:
      name: of the argument.
      inputs: None, (n_inputs,) for all, or (n_rows, n_inputs).
      n_rows: how many states there are.

    Returns:
      (n_rows, n_inputs) float64, or None.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> input_rows("inputs", np.ones(3), 2).shape
      (2, 3)
    """
    if inputs is None:
        return None
    wanted = f"None, (n_inputs,) or ({n_rows}, n_inputs)"
    array = given.as_numpy(name, inputs, wanted).astype(np.float64)
    if array.ndim not in (1, 2) or (array.ndim == 2 and len(array) != n_rows) or not np.isfinite(array).all():
        raise ValueError(f"{name} must be {wanted} and finite, got {given.came(array)}.")
    return np.broadcast_to(array, (n_rows, array.shape[-1]))


def _polished(
    step_fn: StepFn, params: Params, kind: Kind, hidden: np.ndarray, inputs: Any, jacobian: np.ndarray
) -> np.ndarray:
    """Points of other tools, given to a few digits, by Newton's method with one Jacobian; the others as they are.

    A saddle that is off by more than its branches begin away from it would send both of them to one side.
    """
    slope = jacobian - np.eye(hidden.shape[1]) if kind == "map" else jacobian
    new = hidden
    for _ in range(_N_NEWTON):
        left = dynamics.residual(step_fn, params, new, inputs, kind=kind)
        # pinv where I - J is singular: a point on a continuum stays on it
        new = new - np.stack([np.linalg.pinv(a) @ r for a, r in zip(slope, left, strict=True)])
    near = np.linalg.norm(new - hidden, axis=1) <= _EPS**0.25 * (1 + np.linalg.norm(hidden, axis=1))
    return np.where(near[:, None], new, hidden)


def _gaps(hidden: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(n_points,) distance of the next point at the same input."""
    gap = np.full(len(hidden), np.inf)
    for row, point in enumerate(hidden):
        apart = np.linalg.norm(hidden[group == group[row]] - point, axis=1)
        gap[row] = apart[apart > 64 * _EPS * (1 + np.linalg.norm(point))].min(initial=np.inf)
    return gap


def _radii(
    step_fn: StepFn, params: Params, kind: Kind, hidden: np.ndarray, inputs: Any, jacobian: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """(n_points,) the radius within which a trajectory has arrived."""
    radius = np.full(len(hidden), -1.0)
    if not len(rows):
        return radius
    with jax.enable_x64(True):
        ways = np.asarray(jax.random.normal(jax.random.key(0), (_N_PROBES, hidden.shape[1]), np.float64))
    ways = np.concatenate([ways, -ways])
    for row in rows:
        P = _norm(jacobian[row], kind)
        if P is None:  # not surely stable, whatever the modes given say of it
            continue
        least, most = np.linalg.eigvalsh(P)[[0, -1]]
        size = 1 + np.linalg.norm(hidden[row])
        extent, drive = _EPS**0.5 * size, None if inputs is None else inputs[row]
        while extent > _EPS * size:
            slopes = linearization.linearize(step_fn, params, hidden[row] + extent * ways, drive).jacobian
            if np.linalg.norm(slopes - jacobian[row], axis=(1, 2)).max() < 0.4 / (_SAFETY * most):
                break
            extent /= 16
        radius[row] = extent * (least / most) ** 0.5
    return radius


def _norm(J: np.ndarray, kind: Kind) -> np.ndarray | None:
    """P, or None where none is found in which J surely contracts."""
    from scipy.linalg import solve_continuous_lyapunov

    identity = np.eye(len(J))
    with np.errstate(over="ignore", invalid="ignore"):  # where J is not stable
        if kind == "flow":
            P = solve_continuous_lyapunov(J.T, -identity)
            P = (P + P.T) / 2
            decay = -(J.T @ P + P @ J)
        else:  # P = sum of J'^k J^k, in twice as many terms each time: no cancellation
            P, power = identity, J
            for _ in range(_N_DOUBLINGS):
                more = power.T @ P @ power
                P, power = P + (more + more.T) / 2, power @ power
                if not np.abs(more).max() > _EPS * np.abs(P).max():
                    break
            decay = P - J.T @ P @ J
    if not (np.isfinite(P).all() and np.isfinite(decay).all()) or np.linalg.eigvalsh(P)[0] <= 0:
        return None
    return P if np.linalg.eigvalsh((decay + decay.T) / 2)[0] > 0.9 else None


def run(
    land: Landscape,
    hidden: np.ndarray,
    inputs: np.ndarray | None,
    max_steps: int,
    pulses: np.ndarray | None = None,
    dt: float = 1.0,
) -> Ends:
    """Run trajectories in one batch: first through pulses, if there are any, then in silence until they arrive.

    Args:
      land: see `Landscape`.
      hidden: (n_lanes, n_hidden) where they begin.
      inputs: (n_lanes, n_inputs) of the silence, or None.
      max_steps: steps in silence, of integration for a flow.
      pulses: (n_lanes, n_time, n_inputs), added to the inputs of the silence.
      dt: how long each step of the pulses lasts in a flow.

    Returns:
      Ends.

    Example:
      >>> from jaxfp import spectrum
      >>> x = np.array([[-0.858561], [0.0], [0.858561]])
      >>> step = lambda w, h, u: jnp.tanh(w * h)
      >>> land = read(step, 1.5, (x, None), spectrum(1.5 * (1 - x**2)[:, :, None]), None)
      >>> run(land, np.array([[-1e-3], [0.0], [2.0]]), None, 1000).target.tolist()
      [0, 1, 2]
    """
    if not len(hidden):
        none = np.zeros(0, int)
        return Ends(hidden, none, none, none, np.zeros((0, len(land.hidden))))
    alike = np.ones((len(hidden), len(land.hidden)), bool)
    if land.inputs is not None and inputs is not None:
        alike = (inputs[:, None] == land.inputs).all(-1)
    with jax.enable_x64(True):
        found = _run(
            land.step_fn, land.kind, land.params, jnp.asarray(land.hidden), np.where(alike, land.radius, -1.0),
            jnp.asarray(hidden), None if inputs is None else jnp.asarray(inputs),
            None if pulses is None else jnp.asarray(pulses), land.first_step, float(dt), max_steps,
        )  # fmt: skip
        last, outcome, n_steps, distance, closest = (np.array(x) for x in found)
    target = np.full(len(hidden), -1)
    size = 1 + np.linalg.norm(land.hidden, axis=1)
    for lane in np.flatnonzero((outcome == REACHED) | (outcome == ELSEWHERE)):
        near = np.where(alike[lane], distance[lane] / size, np.inf)
        row = int(near.argmin()) if len(near) else -1
        if outcome[lane] == REACHED or (row >= 0 and near[row] <= _EPS**0.5):
            target[lane], outcome[lane] = row, REACHED if land.stable[row] else AT_SADDLE
    return Ends(last, outcome, target, n_steps, closest)


def _run_lanes(
    step_fn: StepFn, kind: Kind, params: Params, centers: Any, radii: Any, hidden: Any, inputs: Any, pulses: Any,
    first_step: Any, dt: Any, max_steps: Any,
) -> Any:  # fmt: skip
    """(last state, outcome, steps, distances at the end, least distances) of each lane."""

    def one(h: jax.Array, u: Any, pulse: Any, radius: jax.Array) -> Any:
        if pulse is not None:
            drive = pulse if u is None else pulse + u[None]
            push = functools.partial(_driven, step_fn, kind, params, first_step, dt)
            h = jax.lax.scan(lambda x, now: (push(x, now), None), h, drive)[0]

        def distances(x: jax.Array) -> jax.Array:
            return jnp.linalg.norm(centers - x[None], axis=1)

        def body(state: Any) -> Any:
            x, time_step, number, reference, closest, _ = state
            new, time_step, moved = _advance(step_fn, kind, params, x, u, time_step)
            number, distance = number + 1, distances(new)
            back = moved & (jnp.linalg.norm(new - reference) <= 4 * _EPS * (1 + jnp.linalg.norm(new)))
            code = jnp.where(number >= max_steps, MAX_STEPS, RUNNING)
            code = jnp.where(back, ELSEWHERE, code)
            code = jnp.where((distance <= radius).any(), REACHED, code)
            lost = ~jnp.isfinite(new).all() | (time_step < 1e-12 * first_step)
            code = jnp.where(lost, NONFINITE, code)
            reference = jnp.where(number & (number - 1) == 0, new, reference)
            return new, time_step, number, reference, jnp.minimum(closest, distance), code

        start = (h, jnp.asarray(first_step, h.dtype), 0, h, distances(h), RUNNING)
        x, _, number, _, closest, code = jax.lax.while_loop(lambda state: state[-1] == RUNNING, body, start)
        return x, code, number, distances(x), closest

    axes = (0, None if inputs is None else 0, None if pulses is None else 0, 0)
    return jax.vmap(one, in_axes=axes)(hidden, inputs, pulses, radii)


_run = compiling.jit(_run_lanes, static_argnums=(0, 1))


def _driven(
    step_fn: StepFn, kind: Kind, params: Params, first_step: Any, dt: Any, h: jax.Array, u: jax.Array
) -> jax.Array:
    """One step of a pulse: a step of the map, or dt of the flow."""
    if kind == "map":
        return _advance(step_fn, kind, params, h, u, first_step)[0]

    def body(state: Any) -> Any:
        x, time_step, left = state
        tried = jnp.minimum(time_step, left)
        new, wanted, moved = _advance(step_fn, kind, params, x, u, tried)
        # A last step that was cut short says little about the next.
        longer = jnp.where(moved & (tried < time_step), jnp.maximum(time_step, wanted), wanted)
        return new, longer, jnp.where(moved, left - tried, left)

    def goes_on(state: Any) -> jax.Array:
        return (state[2] > 0) & (state[1] >= 1e-12 * first_step)

    return jax.lax.while_loop(goes_on, body, (h, jnp.minimum(first_step, dt), dt))[0]


def _advance(step_fn: StepFn, kind: Kind, params: Params, h: jax.Array, u: Any, time_step: Any) -> Any:
    """(new state, next time step, was it taken)."""

    def step(x: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return given.step(step_fn, params, x, u).astype(x.dtype)

    if kind == "map":
        return step(h), time_step, True
    slopes = [step(h)]
    for row in _STAGES:
        new = h + time_step * sum(a * k for a, k in zip(row, slopes, strict=True))
        slopes.append(step(new))
    error = jnp.linalg.norm(time_step * sum(e * k for e, k in zip(_ERROR, slopes, strict=True)))
    allowed = _TOLERANCE * jnp.linalg.norm(new - h) + _EPS * (1 + jnp.linalg.norm(h))
    share = jnp.where(jnp.isfinite(error), error / allowed, jnp.inf)
    taken = share <= 1
    factor = jnp.clip(0.9 * jnp.maximum(share, 1e-10) ** -0.2, 0.2, 5.0)
    return jnp.where(taken, new, h), time_step * factor, taken
