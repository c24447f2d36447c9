"""Where searches start, which decides what they find.

Three kinds: states that trajectories visit, the user's own or those from random states of a box; and, for points that
trajectories avoid, mixtures of the attractors already known (the saddle between two memories lies near their mean,
those of higher index near the mean of four and eight) and steps along the unstable directions of known saddles.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import arguments, compiling, dynamics
from jaxfp.types import Array, Kind, Params, StepFn


def sample_candidates(key: jax.Array, states: Array, n_candidates: int, noise: float = 0.0) -> Any:
    """Draw states from trajectories and add Gaussian noise.

    Args:
      key: typed PRNG key, `jax.random.key(...)`.
      states: (..., n_hidden), e.g. simulated trials (n_trials, n_time, n_hidden).
      n_candidates: how many, drawn with replacement.
      noise: standard deviation of the noise, activation units. On a 16-unit memory network 0.1 finds 10 of 27 points
        and 0.5 finds 26: blur generously.

    Returns:
      (n_candidates, n_hidden) in the dtype of states.

    Raises:
      ValueError: if the key is a legacy one, states have no state axis or are not floating, or a number is negative.

    Example:
      >>> sample_candidates(jax.random.key(0), jnp.zeros((2, 5, 3)), 7, 0.1).shape
      (7, 3)

    Source: Sussillo & Barak (2013); Golub & Sussillo (2018).
    """
    check_key(key)
    arguments.check_array("states", states, "(..., n_hidden)", tuple(range(2, 33)))
    arguments.check_count("n_candidates", n_candidates, least=0)
    arguments.check_number("noise", noise)
    if 0 in states.shape:
        raise ValueError(f"states must hold at least one state, got shape {states.shape}.")
    flat = states.reshape(-1, states.shape[-1])
    rows, blur = _pick(key, n_candidates, flat.shape)
    if isinstance(states, np.ndarray):  # keeps float64 whatever the x64 setting
        return flat[np.asarray(rows)] + (noise * np.asarray(blur)).astype(flat.dtype)
    return flat[rows] + (noise * blur).astype(flat.dtype)


def wander_candidates(
    key: jax.Array,
    step_fn: StepFn,
    params: Params,
    inputs: Array | None,
    lower: Array,
    upper: Array,
    n_candidates: int,
    *,
    n_time: int = 64,
) -> jax.Array:
    """States of trajectories that begin anywhere in a box: half where they end, half on the way there.

    Where they end are the attractors, whatever basin the user's own candidates lie in; searches from random states
    themselves mostly do not get there.

    Args:
      key: typed PRNG key.
      step_fn: map `(params, hidden, inputs) -> hidden`.
      params: pytree that `step_fn` understands.
      inputs: (n_inputs,) or None, held constant.
      lower: (n_hidden,) corner of the box; its dtype is that of the trajectories.
      upper: (n_hidden,) the other corner.
      n_candidates: how many, each from a trajectory of its own.
      n_time: steps of a trajectory; 0 for the random states themselves.

    Returns:
      (n_candidates, n_hidden) in the dtype of lower.

    Raises:
      ValueError: if the corners are not finite vectors of one shape.

    Example:
      >>> corner = jnp.ones(2)
      >>> states = wander_candidates(jax.random.key(0), lambda p, h, u: 0.5 * h, None, None, -corner, corner, 3)
      >>> states.shape, bool((abs(states) <= 1).all())
      ((3, 2), True)
    """
    check_key(key)
    if np.ndim(lower) != 1 or np.shape(lower) != np.shape(upper) or not np.isfinite([lower, upper]).all():
        raise ValueError(f"the box must have finite corners (n_hidden,), got {lower} and {upper}.")
    return _wander(key, step_fn, params, inputs, jnp.asarray(lower), jnp.asarray(upper), n_candidates, n_time)


@functools.partial(compiling.jit, static_argnums=(1, 6, 7), quick=False)
def _wander(
    key: jax.Array,
    step_fn: StepFn,
    params: Params,
    inputs: jax.Array | None,
    lower: jax.Array,
    upper: jax.Array,
    n_candidates: int,
    n_time: int,
) -> jax.Array:
    key_start, key_time = jax.random.split(key)
    where = jax.random.uniform(key_start, (n_candidates, len(lower)), jnp.float32).astype(lower.dtype)
    start = lower[None] + (upper - lower)[None] * where
    if n_time == 0:
        return start
    drive = None if inputs is None else jnp.broadcast_to(inputs, (n_time, *inputs.shape))
    states = dynamics.simulate(step_fn, params, start, drive, n_time=n_time if drive is None else None)
    time = jax.random.randint(key_time, (n_candidates,), 0, 2 * n_time)
    return states[jnp.arange(n_candidates), jnp.minimum(time, n_time - 1)]


def growing_directions(
    key: jax.Array,
    step_fn: StepFn,
    params: Params,
    hidden: Array,
    inputs: Array | None,
    *,
    kind: Kind,
    n_directions: int = 4,
) -> tuple[jax.Array, jax.Array]:
    """Directions that have grown the most after many steps of the linearized dynamics, and by how much a step.

    Random vectors, multiplied by J again and again (by I + J / ||J||_F for a flow): what is left points along the
    unstable modes, each in a mixture of its own. A first look, without a spectrum: its price is a few hundred
    products.

    Args:
      key: typed PRNG key.
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands.
      hidden: (n_hidden,), a fixed point.
      inputs: (n_inputs,) or None.
      kind: "map" or "flow".
      n_directions: how many random vectors.

    Returns:
      Directions (n_directions, n_hidden), of length 1; and growth a step, over 1 where the point is unstable.

    Example:
      >>> step = lambda p, h, u: jnp.array([1.5, 0.5]) * h
      >>> way, growth = growing_directions(jax.random.key(0), step, None, jnp.zeros(2), None, kind="map")
      >>> abs(way).round(3).tolist()[0], round(float(growth), 3)
      ([1.0, 0.0], 1.5)
    """
    with jax.default_matmul_precision("highest"):
        _, product = jax.linearize(lambda h: arguments.step(step_fn, params, h, inputs), hidden)
        start = jax.random.normal(key, (n_directions, hidden.size), jnp.float32).astype(hidden.dtype)
        image = jax.vmap(product)(start)
        # E ||J v||^2 / E ||v||^2 = ||J||_F^2 / n
        size = jnp.sqrt(hidden.size * jnp.sum(image**2) / jnp.sum(start**2))
        size = jnp.maximum(size, jnp.finfo(hidden.dtype).tiny)

        def step(ways: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            moved = jax.vmap(product)(ways)
            moved = moved if kind == "map" else ways + moved / size
            length = jnp.linalg.norm(moved, axis=1, keepdims=True)
            return moved / jnp.maximum(length, jnp.finfo(hidden.dtype).tiny), length[:, 0]

        ways, lengths = jax.lax.scan(step, start, length=64 if kind == "map" else 512)
    late = lengths[len(lengths) // 2 :]
    return ways, jnp.exp(jnp.max(jnp.mean(jnp.log(jnp.maximum(late, jnp.finfo(hidden.dtype).tiny)), axis=0)))


def seed_candidates(
    key: jax.Array,
    n_candidates: int,
    attractors: np.ndarray,
    saddles: np.ndarray,
    unstable: np.ndarray,
    scale: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates aimed at what is still missing, from the points known so far at one input.

    A third are means of 2, 4, 8 or all attractors that lie together on the border of their convex hull, as those around
    a saddle do; a third are means of 2 or 4 of all points, saddles too; both with noise. A third are steps from the
    saddles, up to `scale`, along random combinations of their unstable directions, both ways.

    Args:
      key: typed PRNG key.
      n_candidates: how many.
      attractors: (n_attractors, n_hidden), at least one row; whatever should be mixed.
      saddles: (n_saddles, n_hidden), may be empty.
      unstable: (n_saddles, n_directions, n_hidden), vectors along each saddle's unstable directions.
      scale: activation units, the size of the region of interest.

    Returns:
      Mixtures and steps, float64, (n_mixtures, n_hidden) and (n_steps, n_hidden), n_candidates together; without
      saddles all are mixtures.

    Example:
      >>> one = np.ones((1, 2))
      >>> seed_candidates(jax.random.key(0), 3, one, one[:0], np.zeros((0, 1, 2)), 0.0)[0].tolist()
      [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    everything = np.concatenate([attractors, saddles])
    n_steps = n_candidates // 3 if len(saddles) else 0
    n_mixtures = n_candidates - n_steps
    # A power of two of columns: as points are found, the program for the draws stays the same.
    n_columns = max(64, 1 << (len(everything) - 1).bit_length())
    drawn = _draw(key, n_candidates, attractors.shape[1], n_columns, unstable.shape[1])
    share, order, blur, which, far, mix = (np.asarray(x, np.float64) for x in drawn)
    blur = 0.1 * scale / attractors.shape[1] ** 0.5 * blur

    half = n_mixtures // 2
    centered = attractors - attractors.mean(0)
    outward = (order[:half, : len(attractors)] - 0.5) @ (centered @ centered.T)  # height in a random direction
    mixtures = np.concatenate(
        [
            _means(attractors, outward, (2, 4, 8, len(attractors)), share[:half]),
            _means(everything, order[half:n_mixtures, : len(everything)], (2, 4), share[half:n_mixtures]),
        ]
    )
    mixtures += blur[:n_mixtures]
    if not n_steps:
        return mixtures, mixtures[:0]
    saddle = (which[:n_steps] * len(saddles)).astype(int)
    way = np.einsum("sd,sdn->sn", mix[:n_steps], unstable[saddle])
    way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), np.finfo(float).tiny)
    return mixtures, saddles[saddle] + scale * far[:n_steps, None] * way


def _means(points: np.ndarray, height: np.ndarray, sizes: tuple[int, ...], share: np.ndarray) -> np.ndarray:
    """Means of the lowest few points, a row of heights each; how many is drawn from the sizes that there are."""
    possible = np.unique(np.minimum(sizes, len(points)))
    size = possible[(share * len(possible)).astype(int)]
    rank = height.argsort(axis=1).argsort(axis=1)
    return (rank < size[:, None]) / size[:, None] @ points


@functools.partial(jax.jit, static_argnums=(1, 2))
def _pick(key: jax.Array, n_candidates: int, shape: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    key_row, key_noise = jax.random.split(key)
    rows = jax.random.randint(key_row, (n_candidates,), 0, shape[0], jnp.int32)  # the same rows with x64 on and off
    return rows, jax.random.normal(key_noise, (n_candidates, shape[1]), jnp.float32)


@functools.partial(compiling.jit, static_argnums=(1, 2, 3, 4))
def _draw(key: jax.Array, n_candidates: int, n_hidden: int, n_columns: int, n_directions: int) -> tuple[jax.Array, ...]:
    """Uniform and normal numbers, each in one draw: it is the generator that takes the compiler its time."""
    key_uniform, key_normal = jax.random.split(key)
    uniform = jax.random.uniform(key_uniform, (n_candidates, 3 + n_columns), jnp.float32)
    normal = jax.random.normal(key_normal, (n_candidates, n_hidden + n_directions), jnp.float32)
    share, which, far = uniform[:, :3].T
    return share, uniform[:, 3:], normal[:, :n_hidden], which, far, normal[:, n_hidden:]


def check_key(key: Any) -> None:
    """Refuse anything but one typed PRNG key.

    Args:
      key: what the caller gave.

    Raises:
      ValueError: for legacy uint32 keys, batches of keys, integers.

    Example:
      >>> check_key(jax.random.key(0))
    """
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0):
        raise ValueError(f"key must be one typed key, jax.random.key(seed), got {arguments.came(key)}.")
