"""All fixed points of each of many networks of one architecture: the searches side by side, their programs vmapped.

Every network is searched as `find_fixed_points` would search it by itself, with the same stages, seeded waves and
verdicts; what is shared are the compiled programs, each called once for all networks that want it (`side_by_side`).
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import arguments, pipeline, side_by_side
from jaxfp.search import dedupe, engine, known
from jaxfp.types import STATUS_NAMES, Array, FixedPoints, Kind, Params, Report, Solver, StepFn

_LANES = 256  # of one network in flight at most: what until="complete" begins with
_VECTORS = 16  # of n_hidden numbers that a lane holds


def find_fixed_points_ensemble(
    step_fn: StepFn,
    params: Params,
    candidates: Array,
    inputs: Array | None = None,
    *,
    kind: Kind = "map",
    solver: Solver | None = None,
    max_steps: int = 200,
    tolerance: float = 0.0,
    slow_tolerance: float | None = None,
    unique_tolerance: float | None = None,
    until: Literal["all", "complete"] = "all",
    bounded: bool | None = None,
    chunk_size: int | None = None,
    key: jax.Array | None = None,
) -> tuple[FixedPoints, ...]:
    """The fixed and slow points of each network of an ensemble, found side by side in shared programs.

    A host function. Network i gets what `find_fixed_points` gives for params[i], candidates[i] and inputs[i] with the
    same key, to rounding: the last bits of a batched product are others. A network whose weights are not finite has no
    points, its report says so, and no bit of another changes. It makes fewer and larger calls than a loop over
    `find_fixed_points`, which shares its programs, too. On a CPU that loop is faster (ratio 0.62,
    `benchmarks/ensembles`); on an accelerator nobody has measured which is.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden` of one network, or the vector field of a flow. A named function
        or one of our adapters.
      params: pytree that `step_fn` understands, each array with a leading axis n_networks.
      candidates: (n_networks, n_candidates, n_hidden) floating, activation units; the search runs in their dtype.
      inputs: None, (n_inputs,) for all, or (n_networks, n_candidates, n_inputs) one each; held constant.
      kind: "map" or "flow".
      solver: as in `find_fixed_points`, and so are the next five.
      max_steps: iterations a lane may take.
      tolerance: q at which a lane's search ends early.
      slow_tolerance: q at which each lane stops for good.
      unique_tolerance: distance within which two points are one, activation units.
      until: "all" or "complete": seeded waves of each network until its own stop rule is met.
      bounded: True if the map of every network is known to send some box into itself.
      chunk_size: lanes of one network in flight at once; by default what the memory budget leaves to each, from 16 to
        256. Changes no result.
      key: typed PRNG key of until="complete", the same for each; jax.random.key(0) by default.

    Returns:
      FixedPoints of each network; `report.seconds` are those of the whole ensemble.

    Raises:
      ValueError: as `find_fixed_points` does, but not for weights that are not finite; for params or inputs without the
        axis of the networks.

    Example:
      >>> gains, candidates = np.array([0.5, 1.5, np.nan]), np.tile([[-1.0], [0.1], [1.0]], (3, 1, 1))
      >>> ensemble = find_fixed_points_ensemble(lambda p, h, u: jnp.tanh(p * h), gains, candidates)
      >>> [np.sort(points.hidden.ravel()).round(6).tolist() for points in ensemble]
      [[0.0], [-0.85856, 0.0, 0.85856], []]
    """
    arguments.check_host(params, candidates, inputs)
    candidates = arguments.as_numpy("candidates", candidates, "(n_networks, n_candidates, n_hidden)", floating=True)
    if candidates.ndim != 3 or not candidates.size:
        raise ValueError(
            f"candidates must be (n_networks, n_candidates, n_hidden), at least one of each, got {candidates.shape}."
        )
    n_networks, n_candidates, n_hidden = candidates.shape
    arguments.check_params(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if np.shape(leaf)[:1] != (n_networks,):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} must have a leading axis of {n_networks} networks, as candidates "
                f"have, got {np.shape(leaf)}."
            )
    if inputs is not None:
        wanted = f"None, (n_inputs,) or (n_networks, n_candidates, n_inputs) with {n_networks} and {n_candidates}"
        inputs = arguments.as_numpy("inputs", inputs, wanted)
        if inputs.ndim not in (1, 3) or (inputs.ndim == 3 and inputs.shape[:2] != candidates.shape[:2]):
            raise ValueError(f"inputs must be {wanted}, got {inputs.shape}.")
        inputs = np.broadcast_to(inputs, (n_networks, n_candidates, inputs.shape[-1]))
    if chunk_size is None:
        fit = engine.lanes_together(_VECTORS * n_hidden * n_networks, candidates.dtype.itemsize)
        chunk_size = min(fit, _LANES)
    find = functools.partial(
        pipeline.find_fixed_points,
        step_fn,
        kind=kind,
        solver=solver,
        max_steps=max_steps,
        tolerance=tolerance,
        slow_tolerance=slow_tolerance,
        unique_tolerance=unique_tolerance,
        until=until,
        bounded=bounded,
        chunk_size=chunk_size,
        key=key,
    )
    networks = [jax.tree.map(functools.partial(_row, i=i), params) for i in range(n_networks)]
    drives = [None if inputs is None else inputs[i] for i in range(n_networks)]

    def task(i: int) -> FixedPoints:
        if not _finite(networks[i]):
            return _no_points(candidates[i], drives[i], kind, until)
        return find(networks[i], candidates[i], drives[i])

    return tuple(side_by_side.run([functools.partial(task, i) for i in range(n_networks)]))


def _row(leaf: Any, i: int) -> Any:
    return leaf[i] if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key) else np.asarray(leaf)[i, ...]


def _finite(params: Params) -> bool:
    floating = (x for x in jax.tree.leaves(params) if jnp.issubdtype(x.dtype, jnp.floating))
    return all(np.isfinite(x).all() for x in floating)


def _no_points(candidates: np.ndarray, inputs: np.ndarray | None, kind: Kind, until: str) -> FixedPoints:
    """What is said of a network whose weights are not finite, as of one that diverged in training."""
    n = len(candidates)
    drive = None if inputs is None else inputs.astype(np.float64)
    group, distinct = dedupe.input_groups(drive, n)
    n_at = np.bincount(group, minlength=1)
    report = Report(
        kind=kind,
        inputs=distinct,
        n_candidates=n,
        counts={name: n * (name == "NONFINITE") for name in STATUS_NAMES[2:7]},
        reasons={"params are not finite": n},
        unresolved=n_at,
        n_candidates_per_input=n_at,
        bounded=None,
        bounded_by="params are not finite",
        until=until,
        waves=[],
        seeded_waves_met=np.zeros(len(n_at), bool),
        candidate_speed=float("nan"),
        precision="float64",
        precision_floor=float(np.finfo(float).eps),
        n_steps={"median": 0.0, "largest": 0.0},
        seconds={},
    )
    return known.nothing_known(candidates.shape[1], drive).points._replace(report=report)
