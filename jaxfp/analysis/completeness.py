"""How complete a set of fixed points is: index sums, unseen mass, discovery curve.

Index sum. The index of an isolated fixed point is sign det(I - J) (map) or sign det(-J) (flow). If a map sends a box
into itself, or a flow points inward on a ball, the indices of ALL fixed points sum to +1 (Brouwer degree,
Poincare-Hopf). A wrong sum proves that points are missing; a right one proves nothing by itself.

Unseen mass (Good & Turing 1953). If n_1 of K candidates were the only one to reach their point, and n_0 ended without
an answer, the chance that one more candidate of the same kind finds a new point is about (n_1 + n_0) / K.

Discovery curve. The mean number of distinct points among m of the K candidates, over all orders of the candidates:
sum_i 1 - C(K - k_i, m) / C(K, m), with k_i the hits of point i. Flat at its end: nothing new was coming.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxfp import arguments, dynamics
from jaxfp.search import dedupe, zeros
from jaxfp.types import FIXED, FixedPoints, Kind, Report

SINGLES_LIMIT = 0.01  # of the user's own candidates; above it, more of them would find more


class Audit(NamedTuple):
    """What is known about the completeness of a set of points.

    Attributes:
      inputs: (n_distinct_inputs, n_inputs), or None where the search had no inputs.
      index_sums: one entry an input: the sum of the indices of its isolated FIXED points, or None where a sign is
        uncertain or a continuum, which has no sign, takes part.
      index_sum: the sum if there is one input, else None.
      expected: 1 where the map is known to send a box into itself, else None.
      reason: who knows that, or why nobody does.
      signs: (n_points,) index of each point: +1, -1, or 0 where it is uncertain or does not count.
      singles: (n_distinct_inputs,) share of the candidates that were the only one to reach their fixed point.
      unseen_masses: (n_distinct_inputs,) Good-Turing mass of fixed points per input: singles and the share of
        candidates that ended without an answer; NaN for plain arrays.
      unseen_mass: over all inputs together.
      discovery: (n_draws, 2) candidates drawn, mean distinct fixed points found; None for plain arrays.
      complete: True only if for every input the index sum is as expected with every sign certain, a whole seeded wave
        after that added nothing, and the singles are under 1 %.
      n_fixed: number of FIXED points; n_slow: of SLOW points; n_continuum: of FIXED points on a continuum.
      waves_met: (n_distinct_inputs,) True where a seeded wave ended as the stop rule asks.
    """

    inputs: np.ndarray | None
    index_sums: tuple[int | None, ...]
    index_sum: int | None
    expected: int | None
    reason: str
    signs: np.ndarray
    singles: np.ndarray
    unseen_masses: np.ndarray
    unseen_mass: float
    discovery: np.ndarray | None
    complete: bool
    n_fixed: int
    n_slow: int
    n_continuum: int
    waves_met: np.ndarray

    def summary(self) -> str:
        """The audit in plain words.

        Returns:
          A few sentences, one a line.

        Example:
          >>> points = (np.zeros((1, 1)), None)
          >>> print(audit(points, np.full((1, 1, 1), 0.5)).summary().splitlines()[0])
          1 fixed point, 0 slow points.
        """
        return "\n".join(_sentences(self))


def audit(
    points: FixedPoints | tuple[Any, Any], linear: Any, *, kind: Kind | None = None, bounded: bool | None = None
) -> Audit:
    """Ask whether all fixed points were found.

    Args:
      points: result of `find_fixed_points`, or a plain (hidden (n_points, n_hidden), inputs (n_points, n_inputs) or
        None), all of them taken for isolated fixed points.
      linear: result of `linearize` at these points, or the Jacobians (n_points, n_hidden, n_hidden).
      kind: "map" or "flow"; by default what the report of points says, "map" for plain arrays.
      bounded: True if the map is known to send a box into itself; by default what the report says.

    Returns:
      Audit.

    Raises:
      ValueError: if points are neither, the Jacobians do not fit them, or kind contradicts the report.

    Example:
      >>> hidden = np.array([[-0.858561], [0.0], [0.858561]])
      >>> result = audit((hidden, None), (1.5 * (1 - hidden**2))[:, :, None], bounded=True)
      >>> result.index_sum, result.complete
      (1, False)

    Source: Brouwer degree; Good (1953), Biometrika 40:237. The audit of fixed points is ours.
    """
    if kind is not None:
        dynamics.check_kind(kind)
    arguments.check_flag("bounded", bounded, or_none=True)
    if not isinstance(points, FixedPoints):
        if not isinstance(points, tuple) or len(points) != 2:
            raise ValueError(f"points must be FixedPoints or a pair (hidden, inputs), got {type(points).__name__}.")
        points = _from_arrays(*points, kind or "map")
    report = points.report
    if kind is not None and kind != report.kind:
        raise ValueError(f'kind is "{kind}", but the points come from a search with kind "{report.kind}".')
    dynamics.check_kind(report.kind)
    wanted = "the result of linearize, or Jacobians (n_points, n_hidden, n_hidden)"
    jacobians = arguments.as_numpy("linear", getattr(linear, "jacobian", linear), wanted).astype(np.float64)
    n_points, n_hidden = points.hidden.shape
    if jacobians.shape != (n_points, n_hidden, n_hidden):
        raise ValueError(f"linear: jacobians must be {(n_points, n_hidden, n_hidden)}, got {jacobians.shape}.")

    counts = (points.status == FIXED) & points.isolated
    signs = np.array(
        [
            index_sign(j, h, report.kind, report.precision_floor) if c else 0
            for j, h, c in zip(jacobians, points.hidden, counts, strict=True)
        ],
        int,
    )
    group = input_group_of(points.inputs, report.inputs, n_points)
    n_inputs = len(report.unresolved)
    index_sums = tuple(sum_of_signs(signs[(points.status == FIXED) & (group == g)]) for g in range(n_inputs))

    known = report.bounded if bounded is None else bounded
    reason = report.bounded_by if bounded is None else "the caller says so"
    expected = 1 if known else None
    fixed = points.status == FIXED
    singles = np.array([(fixed & (points.n_hits == 1) & (group == g)).sum() for g in range(n_inputs)])
    with np.errstate(invalid="ignore"):
        shares = singles / report.n_candidates_per_input
        masses = shares + report.unresolved / report.n_candidates_per_input
    mass = float((singles + report.unresolved).sum() / report.n_candidates) if report.n_candidates else np.nan
    met = report.seeded_waves_met
    complete = bool(
        expected is not None
        and n_inputs > 0
        and all(s == expected for s in index_sums)
        and met.all()
        and (shares < SINGLES_LIMIT).all()
        and points.isolated[fixed].all()
    )
    return Audit(
        inputs=report.inputs,
        index_sums=index_sums,
        index_sum=index_sums[0] if n_inputs == 1 else None,
        expected=expected,
        reason=reason,
        signs=signs,
        singles=shares,
        unseen_masses=masses,
        unseen_mass=mass,
        discovery=_discovery(points.n_hits[fixed], report.n_candidates) if report.n_candidates else None,
        complete=complete,
        n_fixed=int(fixed.sum()),
        n_slow=int((~fixed).sum()),
        n_continuum=int((fixed & ~points.isolated).sum()),
        waves_met=met,
    )


def index_sign(jacobian: np.ndarray, hidden: np.ndarray, kind: Kind, eps: float) -> int:
    """Index of one fixed point: sign det(I - J) of a map, sign det(-J) of a flow.

    Args:
      jacobian: (n_hidden, n_hidden) dF/dh.
      hidden: (n_hidden,) the point.
      kind: "map" or "flow".
      eps: relative resolution of the step function.

    Returns:
      +1, -1, or 0 where the smallest singular value is within its error.

    Example:
      >>> index_sign(np.array([[1.5]]), np.zeros(1), "map", 2.2e-16)
      -1
    """
    matrix = np.eye(len(jacobian)) - jacobian if kind == "map" else -jacobian
    if not np.isfinite(matrix).all():
        return 0
    sign = sign_by_factors(zeros.factorize(matrix), hidden, eps)
    if sign == 0:  # too near to trust an estimate
        singular = np.linalg.svd(matrix, compute_uv=False)
        if singular[-1] > _error(hidden, eps) * max(singular[0], 1.0):
            return int(np.linalg.slogdet(matrix)[0])
    return sign


def sign_by_factors(factors: zeros.Factors, hidden: np.ndarray, eps: float) -> int:
    """Sign of a determinant, where the matrix is clearly regular.

    Args:
      factors: of I - J (map) or -J (flow) at a fixed point, or of as good as that.
      hidden: (n_hidden,) the point.
      eps: relative resolution of the step function.

    Returns:
      +1, -1, or 0 where an estimate of the least singular value does not tell.

    Example:
      >>> sign_by_factors(zeros.factorize(np.diag([-0.5, 1.0])), np.zeros(2), 2.2e-16)
      -1
    """
    n = len(factors.lu)
    if zeros.least_singular(factors) <= 10 * _error(hidden, eps) * max(factors.size * n**0.5, 1.0):
        return 0
    swaps = (factors.pivots != np.arange(n)).sum()
    return int((-1) ** swaps * np.prod(np.sign(np.diag(factors.lu))))


def _error(hidden: np.ndarray, eps: float) -> float:
    """A FIXED point is where it is said to be to sqrt(eps) (1 + ||h||); J errs by about that times its own size."""
    return float(np.sqrt(eps) * (1 + np.linalg.norm(hidden)))


def sum_of_signs(signs: np.ndarray) -> int | None:
    """The index sum of some points.

    Args:
      signs: (n_points,) +1, -1 or 0 for uncertain.

    Returns:
      Their sum, or None where one is uncertain.

    Example:
      >>> sum_of_signs(np.array([1, -1, 1])), sum_of_signs(np.array([1, 0]))
      (1, None)
    """
    return None if (signs == 0).any() else int(signs.sum())


def input_group_of(inputs: np.ndarray | None, distinct: np.ndarray | None, n_points: int) -> np.ndarray:
    """Number of the distinct input each point belongs to.

    Args:
      inputs: (n_points, n_inputs) or None.
      distinct: (n_distinct_inputs, n_inputs) or None, e.g. `report.inputs`.
      n_points: number of points.

    Returns:
      (n_points,) rows of `distinct`; zeros where there are no inputs.

    Example:
      >>> input_group_of(np.array([[2.0], [1.0]]), np.array([[1.0], [2.0]]), 2).tolist()
      [1, 0]
    """
    if inputs is None or distinct is None:
        return np.zeros(n_points, int)
    return np.array([np.flatnonzero((distinct == row).all(1))[0] for row in inputs], int)


def _from_arrays(hidden: Any, inputs: Any, kind: Kind) -> FixedPoints:
    """Points from anywhere: nothing is known of the search."""
    hidden = arguments.as_numpy("points: hidden", hidden, "(n_points, n_hidden)").astype(np.float64)
    if inputs is not None:
        inputs = arguments.as_numpy("points: inputs", inputs, "None or (n_points, n_inputs)").astype(np.float64)
    n_points = len(hidden) if hidden.ndim == 2 else -1
    if n_points < 0 or (inputs is not None and (inputs.ndim != 2 or len(inputs) != n_points)):
        raise ValueError(
            "points must be hidden (n_points, n_hidden) and inputs None or (n_points, n_inputs), got "
            f"{hidden.shape} and {None if inputs is None else inputs.shape}."
        )
    _, distinct = dedupe.input_groups(inputs, n_points)
    n_inputs = 1 if distinct is None else len(distinct)
    report = Report(
        kind=kind,
        inputs=distinct,
        n_candidates=0,
        counts={},
        reasons={},
        unresolved=np.zeros(n_inputs, int),
        n_candidates_per_input=np.zeros(n_inputs, int),
        bounded=None,
        bounded_by="nothing is known about the map",
        until="all",
        waves=[],
        seeded_waves_met=np.zeros(n_inputs, bool),
        candidate_speed=np.nan,
        precision="float64",
        precision_floor=float(np.finfo(float).eps),
        n_steps={},
        seconds={},
    )
    zeros = np.zeros(n_points)
    fixed, isolated = np.full(n_points, FIXED), np.ones(n_points, bool)
    return FixedPoints(hidden, inputs, zeros, zeros, fixed, isolated, np.zeros(n_points, int), report)


def _discovery(hits: np.ndarray, n_candidates: int) -> np.ndarray:
    """Rarefaction: exact mean over all orders, at up to 64 numbers of candidates."""
    drawn = np.unique(np.linspace(0, n_candidates, min(n_candidates, 64) + 1).astype(int))
    missed = n_candidates - hits[:, None] - drawn[None, :]  # candidates outside both the draw and the point's hits
    log_factorial = np.cumsum(np.log(np.maximum(np.arange(n_candidates + 1), 1)))
    log_chance = log_factorial[n_candidates - hits][:, None] - log_factorial[np.maximum(missed, 0)]
    log_chance += log_factorial[n_candidates - drawn] - log_factorial[n_candidates]
    chance = np.where(missed < 0, 0.0, np.exp(log_chance))
    return np.stack([drawn, (1 - chance).sum(0)], axis=1)


def _sentences(audit: Audit) -> list[str]:
    def count(n: int, noun: str) -> str:
        return f"{n} {noun}{'' if n == 1 else 's'}"

    lines = [f"{count(audit.n_fixed, 'fixed point')}, {count(audit.n_slow, 'slow point')}."]
    if audit.n_continuum:
        lines.append(
            f"{count(audit.n_continuum, 'fixed point')} on a continuum (I - J is singular there): such points are "
            "samples of a set, and have no index."
        )
    undecided = sum(s is None for s in audit.index_sums)
    wrong = [s for s in audit.index_sums if s is not None and s != 1]
    n_inputs = len(audit.index_sums)
    at = "" if n_inputs == 1 else f" at {{}} of {n_inputs} inputs"
    if audit.expected is None:
        sums = ", ".join("undecided" if s is None else f"{s:+d}" for s in audit.index_sums[:5])
        more = ", ..." if n_inputs > 5 else ""
        lines.append(
            f"No degree guarantee ({audit.reason}), so the index sum ({sums}{more}) cannot tell what is missing."
        )
    else:
        if wrong:
            lines.append(
                f"Points are certainly missing{at.format(len(wrong))}: the index sum is "
                f"{', '.join(f'{s:+d}' for s in wrong[:5])} where it must be +1 ({audit.reason})."
            )
        if undecided:
            lines.append(
                f"The index sum is undecided{at.format(undecided)}: a point is on a continuum, or too near a "
                "bifurcation for its sign."
            )
        if not wrong and not undecided:
            lines.append(f"The index sum is +1, as it must be ({audit.reason}): no point is proved missing.")
    if not np.isnan(audit.unseen_mass):
        lines.append(
            f"Unseen mass {100 * audit.unseen_mass:.2g} %: about the chance that one more candidate of the same kind "
            "ends at a fixed point not seen yet, or unanswered."
        )
    if audit.waves_met.all() and len(audit.waves_met):
        lines.append("The last seeded waves, aimed at what might be missing, added no fixed point.")
    elif audit.waves_met.any():
        lines.append(f"Seeded waves ended without a new point at {audit.waves_met.sum()} of {n_inputs} inputs.")
    if audit.complete:
        lines.append("Complete by every sign there is; a proof it is not.")
    elif audit.expected is None:
        lines.append("Not called complete: without a degree guarantee nothing can be.")
    else:
        lines.append("Not called complete" + _why_not(audit))
    return lines


def _why_not(audit: Audit) -> str:
    reasons = []
    if any(s != audit.expected for s in audit.index_sums):
        reasons.append("the index sum is not met")
    if audit.n_continuum:
        reasons.append("a continuum cannot be counted")
    if not audit.waves_met.all():
        reasons.append('no seeded wave has confirmed it (until="complete" runs them)')
    if not (audit.singles < SINGLES_LIMIT).all():
        reasons.append(f"over {100 * SINGLES_LIMIT:g} % of the candidates found a point that no other found: give more")
    return ": " + "; ".join(reasons) + "."
