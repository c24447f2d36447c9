"""One step along a curve of fixed points: predict along the tangent, correct by Newton, measure whether to believe it.

The points x of a residual r(x, s) that depends on a position s along a path form curves z = (x, s) with r(z) = 0. Their
tangent t solves [r_x r_s] t = 0, and with one more row c

    M = [r_x r_s; c],   M y = e_last,   t = y / ||y||,   y_s = det r_x / det M     (Cramer)

which is regular at a fold, where r_x is not, if c is the tangent of the step before (pseudo-arclength), and puts the
new point at a given s if c = e_s (natural parameter). A step predicts p = z + a t and iterates z <- z - M(p)^-1 (r; 0)
in the plane c (z - p) = 0. It is believed only if all of this holds:

    the iteration converges, and its second correction is no more than a quarter of the first
    the corrections add up to no more than 0.3 a, and the tangent turns by less than 26 degrees
    the chord z' - z has the direction t + t' but for half of what was corrected (or 1e-3 a)

On a smooth curve what the last line measures is of third order in a, the correction of second; a jump to a parallel
curve makes them equal. A jump across a near crossing reverses the sign of det M, which only a branch point may do.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import lu_solve

from jaxfp import compiling, dynamics
from jaxfp.types import Kind, Params, StepFn

_SIZES = (64, 16, 4)  # lanes that a program is compiled for
_N_CORRECTIONS = 12


class Path(NamedTuple):
    """Inputs and params along a path of n_steps samples, linear between them; s counts samples from 0.

    Attributes:
      params: pytree; leaves (n_networks, n_steps, ...), n_networks and n_steps only where `networks` and `varies` say.
      inputs: (n_rows, n_steps, n_inputs), one row for each point, or None.
      varies: for each leaf of params, whether it has an axis n_steps.
      networks: whether each leaf has an axis n_networks.
      n_steps: samples of the path.
    """

    params: Params
    inputs: np.ndarray | None
    varies: tuple[bool, ...]
    networks: bool
    n_steps: int


class Proposal(NamedTuple):
    """Where a step arrives, with what was measured there; leading axis n_lanes.

    Attributes:
      place: (n_hidden + 1,) z = (hidden, s).
      tangent: (n_hidden + 1,) in the segment of the step.
      onward: (n_hidden + 1,) tangent in the segment that follows.
      sign: sign of det r_x.
      log_size: log |det r_x|.
      speed: ||r|| at the place.
      error: distance from the prediction.
      converged: the corrections ended in rounding.
      believed: nothing speaks for another curve.
      jacobian: (n_hidden, n_hidden) r_x.
    """

    place: Any
    tangent: Any
    onward: Any
    sign: Any
    log_size: Any
    speed: Any
    error: Any
    converged: Any
    believed: Any
    jacobian: Any


class Lane(NamedTuple):
    """Where a lane stands and what it is to do; leading axis n_lanes.

    Attributes:
      place: (n_hidden + 1,).
      tangent: (n_hidden + 1,) unit.
      step: length of the step along the tangent.
      lands: whether the step ends exactly at the predicted s.
      segment: of the path, from sample `segment` to the next.
      onward: the segment that follows.
      row: of the inputs.
      network: of the params.
    """

    place: Any
    tangent: Any
    step: Any
    lands: Any
    segment: Any
    onward: Any
    row: Any
    network: Any


def propose(step_fn: StepFn, kind: Kind, path: Path, lanes: Lane) -> Proposal:
    """Take one step of every lane; nothing is decided. Needs x64 in scope.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      kind: "map" or "flow".
      path: see `Path`.
      lanes: see `Lane`, NumPy.

    Returns:
      Proposal of NumPy arrays.

    Example:
      >>> path = Path(np.array([0.5, 0.9]), None, (True,), False, 2)
      >>> lane = Lane(np.zeros((1, 2)), np.eye(2)[1:], np.full(1, 0.5), np.ones(1, bool), *np.zeros((4, 1), int))
      >>> with jax.enable_x64(True):
      ...     propose(lambda p, h, u: jnp.tanh(p * h), "map", path, lane).place.tolist()
      [[0.0, 0.5]]
    """
    n_lanes, parts, start = len(lanes.step), [], 0
    inputs = path.inputs
    while start < n_lanes:
        left = n_lanes - start
        size = next((size for size in _SIZES if 4 * left >= 3 * size), _SIZES[-1])  # little of it filled up
        rows = np.minimum(np.arange(start, start + size), n_lanes - 1)  # the last one fills up
        some = Lane(*(np.asarray(x)[rows] for x in lanes))
        ends = None
        if inputs is not None:
            ends = inputs[some.row[:, None, None], np.stack([some.segment, some.onward], 1)[:, :, None] + [0, 1]]
        parts.append(_program()(step_fn, kind, path.varies, path.networks, path.params, ends, some))
        start += size
    return Proposal(*(np.concatenate([np.asarray(x) for x in column])[:n_lanes] for column in zip(*parts, strict=True)))


@functools.cache
def _program() -> Any:
    return compiling.jit(_propose, static_argnums=(0, 1, 2, 3))


def _propose(step_fn: StepFn, kind: Kind, varies: Any, networks: bool, params: Params, ends: Any, lanes: Lane) -> Any:
    leaves, tree = jax.tree.flatten(params)

    def one(lane: Lane, ends: Any) -> Proposal:
        def residual(place: jax.Array, onward: bool) -> jax.Array:
            segment = lane.onward if onward else lane.segment
            hidden, part = place[:-1], place[-1] - segment.astype(place.dtype)

            def along(two: Any) -> jax.Array:
                return two[0] + part * (two[1] - two[0])

            own = [leaf[lane.network] if networks else leaf for leaf in leaves]
            own = [
                along(jax.lax.dynamic_slice_in_dim(leaf, segment, 2)) if varied else leaf
                for leaf, varied in zip(own, varies, strict=True)
            ]
            inputs = None if ends is None else along(ends[1 if onward else 0])
            return dynamics.residual_fn(step_fn, jax.tree.unflatten(tree, own), inputs, kind)(hidden)

        return _step(residual, lane)

    return jax.vmap(one, in_axes=(0, None if ends is None else 0))(lanes, ends)


def _step(residual: Any, lane: Lane) -> Proposal:
    n = lane.place.shape[0] - 1
    last = jnp.zeros(n + 1).at[-1].set(1.0)
    plane = jnp.where(lane.lands, last, lane.tangent)
    predicted = lane.place + lane.step * lane.tangent
    here = functools.partial(residual, onward=False)

    def factors(place: jax.Array) -> tuple[jax.Array, Any]:
        matrix = jnp.concatenate([jax.jacfwd(here)(place), plane[None]])
        lu, pivots, _ = jax.lax.linalg.lu(matrix)
        return matrix, (lu, pivots)

    at_prediction = factors(predicted)[1]
    scale = 1 + jnp.linalg.norm(predicted)

    def corrects(state: Any) -> jax.Array:
        _, number, _, size, ratio = state
        return (number < _N_CORRECTIONS) & (size > 1e-12 * scale) & (ratio < 1)

    def correct(state: Any) -> Any:
        place, number, first, size, _ = state
        change = -lu_solve(at_prediction, jnp.append(here(place), plane @ (place - predicted)))
        new = jnp.linalg.norm(change)
        ratio = jnp.where(number == 0, 0.0, new / size)  # of the second to the first, then of each to the one before
        first = jnp.where(number == 1, jnp.where(size > 1e-9 * scale, ratio, 0.0), first)
        return place + change, number + 1, first, new, ratio

    place, _, contraction, _, _ = jax.lax.while_loop(corrects, correct, (predicted, 0, 0.0, jnp.inf, 0.0))
    matrix, (lu, pivots) = factors(place)
    # r_x is the same in the next segment, r_s is not: M (t_x; 1) = (r_s - r_s'; 1) where c = e_s.
    kink = matrix[:-1, -1] - jax.jvp(functools.partial(residual, onward=True), (place,), (last,))[1]
    right = jnp.stack([jnp.append(here(place), plane @ (place - predicted)), last, jnp.append(kink, 1.0)], axis=1)
    change, y, y_onward = lu_solve((lu, pivots), right).T
    place = place - change
    place = jnp.where(lane.lands, place.at[-1].set(predicted[-1]), place)

    way = jnp.where(lane.lands, jnp.sign(lane.tangent[-1]), 1.0)
    tangent, onward = way * y / jnp.linalg.norm(y), way * y_onward / jnp.linalg.norm(y_onward)
    diagonal = jnp.diagonal(lu)
    swaps = jnp.sum(pivots != jnp.arange(n + 1, dtype=pivots.dtype))
    sign = jnp.prod(jnp.sign(diagonal)) * jnp.where(swaps % 2 == 0, 1.0, -1.0) * jnp.sign(y[-1])
    log_size = jnp.sum(jnp.log(jnp.abs(diagonal))) + jnp.log(jnp.abs(y[-1]))

    error = jnp.linalg.norm(place - predicted)
    chord, mean = place - lane.place, lane.tangent + tangent
    bent = jnp.linalg.norm(chord - mean * (mean @ chord) / (mean @ mean))
    length = jnp.abs(lane.step)
    converged = (jnp.linalg.norm(change) <= 1e-8 * scale) & jnp.isfinite(place).all() & jnp.isfinite(tangent).all()
    believed = (
        converged
        & (contraction <= 0.25)
        & (error <= 0.3 * length)
        & (lane.tangent @ tangent >= 0.9)
        & (bent <= jnp.maximum(0.5 * error, 1e-3 * length))
    )
    speed = jnp.linalg.norm(here(place))
    return Proposal(place, tangent, onward, sign, log_size, speed, error, converged, believed, matrix[:-1, :-1])
