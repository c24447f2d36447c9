"""What is true: points that a float64 Newton refinement confirms, whoever reported them.

Not a script. A reported point h is confirmed if Newton from it, in float64, ends at the rounding floor,

    ||r|| <= 8 eps sqrt(n) max(||h||, || |J_r| |h| ||)   and   ||J_r^-1 r|| <= sqrt(eps) (1 + ||h||),

within 1e-3 sqrt(n) of h (1e-3 in each unit is the distance within which FixedPointFinder takes two points for one), and
inside the box that the map sends into itself, where one is known. Everything else that a side calls a fixed point is
spurious. Confirmed points closer than 2 sqrt(eps) (1 + ||h||) are one.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import networks

NEAR = 1e-3  # per unit, root mean square
MOST = 2048  # points of one side that are refined, those with the lowest q


class Points(NamedTuple):
    """Points of one network.

    Attributes:
      hidden: (n_points, n_hidden) float64.
      inputs: (n_points, n_inputs) float64, or None.
    """

    hidden: np.ndarray
    inputs: np.ndarray | None


def take(points: Points, rows: Any) -> Points:
    """Some of the points."""
    return Points(points.hidden[rows], None if points.inputs is None else points.inputs[rows])


def q_of(network: networks.Network, points: Points) -> np.ndarray:
    """Half the squared residual of each point in float64, weights as given.

    Args:
      network: whose.
      points: where.

    Returns:
      (n_points,).
    """
    with jax.enable_x64(True):
        params = _widen(network.params)
        rows = [_q(network.step_fn, params, *chunk) for chunk in _chunks(points, 1024)]
    return np.concatenate([np.asarray(row) for row in rows] or [np.zeros(0)])


def merge(points: Points, radius: np.ndarray) -> np.ndarray:
    """Which point each is the same as: greedy, in order, at equal inputs.

    Args:
      points: to merge.
      radius: (n_points,) of each.

    Returns:
      (n_points,) row of the first point that each is the same as; its own for a new one.
    """
    hidden, inputs = points
    label, todo = np.arange(len(hidden)), np.arange(len(hidden))
    sketch = hidden[:, :: max(1, hidden.shape[1] // 8)]  # some units first: cheap, and never farther apart than all are
    while len(todo):
        i = todo[0]
        same = np.abs(sketch[todo] - sketch[i]).max(axis=1) <= radius[i]
        near = todo[same]
        same[same] = np.linalg.norm(hidden[near] - hidden[i], axis=1) <= radius[i]
        if inputs is not None:
            same[same] = (inputs[todo[same]] == inputs[i]).all(axis=1)
        same[0] = True
        label[todo[same]] = i
        todo = todo[~same]
    return label


def refine(network: networks.Network, points: Points) -> tuple[Points, np.ndarray]:
    """Newton from each point, in float64.

    Args:
      network: whose.
      points: as reported.

    Returns:
      Where it ended; (n_points,) True where that confirms the reported point.
    """
    n_hidden = network.candidates.shape[1]
    size = max(1, min(256, 2**24 // n_hidden**2))
    with jax.enable_x64(True):
        params = _widen(network.params)
        ended = [_newton(network.step_fn, params, *chunk) for chunk in _chunks(points, size)]
        if not ended:
            return points, np.zeros(0, bool)
        hidden, floor = (np.concatenate([np.asarray(x) for x in column]) for column in zip(*ended, strict=True))
        inside = np.ones(len(hidden), bool)
        if getattr(network.step_fn, "bounded", False):
            for i, h in enumerate(hidden):
                lower, upper = network.step_fn.box(params, None if points.inputs is None else points.inputs[i])
                inside[i] = np.all((np.asarray(lower) - 1e-9 <= h) & (h <= np.asarray(upper) + 1e-9))
    near = np.linalg.norm(hidden - points.hidden, axis=1) <= NEAR * n_hidden**0.5
    return Points(hidden, points.inputs), floor & near & inside


def index_signs(network: networks.Network, points: Points) -> np.ndarray:
    """The sign of det(I - J) at each point, float64."""
    with jax.enable_x64(True):
        params = _widen(network.params)
        size = max(1, min(256, 2**24 // network.candidates.shape[1] ** 2))
        signs = [np.asarray(_sign(network.step_fn, params, *chunk)) for chunk in _chunks(points, size)]
    return np.concatenate(signs or [np.zeros(0)])


def _widen(params: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, np.float64), params)


def _chunks(points: Points, size: int) -> Iterator[tuple[jax.Array, jax.Array | None, int]]:
    """Hidden, inputs and how many count, all chunks of one shape, so that one program does."""
    rows = np.arange(len(points.hidden))
    for chunk in np.split(rows, range(size, len(rows), size)) if len(rows) else []:
        padded = np.resize(chunk, size) if len(rows) > size else chunk
        hidden, inputs = take(points, padded)
        yield jnp.asarray(hidden, np.float64), None if inputs is None else jnp.asarray(inputs, np.float64), len(chunk)


def _residual(step_fn: Any, params: Any, hidden: Any, drive: Any) -> Any:
    return step_fn(params, hidden, drive) - hidden


def _map(function: Any) -> Any:
    """Of one point; applied to a chunk, jitted, padding cut off."""
    jitted = jax.jit(
        lambda step_fn, params, hidden, drives: jax.vmap(functools.partial(function, step_fn, params))(hidden, drives),
        static_argnums=0,
    )
    return lambda step_fn, params, hidden, drives, n: jax.tree.map(
        lambda x: x[:n], jitted(step_fn, params, hidden, drives)
    )


@_map
def _q(step_fn: Any, params: Any, hidden: Any, drive: Any) -> Any:
    return 0.5 * jnp.sum(_residual(step_fn, params, hidden, drive) ** 2)


@_map
def _sign(step_fn: Any, params: Any, hidden: Any, drive: Any) -> Any:
    jacobian = jax.jacfwd(functools.partial(_residual, step_fn, params))(hidden, drive)
    return jnp.linalg.slogdet(-jacobian)[0]


@_map
def _newton(step_fn: Any, params: Any, hidden: Any, drive: Any) -> Any:
    residual = functools.partial(_residual, step_fn, params)
    eps, n_hidden = jnp.finfo(hidden.dtype).eps, len(hidden)

    def go_on(carry: Any) -> Any:
        _, good, n_steps = carry
        return ~good & (n_steps < 12)

    def step(carry: Any) -> Any:
        h, _, n_steps = carry
        r, jacobian = residual(h, drive), jax.jacfwd(residual)(h, drive)
        move = jnp.linalg.solve(jacobian, -r)
        scale = jnp.maximum(jnp.linalg.norm(h), jnp.linalg.norm(jnp.abs(jacobian) @ jnp.abs(h)))
        small = jnp.linalg.norm(r) <= 8 * eps * n_hidden**0.5 * scale
        good = small & (jnp.linalg.norm(move) <= eps**0.5 * (1 + jnp.linalg.norm(h)))
        return jnp.where(good | ~jnp.isfinite(move).all(), h, h + move), good, n_steps + 1

    return jax.lax.while_loop(go_on, step, (hidden, jnp.array(False), 0))[:2]
