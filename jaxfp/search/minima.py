"""Minima of q above zero, found by Newton on the gradient of q with one exact Hessian and one factorization a lane."""

from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import lapack

from jaxfp.search import polish
from jaxfp.types import Kind, Params, StepFn

_N_CHORD = 6
_NEAR = 1e-3  # relative to 1 + ||h||, how far a Hessian is good for


class Minima(NamedTuple):
    """Lanes after chord steps on the gradient of q.

    Attributes:
      hidden: (n_lanes, n_hidden) float64.
      speed: (n_lanes,) ||r|| there.
      gate_margin: (n_lanes,) see `program.gate_margin`.
      distance: (n_lanes,) length of the next Newton step, activation units; infinite where the Hessian is not positive
        definite, so that q has no minimum nearby.
      slope: (n_lanes,) ||J_r' r|| / (||J_r|| ||r||), with ||J_r||^2 for the size of the Hessian: 0 at a minimum that is
        no zero.
    """

    hidden: np.ndarray
    speed: np.ndarray
    gate_margin: np.ndarray
    distance: np.ndarray
    slope: np.ndarray


def refine(
    step_fn: StepFn,
    params: Params,
    hidden: np.ndarray,
    inputs: np.ndarray | None,
    *,
    kind: Kind,
    chunk_size: int,
    n_dense: int,
) -> Minima:
    """Chord steps on the gradient of q, with the Hessian where they begin. Needs x64 in scope.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, widened.
      hidden: (n_lanes, n_hidden) float64, near minima of q.
      inputs: (n_lanes, n_inputs) float64 or None.
      kind: "map" or "flow".
      chunk_size: states at a time.
      n_dense: Hessians at a time.

    Returns:
      Minima.

    Example:
      >>> import jax
      >>> with jax.enable_x64(True):
      ...     near = refine(
      ...         lambda p, h, u: h + 1 + h**2, None, np.full((1, 1), 1e-3), None, kind="map", chunk_size=1, n_dense=1
      ...     )
      >>> bool(abs(near.hidden[0, 0]) < 1e-12), near.speed.tolist()
      (True, [1.0])
    """
    parts = []
    for start in range(0, len(hidden), n_dense):
        rows = slice(start, start + n_dense)
        u = None if inputs is None else inputs[rows]
        parts.append(_refined(step_fn, params, hidden[rows], u, kind, chunk_size, n_dense))
    return Minima(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _refined(
    step_fn: StepFn,
    params: Params,
    hidden: np.ndarray,
    inputs: np.ndarray | None,
    kind: Kind,
    chunk_size: int,
    n_dense: int,
) -> Minima:
    at: tuple[Any, Any] = (step_fn, params)
    dense: dict[str, Any] = {"kind": kind, "chunk_size": n_dense}
    wide: dict[str, Any] = {"kind": kind, "chunk_size": chunk_size}

    def factors_of(hidden: np.ndarray, inputs: np.ndarray | None) -> tuple[list[Any], np.ndarray]:
        matrices = polish.hessians(*at, hidden, inputs, **dense)
        return [lapack.dpotrf(matrix) for matrix in matrices], np.abs(matrices).sum(1).max(1)

    def newton_step(factors: list[Any], slope: np.ndarray) -> np.ndarray:
        bad = np.full(slope.shape[1], np.inf)  # not positive definite: no minimum to step to
        ok = np.isfinite(slope).all(1)
        return np.array(
            [bad if f[1] or not o else lapack.dpotrs(f[0], g)[0] for f, g, o in zip(factors, slope, ok, strict=True)]
        )

    begin = hidden
    factors, size = factors_of(hidden, inputs)
    slope = polish.gradients(*at, hidden, inputs, **wide)
    hidden = hidden.copy()
    for _ in range(_N_CHORD):
        with np.errstate(invalid="ignore", over="ignore"):
            moved = hidden - newton_step(factors, slope)
            slope_moved = polish.gradients(*at, np.where(np.isfinite(moved), moved, hidden), inputs, **wide)
        better = np.linalg.norm(slope_moved, axis=1) < np.linalg.norm(slope, axis=1)  # False for NaN
        hidden[better], slope[better] = moved[better], slope_moved[better]
        if not better.any():
            break
    r, margin = polish.residuals(*at, hidden, inputs, **wide)
    # Where the chord steps led away from where the Hessian was taken, it is taken anew.
    away = np.flatnonzero(np.linalg.norm(hidden - begin, axis=1) > _NEAR * (1 + np.linalg.norm(begin, axis=1)))
    if len(away):
        again, size[away] = factors_of(hidden[away], None if inputs is None else inputs[away])
        for k, factor in zip(away, again, strict=True):
            factors[k] = factor
    distance = np.linalg.norm(newton_step(factors, slope), axis=1)
    speed, steep = np.linalg.norm(r, axis=1), np.linalg.norm(slope, axis=1)
    size = np.sqrt(size) * speed
    return Minima(hidden, speed, margin, distance, steep / np.maximum(size, np.finfo(float).tiny))
