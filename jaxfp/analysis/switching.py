"""What a switching linear system says about its network: expansion points, modes, selection, and how near it stays.

Everything here takes plain arrays, so it serves networks trained together with their linear system and others alike.

relative error   mean over trials and steps of |a - h| / |h|, a the states of the linear system, h those of the network.
clusters         of expansion points: single linkage, cut where the distance at which clusters merge makes its largest
                 leap. There are two at least: the rule cannot say that there is one.
selection        |l_i . dF/du e_k|, l_i the left eigenvectors of dF/dh at an expansion point, each of length 1: what
                 mode i takes up from input line k.
the baseline     of a network without expansion points: its fixed points h*, at every step the one nearest to the state,
                 and the whole Taylor expansion there, F(h*, u*) + dF/dh (h - h*) + dF/du (u - u*). One step ahead from
                 the network's own state, or running freely from its first. Each trial is held against its own states.

Smith, Linderman & Sussillo (2021), NeurIPS, arXiv:2111.01256.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxfp import arguments, dynamics
from jaxfp.analysis import linearization
from jaxfp.types import Array, Params, StepFn


class Clusters(NamedTuple):
    """Expansion points by where they lie.

    Attributes:
      label: (n_points,) int, from 0, the largest cluster first.
      center: (n_clusters, n_hidden), means.
      size: (n_clusters,) int.
      spread: (n_clusters,) root mean squared distance from the center, activation units.
      leap: (2,), the distance at which the last clusters merge that count as one, and the first that do not.
    """

    label: np.ndarray
    center: np.ndarray
    size: np.ndarray
    spread: np.ndarray
    leap: np.ndarray


class Baseline(NamedTuple):
    """Trials predicted by linearization about the nearest fixed point.

    Attributes:
      one_step: (n_trials, n_time - 1, n_hidden), predictions of h_2 .. h_T, each from the network's state before.
      free_run: (n_trials, n_time - 1, n_hidden), predictions of h_2 .. h_T from h_1 on.
      nearest: (n_trials, n_time - 1) int, the point about which each of the one-step predictions was made.
    """

    one_step: np.ndarray
    free_run: np.ndarray
    nearest: np.ndarray


def relative_error(predicted: Array, hidden: Array) -> float:
    """Mean of |a - h| / |h| over trials and steps.

    Args:
      predicted: (..., n_hidden), a.
      hidden: (..., n_hidden), h, of the same shape.

    Returns:
      The mean, dimensionless. Not defined where the network rests at 0.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> relative_error(np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([[3.0, 0.0], [0.0, 1.0]]))
      0.6666666666666666
    """
    predicted, hidden = (np.asarray(x, np.float64) for x in (predicted, hidden))
    if predicted.shape != hidden.shape:
        raise ValueError(f"predicted and hidden must have one shape, got {predicted.shape} and {hidden.shape}.")
    return float(np.mean(np.linalg.norm(predicted - hidden, axis=-1) / np.linalg.norm(hidden, axis=-1)))


def find_clusters(points: Array) -> Clusters:
    """Clusters by single linkage, as many as there are before the largest leap.

    Args:
      points: (n_points, n_hidden), at least 3; memory goes with the square of their number: draw some thousands.

    Returns:
      Clusters.

    Raises:
      ValueError: if there are fewer than 3 points.

    Example:
      >>> find_clusters(np.array([[0.0], [0.1], [5.0], [5.1], [5.2]])).center.ravel().round(2).tolist()
      [5.1, 0.05]
    """
    from scipy.cluster import hierarchy  # takes a moment to import

    points = arguments.as_numpy("points", points, "(n_points, n_hidden)").astype(np.float64)
    if points.ndim != 2 or len(points) < 3:
        raise ValueError(f"points must be at least 3, (n_points, n_hidden), got {points.shape}.")
    tree = hierarchy.linkage(points, "single")
    heights = tree[:, 2]
    last = int(np.argmax(np.diff(heights)))
    found = hierarchy.fcluster(tree, (heights[last] + heights[last + 1]) / 2, "distance") - 1
    order = np.argsort(-np.bincount(found), kind="stable")
    label = np.argsort(order)[found]
    groups = [points[label == i] for i in range(len(order))]
    center = np.stack([group.mean(0) for group in groups])
    spread = [np.sqrt(np.mean(np.sum((group - c) ** 2, axis=1))) for group, c in zip(groups, center, strict=True)]
    return Clusters(label, center, np.bincount(label), np.array(spread), heights[last : last + 2])


def selection(left: Array, input_jacobian: Array, n_modes: int | None = None) -> np.ndarray:
    """What each leading mode takes up from each input line.

    Args:
      left: (n_points, n_hidden, n_hidden), rows are left eigenvectors, as of `spectrum`, leading ones first.
      input_jacobian: (n_points, n_hidden, n_inputs), dF/du, as of `linearize`.
      n_modes: how many; None for all.

    Returns:
      (n_points, n_modes, n_inputs), |l_i . dF/du e_k| with every l_i of length 1.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> selection(2 * np.eye(2)[None], np.array([[[3.0], [4.0]]]), 1).tolist()
      [[[3.0]]]

    Source: Mante, Sussillo, Shenoy & Newsome (2013), Nature 503:78; Smith, Linderman & Sussillo (2021).
    """
    left, input_jacobian = np.asarray(left), np.asarray(input_jacobian)
    if left.ndim != 3 or input_jacobian.ndim != 3 or left.shape[::2] != input_jacobian.shape[:2]:
        raise ValueError(
            "left and input_jacobian must be (n_points, n_modes, n_hidden) and (n_points, n_hidden, n_inputs), got "
            f"{left.shape} and {input_jacobian.shape}."
        )
    rows = left[:, :n_modes]
    return np.abs(rows / np.linalg.norm(rows, axis=2, keepdims=True) @ input_jacobian)


def selection_ratio(taken_up: Array, wanted: Array) -> np.ndarray:
    """How much more of the lines that matter is taken up than of the others, in each state.

    Args:
      taken_up: (n_points, n_modes, n_inputs), as of `selection`, or any strength of lines in modes or outputs.
      wanted: (n_points, n_inputs) bool, which lines matter there.

    Returns:
      (n_points,), the weakest line that matters over the strongest that does not, a line's strength being its root sum
      of squares over modes.

    Raises:
      ValueError: if the shapes do not fit, or all lines of a point matter, or none.

    Example:
      >>> selection_ratio(np.array([[[3.0, 1.0, 0.0], [4.0, 0.0, 0.0]]]), np.array([[True, False, False]])).tolist()
      [5.0]
    """
    strength, wanted = np.linalg.norm(np.asarray(taken_up), axis=1), np.asarray(wanted, bool)
    if strength.shape != wanted.shape or wanted.all(1).any() or not wanted.any(1).all():
        raise ValueError(f"wanted must be some of the lines of {strength.shape}, got {wanted.shape}.")
    weakest = np.where(wanted, strength, np.inf).min(1)
    return weakest / np.where(wanted, 0.0, strength).max(1)


def nearest_distance(points: Array, others: Array) -> tuple[np.ndarray, np.ndarray]:
    """How far each point is from the nearest of others.

    Args:
      points: (n_points, n_hidden), e.g. expansion points.
      others: (n_others, n_hidden), e.g. certified fixed points.

    Returns:
      (n_points,) distances, infinite where there are no others; (n_points,) int, which one is nearest, then -1.

    Example:
      >>> distance, which = nearest_distance(np.array([[0.0], [4.0]]), np.array([[1.0], [3.5]]))
      >>> distance.tolist(), which.tolist()
      ([1.0, 0.5], [0, 1])
    """
    from scipy import spatial  # takes a moment to import

    points, others = (np.asarray(x, np.float64) for x in (points, others))
    if not len(others):
        return np.full(len(points), np.inf), np.full(len(points), -1)
    distance, which = spatial.cKDTree(others).query(points)
    return distance, which


def predict_by_nearest(
    step_fn: StepFn,
    params: Params,
    points: Array,
    hidden: Array,
    inputs: Array,
    *,
    point_inputs: Array | None = None,
    static_inputs: Array | None = None,
) -> Baseline:
    """Predict trials by the full Taylor expansion about the nearest fixed point: the baseline, host, float64.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`.
      params: pytree that `step_fn` understands.
      points: (n_points, n_hidden), fixed points h*.
      hidden: (n_trials, n_time, n_hidden), the states h_1 .. h_T of the network in these trials.
      inputs: (n_trials, n_time, n_inputs), u_1 .. u_T.
      point_inputs: (n_points, n_inputs), the constant inputs at which each is fixed, or None: all 0.
      static_inputs: (n_trials, n_inputs), u* of each trial; only points at these inputs are looked at. None: all 0.

    Returns:
      Baseline.

    Raises:
      ValueError: if the shapes do not fit, there is no point, or a trial has none at its static inputs.

    Example:
      >>> h = np.array([[[1.0], [2.0], [5.0]]])
      >>> made = predict_by_nearest(lambda p, h, u: h**2 + u, None, np.zeros((1, 1)), h, np.ones((1, 3, 1)))
      >>> made.one_step.ravel().tolist(), made.free_run.ravel().tolist()
      ([1.0, 1.0], [1.0, 1.0])

    Source: Smith, Linderman & Sussillo (2021). Their released code for its second task held every trial against the
    states of one trial; here each is held against its own.
    """
    points, hidden, inputs = (np.asarray(x, np.float64) for x in (points, hidden, inputs))
    if hidden.ndim != 3 or inputs.ndim != 3 or hidden.shape[:2] != inputs.shape[:2]:
        raise ValueError(f"hidden and inputs must be (n_trials, n_time, ...), got {hidden.shape} and {inputs.shape}.")
    if points.ndim != 2 or points.shape[1:] != hidden.shape[2:] or not len(points):
        raise ValueError(f"points must be at least one, (n_points, {hidden.shape[2]}), got {points.shape}.")
    n_inputs = inputs.shape[2]
    at = _inputs_of("point_inputs", point_inputs, (len(points), n_inputs))
    static = _inputs_of("static_inputs", static_inputs, (len(hidden), n_inputs))
    allowed = (at[None] == static[:, None]).all(2)
    if not allowed.any(1).all():
        raise ValueError("static_inputs must be inputs of some point, in every trial; see point_inputs.")
    linear = linearization.linearize(step_fn, params, points, at)
    constant = points + dynamics.residual(step_fn, params, points, at)

    def predict(states: np.ndarray, drive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        away = np.linalg.norm(states[:, None] - points[None], axis=2)
        near = np.where(allowed, away, np.inf).argmin(1)
        moved = np.einsum("tij,tj->ti", linear.jacobian[near], states - points[near])
        driven = np.einsum("tij,tj->ti", linear.input_jacobian[near], drive - at[near])
        return constant[near] + moved + driven, near

    n_time = hidden.shape[1]
    stepped = [predict(hidden[:, t - 1], inputs[:, t]) for t in range(1, n_time)]
    running, free = hidden[:, 0], []
    for t in range(1, n_time):
        running, _ = predict(running, inputs[:, t])
        free.append(running)
    one_step, nearest = (np.stack(parts, axis=1) for parts in zip(*stepped, strict=True))
    return Baseline(one_step, np.stack(free, axis=1), nearest)


def _inputs_of(name: str, given: Any, shape: tuple[int, int]) -> np.ndarray:
    array = np.zeros(shape) if given is None else np.asarray(given, np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} must be {shape}, got {array.shape}.")
    return array
