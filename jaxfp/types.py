"""Aliases, status codes and result tuples that every other module shares.

A step function `step_fn(params, hidden, inputs) -> hidden` is one time step of one state: `hidden` (n_hidden,),
`inputs` (n_inputs,) or None. With `kind="map"` its fixed points solve F(h, u) = h; with `kind="flow"` it is the
vector field and they solve F(h, u) = 0.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray
Params = Any
StepFn = Callable[[Params, Any, Any], Any]
ResidualFn = Callable[[jax.Array], jax.Array]
Kind = Literal["map", "flow"]

# RUNNING and CONVERGED are stations of a lane on its way; only FIXED and SLOW are ever returned as points of a search,
# and only `fixed_point` says FOLD: a zero of the residual too near to a singular Jacobian to have a sure derivative.
RUNNING, CONVERGED, FIXED, SLOW, MAX_STEPS, NONFINITE, REJECTED, FOLD = range(8)
# Where a trajectory ends: in a stable point that is listed, at rest in one that is not stable, or at rest or on a cycle
# of the map where nothing is listed. Else MAX_STEPS (it still moves) or NONFINITE.
REACHED, AT_SADDLE, ELSEWHERE = range(8, 11)
STATUS_NAMES = (
    "RUNNING", "CONVERGED", "FIXED", "SLOW", "MAX_STEPS", "NONFINITE", "REJECTED", "FOLD", "REACHED", "AT_SADDLE",
    "ELSEWHERE",
)  # fmt: skip


class Solver(NamedTuple):
    """A search for one candidate, as two pure functions.

    Every state is a NamedTuple with at least `hidden` (n_hidden,), the best state so far; `q` scalar, its q; `done`
    bool, True where the solver can get no further in the dtype of `hidden`.

    Attributes:
      init: `(residual_fn, hidden) -> state`; hidden (n_hidden,).
      step: `(residual_fn, state) -> state`, one iteration.
    """

    init: Callable[[ResidualFn, jax.Array], Any]
    step: Callable[[ResidualFn, Any], Any]


class Report(NamedTuple):
    """What happened to the lanes of one search, and what is known about the map.

    Attributes:
      kind: "map" or "flow".
      inputs: (n_distinct_inputs, n_inputs) the distinct inputs searched at, or None.
      n_candidates: how many of the user's candidates were searched: all with until="all".
      counts: lanes of the user's candidates by the name of their status; they add up to n_candidates.
      reasons: lanes of the user's candidates by why they are no points.
      unresolved: (n_distinct_inputs,) user's lanes that ended without an answer (MAX_STEPS, NONFINITE), per input.
      n_candidates_per_input: (n_distinct_inputs,).
      bounded: True if the map is known to send a box into itself, else None.
      bounded_by: who says so, or why it is not known.
      until: "all" or "complete".
      waves: one dict a wave: n_lanes, n_new (points found first), n_new_fixed, seeded (False for the user's own).
      seeded_waves_met: (n_distinct_inputs,) True where the stop rule of `until="complete"` was met.
      candidate_speed: median speed of the candidates, activation per step: what SLOW speeds compare with.
      precision: dtype in which the step function computes when given float64, e.g. "float64".
      precision_floor: its eps, the relative resolution of every residual.
      n_steps: median and largest number of search steps of a lane.
      seconds: wall time by stage, compilation included.
      n_products: mean number of evaluations of r and of products with its Jacobian that the search of a candidate took;
        NaN for a solver that forms the Jacobian.
      n_unsearched: how many more the user gave, which until="complete" did not need.
      near_pairs: pairs of FIXED points close to each other, by what became of them: "same" and "different" are proved;
        "undecided" ones are told apart by tolerance alone.
    """

    kind: Kind
    inputs: np.ndarray | None
    n_candidates: int
    counts: dict[str, int]
    reasons: dict[str, int]
    unresolved: np.ndarray
    n_candidates_per_input: np.ndarray
    bounded: bool | None
    bounded_by: str
    until: str
    waves: list[dict[str, Any]]
    seeded_waves_met: np.ndarray
    candidate_speed: float
    precision: str
    precision_floor: float
    n_steps: dict[str, float]
    seconds: dict[str, float]
    n_products: float = float("nan")
    n_unsearched: int = 0
    near_pairs: dict[str, int] = {}  # noqa: RUF012


class FixedPoints(NamedTuple):
    """Distinct fixed and slow points; FIXED before SLOW, then by n_hits, most first.

    Attributes:
      hidden: (n_points, n_hidden) float64.
      inputs: (n_points, n_inputs) float64, or None where the search had no inputs.
      q: (n_points,) half the squared residual at `hidden`, in float64.
      speed: (n_points,) norm of the residual, activation per step (map) or per unit of time (flow).
      status: (n_points,) FIXED or SLOW.
      isolated: (n_points,) bool; False where the point is one of a continuum.
      n_hits: (n_points,) how many of the user's candidates that were searched ended here; 0 for points that only a
        seeded wave found.
      report: see `Report`.
    """

    hidden: np.ndarray
    inputs: np.ndarray | None
    q: np.ndarray
    speed: np.ndarray
    status: np.ndarray
    isolated: np.ndarray
    n_hits: np.ndarray
    report: Report
