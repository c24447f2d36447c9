"""Families of fixed points along a path of inputs or params, and where their number or stability changes.

The path is given by samples, s = 0, 1, ..., and is linear between them. Each point is followed both ways along its
curve (`following`, in steps of `tracking`), through folds, to the ends of the path. Curves are cut into branches where
they turn back, and each branch is named once (`branches`).
"""

from typing import Any

import jax
import numpy as np

from jaxfp import arguments, dynamics
from jaxfp.analysis import tracking
from jaxfp.analysis.branches import Family, Trace, joined
from jaxfp.analysis.following import Problem, follow
from jaxfp.types import FIXED, FixedPoints, Kind, Params, StepFn


def sweep(
    step_fn: StepFn,
    params: Params,
    points: FixedPoints | tuple[Any, Any],
    *,
    inputs_path: Any = None,
    params_path: Any = None,
    start: Any = None,
    network: Any = None,
    kind: Kind | None = None,
    stability: bool = True,
    max_step: float | None = None,
    max_samples: int = 2000,
) -> Family:
    """Follow fixed points along a path of inputs, of params, or of both, through folds.

    A host function: NumPy in, NumPy out, float64 whatever the caller's x64 setting.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      points: result of `find_fixed_points`, of which FIXED isolated points are followed, or plain
        (hidden (n_points, n_hidden), inputs None, (n_inputs,) or (n_points, n_inputs)).
      inputs_path: (n_steps, n_inputs) for all points, or (n_points, n_steps, n_inputs) one each. By default the inputs
        of the points, held constant.
      params_path: pytree like params; leaves with one more leading axis, n_steps, vary along the path, the others are
        constant. Two samples are two end points: between samples everything is linear.
      start: scalar or (n_points,), the sample of the path at which each point is fixed. By default the sample whose
        input is that of the point, where there is an inputs_path and the points have inputs; else 0.
      network: (n_points,) which network each point belongs to; every leaf of params and of params_path then has a
        leading axis n_networks.
      kind: "map" or "flow"; by default what the report of points says, "map" for plain arrays.
      stability: count unstable dimensions, which flip, Neimark-Sacker and Hopf need. False: folds and crossings only,
        in half the time; a flow's eigenvalues cost more.
      max_step: largest step in s; by default 1, or 1/32 of the path if that is less.
      max_samples: of one lane, after which its branch is "unfinished".

    Returns:
      Family: the branches of the points given, in their order, then those found beyond folds.

    Raises:
      ValueError: if an argument is none of these, shapes do not fit, there is no path, or a point is not on its path.

    Example:
      >>> tanh = lambda w, h, u: jax.numpy.tanh(w * h)
      >>> family = sweep(tanh, 0.5, (np.zeros((1, 1)), None), params_path=np.array([0.5, 2.0]))
      >>> family.events.kind.tolist(), (0.5 + 1.5 * family.events.s).round(8).tolist()
      (['branch'], [1.0])
      >>> fold = lambda a, h, u: h + a + h**2
      >>> family = sweep(fold, -1.0, (np.array([[-1.0], [1.0]]), None), params_path=np.array([-1.0, -0.5, 0.5]))
      >>> family.ends.tolist(), family.at_path[0].ravel().round(3).tolist()
      (['fold', 'fold'], [-1.0, -0.707, nan])

    Source: Keller (1977), Applications of Bifurcation Theory, 359; Kuznetsov (2004), Elements of Applied Bifurcation
      Theory, ch. 10. Differs: stability is read off eigenvalues instead of bialternate products.
    """
    arguments.check_step(step_fn)
    for name, tree in (("params", params), ("params_path", params_path)):
        arguments.check_params(tree, name)
        arguments.check_finite(name, tree)
    arguments.check_flag("stability", stability)
    arguments.check_count("max_samples", max_samples)
    if max_step is not None:
        arguments.check_number("max_step", max_step, positive=True)
    hidden, inputs, followed, known_kind = _points(points)
    kind = known_kind if kind is None else kind
    dynamics.check_kind(kind)
    if known_kind != kind and isinstance(points, FixedPoints):
        raise ValueError(f'kind is "{kind}", but the points come from a search with kind "{known_kind}".')
    n_points = len(hidden)
    network = None if network is None else _whole_numbers("network", network, n_points, "0 or more", np.inf)
    with jax.enable_x64(True):
        path, group = _path(params, params_path, inputs, inputs_path, n_points, network)
    begin = _start(start, inputs, inputs_path, path, n_points)
    largest = min(1.0, (path.n_steps - 1) / 32) if max_step is None else float(max_step)
    problem = Problem(step_fn, kind, path, stability, largest, max_samples)

    traces: list[Trace] = []
    own = np.zeros(n_points, int) if network is None else network
    family = joined(traces, hidden, begin, group, path.n_steps)
    left = np.flatnonzero(followed)
    with jax.enable_x64(True):
        while len(left):  # a point that lies on the branch of an earlier one needs no lane
            now = left[begin[left] == begin[left].min()]
            lanes = [(p, way) for p in now for way in (1, -1) if 0 <= begin[p] + way < path.n_steps]
            chosen, ways = (np.array(column) for column in zip(*lanes, strict=True))
            traces += follow(problem, hidden[chosen], begin[chosen], ways, chosen, own[chosen], group[chosen])
            family = joined(traces, hidden, begin, group, path.n_steps)
            left = left[(begin[left] > begin[now[0]]) & (family.branch_of_point[left] < 0)]
    return family


