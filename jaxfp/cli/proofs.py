"""What is proved of the points of a search, for people and for report.json."""

from typing import Any

import numpy as np

from jaxfp.proof import certificates
from jaxfp.types import FIXED, SLOW, FixedPoints, Kind, Params, StepFn

_GHOST_RADII = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # tried around slow points, activation units


def prove(
    step_fn: StepFn, params: Params, points: FixedPoints, kind: Kind
) -> tuple[certificates.Certificates | None, np.ndarray]:
    """Certify what is FIXED, and exclude fixed points around what is SLOW.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`.
      params: pytree that `step_fn` understands.
      points: of a search.
      kind: "map" or "flow".

    Returns:
      Certificates of all points, those that are not FIXED being without; None if the step has an operation without
      an interval rule. And the radius (n_points,) of a ball around each SLOW point proved to hold no fixed point.

    Example:
      >>> from jaxfp import find_fixed_points
      >>> def step(p, h, u):
      ...     return p * h
      >>> prove(step, 0.5, find_fixed_points(step, 0.5, np.ones((1, 2))), "map")[0].exists.tolist()
      [True]
    """
    slow, ghost_radius = np.flatnonzero(points.status == SLOW), np.zeros(len(points.hidden))
    hidden, inputs = points.hidden[slow], None if points.inputs is None else points.inputs[slow]
    try:
        proof = certificates.certify(step_fn, params, points.hidden, points.inputs, kind=kind)
        for radius in _GHOST_RADII if len(slow) else ():
            none = certificates.excludes(step_fn, params, hidden, radius, inputs, kind=kind)
            ghost_radius[slow[none]] = radius
    except NotImplementedError:  # an operation that has no interval rule
        return None, ghost_radius
    fixed = points.status != SLOW
    return proof._replace(
        exists=proof.exists & fixed,
        error_radius=np.where(fixed, proof.error_radius, np.inf),
        unique_radius=np.where(fixed, proof.unique_radius, 0.0),
    ), ghost_radius


def jacobian_error(
    step_fn: StepFn, params: Params, points: FixedPoints, jacobian: np.ndarray, proof: certificates.Certificates | None
) -> np.ndarray:
    """How far the Jacobian at a point can be from that at the fixed point it stands for.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`.
      params: pytree that `step_fn` understands.
      points: of a search.
      jacobian: (n_points, n_hidden, n_hidden), at the points as they are given.
      proof: of the points, or None.

    Returns:
      (n_points,) in the Frobenius norm; 0 where no fixed point is proved, and the Jacobian is that of the point given.

    Example:
      >>> from jaxfp import find_fixed_points
      >>> def step(p, h, u):
      ...     return p * h
      >>> points = find_fixed_points(step, 0.5, np.ones((1, 2)))
      >>> float(jacobian_error(step, 0.5, points, 0.5 * np.eye(2)[None], None)[0])
      0.0
    """
    error = np.zeros(len(points.hidden))
    if proof is None:
        return error
    exact = certificates.certified_jacobian(step_fn, params, proof, points.inputs)
    off = np.linalg.norm(exact.jacobian - jacobian, axis=(1, 2)) + exact.error
    return np.where(proof.exists, off, error)


def sentence(points: FixedPoints, proof: certificates.Certificates | None) -> str:
    """What is proved of all fixed points together.

    Args:
      points: of a search.
      proof: of the points, or None.

    Returns:
      One sentence.

    Example:
      >>> from jaxfp import find_fixed_points
      >>> points = find_fixed_points(lambda p, h, u: p * h, 0.5, np.ones((1, 2)))
      >>> sentence(points, None)
      'Nothing is certified: the step uses an operation without an interval rule.'
    """
    if proof is None:
        return "Nothing is certified: the step uses an operation without an interval rule."
    proved = proof.exists
    said = f"Proved: {proved.sum()} of {(points.status == FIXED).sum()} fixed points exist"
    if proved.any():
        relation = certificates.tell_apart(proof, points.inputs)[np.ix_(proved, proved)]
        pairs = np.triu(np.ones(relation.shape, bool), 1)
        off = np.abs(proof.center - points.hidden).max(axis=1) + proof.error_radius
        said += f", within {off[proved].max():.0e} of where they are given, and no other lies within "
        said += (
            f"{proof.unique_radius[proved].min():.0e}; {(relation[pairs] == -1).sum()} of {pairs.sum()} pairs differ"
        )
    return f"{said}."


def of_point(
    points: FixedPoints, proof: certificates.Certificates | None, ghost_radius: np.ndarray, p: int
) -> dict[str, Any]:
    """What is proved of one point, JSON-like.

    Args:
      points: of a search.
      proof: of the points, or None.
      ghost_radius: (n_points,), see `prove`.
      p: its row.

    Returns:
      Dict: whether it is certified, and the radii; or the radius within which there is no fixed point.

    Example:
      >>> from jaxfp import find_fixed_points
      >>> points = find_fixed_points(lambda p, h, u: p * h, 0.5, np.ones((1, 2)))
      >>> of_point(points, None, np.zeros(1), 0)
      {'certified': False}
    """
    if points.status[p] == SLOW:
        return {"no_fixed_point_within": float(ghost_radius[p])}
    if proof is None or not proof.exists[p]:
        return {"certified": False}
    return {
        "certified": True,
        "error_radius": float(proof.error_radius[p]),
        "unique_radius": float(proof.unique_radius[p]),
    }
