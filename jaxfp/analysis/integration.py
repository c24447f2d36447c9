"""How a network adds evidence up: what its slowest mode takes from each input, and how far it keeps it.

About a point h* the dynamics are, to first order, dh_{t+1} = J dh_t + J_in x_t, with J = R diag(lambda) L, L R = I. An
input x seen k steps ago is by now

    sum_a  lambda_a^k  r_a (l_a J_in x),

so one mode with lambda_1 next to 1 and all others far below adds up l_1 J_in x, the valence of x, along r_1. A pair
(r_1, l_1) is known but for its sign; here r_1 has length 1, l_1 r_1 = 1, and the readout grows along r_1: w r_1 >= 0.

Where lambda_1 is complex there is no such mode: state and valence oscillate. Those points are flagged and their rows
NaN, so that nothing is averaged over them unseen. What the readout w gets of an input is there still: w P J_in x, with
P = r_1 l_1 of a mode, P = 2 Re r_1 l_1 of a pair.

That a pair is complex does not yet make it oscillate. Its part of the state is A exp(-t / tau) cos(2 pi t / T), with
the period T and the timescale tau. With T above tau less than exp(-1) of it is left when the first turn is over, of
one that turns once in 40 timescales exp(-40): it decays, as a real mode would, before anything swings back. Only what
turns within its timescale, T < tau, or what grows as it turns, oscillates in effect (`oscillates`).

participation ratio   (sum_i v_i)^2 / sum_i v_i^2 of the variances v_i along principal directions: how many there are in
                      effect, 1 on a line, n for a cloud that is round in n directions.
|cos|                 of the angle between two vectors. Of a random direction in n dimensions its mean square is 1/n.

Maheswaranathan, Williams, Golub, Ganguli & Sussillo (2019), NeurIPS, arXiv:1906.10720.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import arguments, dynamics
from jaxfp.analysis import linearization
from jaxfp.analysis.modes import Modes
from jaxfp.types import Array, Params, StepFn


class Components(NamedTuple):
    """Principal directions of states.

    Attributes:
      origin: (n_hidden,), their mean.
      directions: (n_hidden, n_hidden), unit rows, the widest first.
      variance: (n_hidden,) along each, activation^2.
      cumulative: (n_hidden,) share of the variance along the first 1, 2, ... directions.
      participation_ratio: how many directions there are in effect.
    """

    origin: np.ndarray
    directions: np.ndarray
    variance: np.ndarray
    cumulative: np.ndarray
    participation_ratio: float


class Leading(NamedTuple):
    """The slowest mode at each point, pointing where the readout grows.

    Attributes:
      eigenvalue: (n_points,) complex.
      right: (n_points, n_hidden), r_1, of length 1; NaN where the eigenvalue is complex or the matrix defective.
      left: (n_points, n_hidden), l_1, with l_1 r_1 = 1; NaN likewise.
      reading: (n_points, n_hidden), w P, what the readout gets of the slowest mode, or of the slowest pair.
      oscillatory: (n_points,) bool, the eigenvalue is one of a complex pair.
    """

    eigenvalue: np.ndarray
    right: np.ndarray
    left: np.ndarray
    reading: np.ndarray
    oscillatory: np.ndarray


def principal_components(states: Array) -> Components:
    """Principal directions, and how many there are in effect.

    Args:
      states: (n_states, n_hidden), at least 1.

    Returns:
      Components. Of states that are all the same the shares and the participation ratio are NaN.

    Raises:
      ValueError: if states is not (n_states, n_hidden), or empty.

    Example:
      >>> found = principal_components(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
      >>> found.cumulative.tolist(), found.participation_ratio
      ([0.5, 1.0], 2.0)
    """
    states = arguments.as_numpy("states", states, "(n_states, n_hidden)").astype(np.float64)
    if states.ndim != 2 or not states.size:
        raise ValueError(f"states must be (n_states, n_hidden), at least 1, got {states.shape}.")
    origin = states.mean(0)
    values, vectors = np.linalg.eigh((states - origin).T @ (states - origin) / len(states))
    variance = np.maximum(values[::-1], 0)
    with np.errstate(invalid="ignore"):
        cumulative = np.cumsum(variance) / variance.sum()
        ratio = float(variance.sum() ** 2 / np.square(variance).sum())
    return Components(origin, vectors[:, ::-1].T, variance, cumulative, ratio)


def leading_modes(modes: Modes, readout: Array, *, nearest_one: bool = False) -> Leading:
    """The slowest mode of each point as a pair of real vectors, its sign given by the readout.

    Args:
      modes: `spectrum` of Jacobians (n_points, n_hidden, n_hidden), with vectors.
      readout: (n_hidden,), w.
      nearest_one: False: the mode of the largest |lambda|. True: of the modes with a real lambda that with lambda
        nearest to 1, which adds up even where something else grows or oscillates; where none is real, as False.

    Returns:
      Leading.

    Raises:
      ValueError: if the modes have no vectors or no axis n_points, or readout does not fit.

    Example:
      >>> from jaxfp import spectrum
      >>> found = leading_modes(spectrum(np.array([[[0.5, 0.0], [0.0, 1.0]]])), np.array([3.0, -2.0]))
      >>> found.right.tolist(), found.left.tolist(), found.oscillatory.tolist()
      ([[-0.0, -1.0]], [[-0.0, -1.0]], [False])
    """
    if modes.right is None or np.ndim(modes.right) != 3:
        raise ValueError("modes must be those of (n_points, n_hidden, n_hidden) Jacobians, with vectors.")
    readout = _vector("readout", readout, modes.right.shape[1])
    eigenvalues = np.asarray(modes.eigenvalues)
    away = np.where(eigenvalues.imag == 0, np.abs(eigenvalues - 1), np.inf)
    chosen = away.argmin(1) if nearest_one else np.zeros(len(eigenvalues), int)  # the first where all are infinite
    row = np.arange(len(eigenvalues))
    eigenvalue, pointing, listening = eigenvalues[row, chosen], modes.right[row, :, chosen], modes.left[row, chosen]
    oscillatory = eigenvalue.imag != 0
    real = ~oscillatory[:, None]
    right = np.where(real, pointing.real, np.nan)
    left = np.where(real, listening.real, np.nan)
    sign = np.where(right @ readout < 0, -1.0, 1.0)[:, None]
    seen = ((pointing @ readout)[:, None] * listening).real
    return Leading(eigenvalue, sign * right, sign * left, np.where(real, 1, 2) * seen, oscillatory)


def oscillates(modes: Modes) -> np.ndarray:
    """Whether the slowest mode of each point turns once before it has decayed: period < timescale.

    Args:
      modes: `spectrum` of the Jacobians (n_points, n_hidden, n_hidden) of a map, with any vectors.

    Returns:
      (n_points,) bool; True, too, of a mode that turns and grows. A real negative eigenvalue has the period 2.

    Raises:
      ValueError: if the modes have no axis n_points.

    Example:
      >>> from jaxfp import spectrum
      >>> turn = np.array([[0.0, -1.0], [1.0, 0.0]])  # once in 4 steps
      >>> oscillates(spectrum(np.stack([0.9 * turn, 0.5 * turn, 1.1 * turn, np.eye(2)]))).tolist()
      [True, False, True, False]
    """
    if np.ndim(modes.timescale) != 2:
        raise ValueError("modes must be those of (n_points, n_hidden, n_hidden) Jacobians.")
    timescale, frequency = np.asarray(modes.timescale)[:, 0], np.abs(np.asarray(modes.frequency)[:, 0])
    with np.errstate(invalid="ignore"):  # 0 times infinity, of an eigenvalue 1
        return (frequency > 0) & ((timescale < 0) | (timescale * frequency > 1))


def valences(left: Array, input_jacobian: Array, inputs: Array) -> np.ndarray:
    """What the slowest mode adds up of each input: l_1 J_in x.

    Args:
      left: (n_points, n_hidden), l_1, as of `leading_modes`, or any other rows.
      input_jacobian: (n_points, n_hidden, n_inputs), as of `linearize`.
      inputs: (n_words, n_inputs), x, e.g. the embeddings of words.

    Returns:
      (n_points, n_words), activation units along r_1.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> valences(np.array([[0.0, 2.0]]), np.ones((1, 2, 1)), np.array([[3.0], [-1.0]])).tolist()
      [[6.0, -2.0]]
    """
    left, input_jacobian, inputs = (np.asarray(x, np.float64) for x in (left, input_jacobian, inputs))
    if left.ndim != 2 or input_jacobian.ndim != 3 or inputs.ndim != 2 or (
        left.shape != input_jacobian.shape[:2] or input_jacobian.shape[2] != inputs.shape[1]
    ):  # fmt: skip
        raise ValueError(
            "left, input_jacobian and inputs must be (n_points, n_hidden), (n_points, n_hidden, n_inputs) and "
            f"(n_words, n_inputs), got {left.shape}, {input_jacobian.shape} and {inputs.shape}."
        )
    return np.einsum("pi,pij->pj", left, input_jacobian) @ inputs.T


def cosines(vectors: Array, direction: Array) -> np.ndarray:
    """|cos| of the angle between each vector and a direction.

    Args:
      vectors: (n_vectors, n_hidden).
      direction: (n_hidden,).

    Returns:
      (n_vectors,), from 0 to 1; NaN for a vector that is 0 or NaN.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> cosines(np.array([[0.0, -2.0], [3.0, 4.0]]), np.array([0.0, 1.0])).tolist()
      [1.0, 0.8]
    """
    vectors = arguments.as_numpy("vectors", vectors, "(n_vectors, n_hidden)").astype(np.float64)
    if vectors.ndim != 2:
        raise ValueError(f"vectors must be (n_vectors, n_hidden), got {vectors.shape}.")
    direction = _vector("direction", direction, vectors.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(vectors @ direction) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(direction)


def random_directions(key: jax.Array, n_directions: int, n_hidden: int) -> np.ndarray:
    """Unit vectors that point anywhere with equal chance: what an alignment is held against.

    Args:
      key: typed PRNG key.
      n_directions: how many.
      n_hidden: in how many dimensions.

    Returns:
      (n_directions, n_hidden) float64.

    Example:
      >>> found = random_directions(jax.random.key(0), 400, 64)
      >>> 0.9 < 64 * float(np.square(cosines(found, np.eye(64)[0])).mean()) < 1.1
      True
    """
    with jax.enable_x64(True):
        drawn = np.asarray(jax.random.normal(key, (n_directions, n_hidden), jnp.float64))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def relative_speeds(
    step_fn: StepFn, params: Params, hidden: Array, inputs: Array | None = None, *, n_steps: int = 10
) -> np.ndarray:
    """How fast states still move as input is held: |h_{t+1} - h_t| / |h_t| along the way from each.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`.
      params: pytree that `step_fn` understands.
      hidden: (n_states, n_hidden), h_0, not 0.
      inputs: None or (n_inputs,), held constant.
      n_steps: how many steps, T.

    Returns:
      (n_states, n_steps), t = 0 .. T-1, shares per step.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> relative_speeds(lambda p, h, u: p * h, 0.5, np.ones((1, 2)), n_steps=2).tolist()
      [[0.5, 0.5]]
    """
    hidden = arguments.as_numpy("hidden", hidden, "(n_states, n_hidden)").astype(np.float64)
    if hidden.ndim != 2:
        raise ValueError(f"hidden must be (n_states, n_hidden), got {hidden.shape}.")
    drive = None if inputs is None else np.tile(np.asarray(inputs, np.float64), (n_steps, 1))
    after = dynamics.simulate(step_fn, params, hidden, drive, n_time=n_steps if drive is None else None)
    states = np.concatenate([hidden[:, None], after], axis=1)
    return np.linalg.norm(np.diff(states, axis=1), axis=2) / np.linalg.norm(states[:, :-1], axis=2)


def affine_step(params: Params, hidden: Any, inputs: Any) -> jax.Array:
    """One step of a linearized network: F* + J (h - h*) + J_in u.

    Args:
      params: (h*, F(h*, 0), J, J_in), as of `linear_network`.
      hidden: (n_hidden,).
      inputs: (n_inputs,).

    Returns:
      (n_hidden,).

    Example:
      >>> affine_step((jnp.zeros(1), jnp.ones(1), jnp.eye(1), jnp.eye(1)), jnp.ones(1), jnp.ones(1)).tolist()
      [3.0]
    """
    point, moved, jacobian, input_jacobian = params
    return moved + jacobian @ (hidden - point) + input_jacobian @ inputs


def linear_network(step_fn: StepFn, params: Params, point: Array, inputs: Array) -> tuple[np.ndarray, ...]:
    """The linear network that a network is near one point, for `affine_step`.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`.
      params: pytree that `step_fn` understands.
      point: (n_hidden,), h*.
      inputs: (n_inputs,), u*, about which inputs are measured.

    Returns:
      (h*, F(h*, u*), J, J_in), NumPy float64; J_in acts on u - u*.

    Example:
      >>> made = linear_network(lambda p, h, u: h**2 + u, None, np.ones(1), np.zeros(1))
      >>> [x.tolist() for x in made]
      [[1.0], [1.0], [[2.0]], [[1.0]]]
    """
    point, inputs = np.asarray(point, np.float64), np.asarray(inputs, np.float64)
    linear = linearization.linearize(step_fn, params, point, inputs)
    moved = point + dynamics.residual(step_fn, params, point, inputs)
    return point, moved, np.asarray(linear.jacobian), np.asarray(linear.input_jacobian)


def _vector(name: str, value: Any, n_hidden: int) -> np.ndarray:
    array = np.asarray(value, np.float64)
    if array.shape != (n_hidden,):
        raise ValueError(f"{name} must be ({n_hidden},), got {array.shape}.")
    return array