def _points(points: Any) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, Kind]:
    """Hidden, inputs (n_points, n_inputs) or None, which to follow, and the kind of the search."""
    if isinstance(points, FixedPoints):
        return points.hidden, points.inputs, (points.status == FIXED) & points.isolated, points.report.kind
    if not isinstance(points, tuple) or len(points) != 2:
        raise ValueError(f"points must be FixedPoints or a pair (hidden, inputs), got {type(points).__name__}.")
    hidden = arguments.as_numpy("hidden of points", points[0], "(n_points, n_hidden)").astype(np.float64)
    if hidden.ndim != 2 or not hidden.shape[1]:
        raise ValueError(f"hidden of points must be (n_points, n_hidden), got {hidden.shape}.")
    arguments.check_finite("hidden of points", hidden)
    inputs = points[1]
    if inputs is not None:
        wanted = f"(n_inputs,) or ({len(hidden)}, n_inputs)"
        inputs = arguments.as_numpy("inputs of points", inputs, wanted).astype(np.float64)
        if inputs.ndim not in (1, 2) or (inputs.ndim == 2 and len(inputs) != len(hidden)):
            raise ValueError(f"inputs of points must be {wanted}, got {inputs.shape}.")
        arguments.check_finite("inputs of points", inputs)
        inputs = np.broadcast_to(inputs, (len(hidden), inputs.shape[-1]))
    return hidden, inputs, np.ones(len(hidden), bool), "map"


def _path(
    params: Params, params_path: Params, inputs: Any, inputs_path: Any, n_points: int, network: Any
) -> tuple[tracking.Path, np.ndarray]:
    """The path, and the group of each point: those of one network and one path of inputs."""
    leaves, tree = jax.tree.flatten(dynamics.widen(params))
    if network is not None and any(np.ndim(leaf) < 1 or len(leaf) <= network.max(initial=0) for leaf in leaves):
        raise ValueError("with network= every leaf of params must have a leading axis n_networks.")
    varies, lengths = [False] * len(leaves), set()
    if params_path is not None:
        samples, other = jax.tree.flatten(dynamics.widen(params_path))
        if str(other) != str(tree):
            raise ValueError(f"params_path must be a pytree like params, {tree}, got {other}.")
        axis = 0 if network is None else 1
        for i, (leaf, sample) in enumerate(zip(leaves, samples, strict=True)):
            shape, given = np.shape(leaf), np.shape(sample)
            varies[i] = len(given) == len(shape) + 1
            if (given[:axis] + given[axis + 1 :] if varies[i] else given) != shape:
                raise ValueError(f"a leaf of params_path must be {shape} or have an axis n_steps more, got {given}.")
            lengths |= {given[axis]} if varies[i] else set()
        leaves = samples
    if inputs_path is not None:
        wanted = f"(n_steps, n_inputs) or (n_points = {n_points}, n_steps, n_inputs)"
        inputs_path = arguments.as_numpy("inputs_path", inputs_path, wanted).astype(np.float64)
        if inputs_path.ndim not in (2, 3) or (inputs_path.ndim == 3 and len(inputs_path) != n_points):
            raise ValueError(f"inputs_path must be {wanted}, got {inputs_path.shape}.")
        arguments.check_finite("inputs_path", inputs_path)
        if inputs is not None and inputs.shape[-1] != inputs_path.shape[-1]:
            came = inputs_path.shape[-1]
            raise ValueError(f"inputs_path must have as many inputs as the points, {inputs.shape[-1]}, got {came}.")
        inputs = np.broadcast_to(inputs_path, (n_points, *inputs_path.shape[-2:]))
        lengths |= {inputs.shape[1]}
    if len(lengths) != 1 or min(lengths) < 2:
        raise ValueError(
            "inputs_path or params_path, or both, must have one number of samples, 2 or more, in all that varies, "
            f"got {sorted(lengths)}."
        )
    n_steps = lengths.pop()
    if inputs is not None and inputs_path is None:
        inputs = np.broadcast_to(inputs[:, None], (n_points, n_steps, inputs.shape[-1]))
    rows = np.zeros((n_points, 1)) if inputs is None else inputs.reshape(n_points, -1)
    rows = np.column_stack([rows, np.zeros(n_points) if network is None else network])
    group = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1) if n_points else np.zeros(0, int)
    return tracking.Path(jax.tree.unflatten(tree, leaves), inputs, tuple(varies), network is not None, n_steps), group


def _start(start: Any, inputs: Any, inputs_path: Any, path: tracking.Path, n_points: int) -> np.ndarray:
    """The sample of the path at which each point is fixed."""
    if start is not None:
        return _whole_numbers("start", start, n_points, f"samples of the path, 0 to {path.n_steps - 1}", path.n_steps)
    if inputs is None or inputs_path is None or path.inputs is None:
        return np.zeros(n_points, int)
    gap = np.abs(path.inputs - inputs[:, None]).max(axis=2, initial=0.0)
    begin = gap.argmin(axis=1) if n_points else np.zeros(0, int)
    if (gap.min(axis=1, initial=np.inf) > 1e-6 * (1 + np.abs(inputs).max(initial=0.0))).any():
        raise ValueError("the inputs of each point must be a sample of its inputs_path; give start= if they are not.")
    return begin


def _whole_numbers(name: str, value: Any, n_points: int, wanted: str, end: float) -> np.ndarray:
    """(n_points,) integers from 0 to below the end."""
    numbers = arguments.as_numpy(name, value, f"an integer or ({n_points},)")
    fits = numbers.shape in ((), (n_points,)) and numbers.dtype.kind in "iu"
    if not fits or (numbers < 0).any() or (numbers >= end).any():
        raise ValueError(f"{name} must be {wanted}, an integer or ({n_points},) of them, got {arguments.came(value)}.")
    return np.broadcast_to(numbers, (n_points,)).astype(int)
