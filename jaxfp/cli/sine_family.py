"""What joins a sine generator's inputs: one family of points, followed from input to input, and the cycles around it.

The points inside the orbits are followed along the inputs (`sweep`). A point that is followed to an input is the one
that the search found there if interval arithmetic proves it: the ball in which the one exists lies in the ball in which
the other is alone (`tell_apart`). Anything else counts as an error of identity.

A limit cycle is here the invariant circle of the map that is simulated, an Euler step of dt, not the cycle of the
differential equation, which lies O(dt) away and has another period. Its Floquet multipliers are what one turn does to
small distances: 1 along the circle, and across it the largest of the others, below 1 if the circle attracts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxfp import dynamics, plotting
from jaxfp.analysis import branches, continuation, limit_cycles
from jaxfp.cli import report, sine_mechanism
from jaxfp.cli.sine_mechanism import Mechanism, Orbits
from jaxfp.cli.sine_training import Network
from jaxfp.proof import certificates
from jaxfp.types import FIXED, FixedPoints

_N_SEGMENTS = 4  # of multiple shooting: these circles attract, so few will do
_N_TURNS = 8  # of the iterates that sample a circle; a turn is no whole number of steps, so that they fall in between


class Tracked(NamedTuple):
    """The points inside the orbits as one family.

    Attributes:
      family: result of the sweep; None without a point to follow.
      branch: the branch that most points lie on; -1 without one.
      exists: (n_conditions,) bool, the branch has a point at this input.
      same: (n_conditions,) bool, proved to be the point inside the orbit there.
      difference: (n_conditions,) largest difference of any unit between the two, NaN where one lacks.
    """

    family: branches.Family | None
    branch: int
    exists: np.ndarray
    same: np.ndarray
    difference: np.ndarray


class Circles(NamedTuple):
    """The invariant circles at some of the inputs; NaN where none was found.

    Attributes:
      which: (n_looked,) rows of the inputs.
      period: (n_looked,) T, time constants.
      period_error: (n_looked,) of T, what another stencil makes of it.
      multipliers: (n_looked, n_units) complex, the one along the circle first, then largest modulus first.
      radius: (n_looked,) root mean square distance of the circle from its mean.
      amplitude: (n_looked,) half of what the output runs through, peak to peak.
      distance: (n_looked, 2) mean and smallest distance of the circle from the point inside the orbit.
      inside: (n_looked,) bool, the circle goes around that point.
    """

    which: np.ndarray
    period: np.ndarray
    period_error: np.ndarray
    multipliers: np.ndarray
    radius: np.ndarray
    amplitude: np.ndarray
    distance: np.ndarray
    inside: np.ndarray


def track(network: Network, points: FixedPoints, mechanism: Mechanism, orbits: Orbits) -> Tracked:
    """Follow the points inside the orbits through all inputs.

    Args:
      network: see `Network`.
      points: as given to `explain`.
      mechanism: of these points.
      orbits: the same.

    Returns:
      Tracked.

    Example:
      >>> still = Orbits(np.ones((2, 1)), np.ones(2), np.ones((2, 4, 3)), np.ones((2, 4)), np.full(2, np.nan), 0.5)
      >>> track(None, None, Mechanism(*[np.full(2, -1)] * 7, np.nan), still).exists.tolist()  # nothing to follow
      [False, False]
    """
    n = len(orbits.target)
    none = np.zeros(n, bool)
    there = np.flatnonzero(mechanism.point >= 0)
    if not len(there):
        return Tracked(None, -1, none, none, np.full(n, np.nan))
    found = points.hidden[mechanism.point[there]]
    family = continuation.sweep(
        network.step_fn, network.params, (found, orbits.inputs[there]), inputs_path=orbits.inputs, kind="map"
    )
    on = family.branch_of_point[family.branch_of_point >= 0]
    branch = int(np.bincount(on).argmax()) if len(on) else -1
    path = family.at_path[branch] if len(on) else np.full((n, found.shape[1]), np.nan)
    exists = ~np.isnan(path[:, 0])
    same, difference = none.copy(), np.full(n, np.nan)
    difference[there] = np.abs(path[there] - found).max(1)
    both = np.flatnonzero(exists[there])
    hidden = np.concatenate([found[both], path[there[both]]])
    drive = np.concatenate([orbits.inputs[there[both]]] * 2)
    proof = certificates.certify(network.step_fn, network.params, hidden, drive)
    near = np.abs(hidden - proof.center).max(axis=1) <= proof.unique_radius  # what is proved is proved of this point
    relation = certificates.tell_apart(proof, drive).diagonal(len(both))
    same[there[both]] = (relation == 1) & near[: len(both)] & near[len(both) :]
    return Tracked(family, branch, exists, same, difference)


def close(
    network: Network, points: FixedPoints, mechanism: Mechanism, orbits: Orbits, n_inputs: int | None = None
) -> Circles:
    """The invariant circles that the free runs have settled on.

    Args:
      network: see `Network`.
      points: as given to `explain`.
      mechanism: of these points.
      orbits: the same.
      n_inputs: at how many of the inputs, evenly spaced; None for all.

    Returns:
      Circles.

    Example:
      >>> still = Orbits(np.ones((2, 1)), np.ones(2), np.ones((2, 4, 3)), np.ones((2, 4)), np.full(2, np.nan), 0.5)
      >>> close(None, None, Mechanism(*[np.full(2, -1)] * 7, np.nan), still).period.tolist()  # nothing oscillates
      [nan, nan]
    """
    n = len(orbits.target)
    which = np.unique(np.linspace(0, n - 1, n if n_inputs is None else min(n_inputs, n)).round().astype(int))
    n_looked, n_units = len(which), orbits.states.shape[2]
    nan = np.full((6, n_looked), np.nan)
    circles = Circles(
        which, nan[0], nan[1], np.full((n_looked, n_units), np.nan, complex), nan[2], nan[3], nan[4:].T.copy(),
        np.zeros(n_looked, bool),
    )  # fmt: skip
    runs = np.flatnonzero(np.isfinite(orbits.omega[which]))
    if not len(runs):
        return circles
    rows = which[runs]
    found = limit_cycles.find_limit_cycles(
        network.step_fn, network.params, orbits.states[rows, -1], orbits.inputs[rows],
        dt=orbits.dt, period=2 * np.pi / orbits.omega[rows], n_segments=_N_SEGMENTS,
    )  # fmt: skip
    closed = np.flatnonzero(found.cycle_of_candidate >= 0)
    if not len(closed):
        return circles
    cycle = found.cycle_of_candidate[closed]
    n_steps = np.ceil(_N_TURNS * found.period[cycle] / orbits.dt).astype(int)
    drive = orbits.inputs[rows[closed]][:, None].repeat(n_steps.max(), axis=1)
    states = np.asarray(dynamics.simulate(network.step_fn, network.params, found.hidden[cycle, 0], drive))
    readout = [np.asarray(w, np.float64) for w in network.readout]
    for i, c, path, length in zip(runs[closed], cycle, states, n_steps, strict=True):
        path, point = path[:length], mechanism.point[which[i]]
        along = np.argmin(np.abs(found.multipliers[c] - 1))
        circles.period[i], circles.period_error[i] = found.period[c], found.period_error[c]
        circles.multipliers[i] = np.r_[found.multipliers[c, along], np.delete(found.multipliers[c], along)]
        circles.radius[i] = np.sqrt(np.square(path - path.mean(0)).sum(1).mean())
        circles.amplitude[i] = np.ptp(np.tanh(path) @ readout[0]) / 2
        if point >= 0:
            distance = np.linalg.norm(path - points.hidden[point], axis=1)
            circles.distance[i] = distance.mean(), distance.min()
            circles.inside[i] = sine_mechanism.goes_around(points.hidden[point][None], path)[0][0]
    return circles


def elsewhere(
    points: FixedPoints, n_unstable: np.ndarray, mechanism: Mechanism, orbits: Orbits
) -> list[dict[str, Any]]:
    """The fixed points that are not the one inside the orbit.

    Args:
      points: as given to `explain`.
      n_unstable: (n_points,) of each.
      mechanism: of these points.
      orbits: the same.

    Returns:
      One entry a point, JSON-like: its input, unstable dimensions, and distance from the orbit's mean in radii.

    Example:
      >>> from jaxfp import find_fixed_points
      >>> still = find_fixed_points(lambda p, h, u: p * h, 0.5, np.ones((1, 2)), np.ones((1, 1)))
      >>> orbits = Orbits(np.ones((1, 1)), np.ones(1), np.eye(2)[None], np.ones((1, 2)), np.ones(1), 0.5)
      >>> [point["unstable"] for point in elsewhere(still, np.zeros(1), Mechanism(*[np.full(1, -1)] * 7, 0.5), orbits)]
      [0]
    """
    inside = mechanism.point[mechanism.point >= 0]
    listed = []
    for row in np.flatnonzero((points.status == FIXED) & ~np.isin(np.arange(len(points.hidden)), inside)):
        drive = np.asarray(points.inputs)[row]
        states = orbits.states[np.flatnonzero((orbits.inputs == drive).all(1))[0]].astype(np.float64)
        radius = np.sqrt(np.square(states - states.mean(0)).sum(1).mean())
        distance = np.linalg.norm(points.hidden[row] - states.mean(0))
        listed.append(
            {
                "input": float(drive[0]),
                "unstable": int(n_unstable[row]),
                "isolated": bool(points.isolated[row]),
                "distance_in_radii": float(distance / radius) if radius > 0 else None,
            }
        )
    return listed


def figures(tracked: Tracked, circles: Circles, orbits: Orbits) -> dict[str, Callable[[Any], Any]]:
    """Figures of both.

    Args:
      tracked: see `track`.
      circles: see `close`.
      orbits: the same.

    Returns:
      By file name, a function that draws into axes; none without a family, or without circles.

    Example:
      >>> orbits = Orbits(np.ones((2, 1)), np.ones(2), np.ones((2, 4, 3)), np.ones((2, 4)), np.ones(2), 0.5)
      >>> nothing, no = np.full(2, np.nan), np.zeros(2, bool)
      >>> circles = Circles(np.arange(2), *[nothing] * 2, np.ones((2, 3)), *[nothing] * 2, np.ones((2, 2)), no)
      >>> figures(Tracked(None, -1, no, no, nothing), circles, orbits)
      {}
    """
    drawn: dict[str, Callable[[Any], Any]] = {}
    family, found = tracked.family, np.isfinite(circles.period)
    if family is not None and tracked.branch >= 0 and orbits.states.shape[2] >= 3:
        way = report.principal_directions(family.at_path[tracked.branch][tracked.exists])[1][0]
        along = orbits.states.astype(np.float64) @ way
        drawn["family.png"] = lambda ax: plotting.family_inside_orbits(
            family, way, orbits.inputs[:, 0], along.min(1), along.max(1), ax
        )
    if found.any():
        target = orbits.target[circles.which[found]]
        drawn["multipliers.png"] = lambda ax: plotting.multipliers(target, circles.multipliers[found], ax)
        drawn["distances.png"] = lambda ax: plotting.distances(
            target, circles.radius[found], circles.distance[found], ax
        )
    return drawn


def summarize(tracked: Tracked, circles: Circles, mechanism: Mechanism, orbits: Orbits) -> dict[str, Any]:
    """The numbers of both, JSON-like.

    Args:
      tracked: see `track`.
      circles: see `close`.
      mechanism: the same.
      orbits: the same.

    Returns:
      Dict of "family" and "cycles".

    Example:
      >>> orbits = Orbits(np.ones((2, 1)), np.ones(2), np.ones((2, 4, 3)), np.ones((2, 4)), np.array([1.0, 1.02]), 0.5)
      >>> mechanism = Mechanism(*[np.full(2, -1)] * 7, correlation=0.5)
      >>> nothing, no = np.full(2, np.nan), np.zeros(2, bool)
      >>> circles = Circles(np.arange(2), *[nothing] * 2, np.ones((2, 3)), *[nothing] * 2, np.ones((2, 2)), no)
      >>> said = summarize(Tracked(None, -1, no, no, nothing), circles, mechanism, orbits)
      >>> said["family"]["n_followed"], said["cycles"]["n_found"]
      (0, 0)
    """
    return {"family": _of_family(tracked, mechanism, orbits), "cycles": _of_cycles(circles, mechanism, orbits)}


def _of_family(tracked: Tracked, mechanism: Mechanism, orbits: Orbits) -> dict[str, Any]:
    family, there = tracked.family, mechanism.point >= 0
    said: dict[str, Any] = {
        "n_followed": int(tracked.exists.sum()),
        "n_same": int(tracked.same.sum()),
        "identity_errors": int((there & ~tracked.same).sum()),
        "largest_difference": _or_none(np.max, tracked.difference),
        "events": [],
    }
    if family is None or tracked.branch < 0:
        return said
    on = np.flatnonzero((family.events.branch == tracked.branch).any(axis=1))
    where = np.interp(family.events.s[on], np.arange(len(orbits.inputs)), orbits.inputs[:, 0])
    n_unstable = family.unstable_at_path[tracked.branch]
    return said | {
        "events": [{"kind": str(family.events.kind[e]), "input": float(u)} for e, u in zip(on, where, strict=True)],
        "n_branches": len(family.begins),
        "unstable_dimensions": np.unique(n_unstable[n_unstable >= 0]).tolist(),
        "begins": str(family.begins[tracked.branch]),
        "ends": str(family.ends[tracked.branch]),
    }


def _of_cycles(circles: Circles, mechanism: Mechanism, orbits: Orbits) -> dict[str, Any]:
    rows, found = circles.which, np.isfinite(circles.period)
    omega = 2 * np.pi / circles.period
    off = np.nan_to_num(np.abs(omega / orbits.target[rows] - 1), nan=np.inf)
    apart = np.abs(omega / orbits.omega[rows] - 1)
    # Each crossing lies in the step that it was seen in, so that all turns of a run together err by less than a step.
    turns = np.maximum(np.floor(orbits.states.shape[1] * orbits.dt / circles.period) - 1, 1)
    agrees = apart <= orbits.dt / (turns * circles.period) + circles.period_error / circles.period
    across = np.abs(circles.multipliers[:, 1:]).max(1, initial=0.0)
    relative = circles.distance / circles.radius[:, None]
    return {
        "n_looked": len(rows),
        "n_found": int(found.sum()),
        "n_agree_with_free_runs": int(agrees.sum()),
        "largest_difference_from_free_runs": _or_none(np.max, apart),
        "period_error_largest": _or_none(np.max, circles.period_error / circles.period),
        "error_median": float(np.median(off)) if len(rows) else None,
        "error_largest": float(np.max(off)) if len(rows) else None,
        "multiplier_along_off_1": _or_none(np.max, np.abs(circles.multipliers[:, 0] - 1)),
        "multiplier_across_largest": _or_none(np.max, across),
        "multiplier_across_median": _or_none(np.median, across),
        "n_attract": int((across[found] < 1).sum()),
        "n_around_the_point": int(circles.inside.sum()),
        "distance_mean_in_radii": _or_none(np.median, relative[:, 0]),
        "distance_smallest_in_radii": _or_none(np.min, relative[:, 1]),
        "each": [
            {
                "input": float(orbits.inputs[j, 0]),
                "target": orbits.target[j],
                "frequency": omega[i],
                "free_run": orbits.omega[j],
                "leading_mode": mechanism.omega[j],
                "period": circles.period[i],
                "period_error": circles.period_error[i],
                "multiplier_along": np.abs(circles.multipliers[i, 0]),
                "multipliers_across": np.abs(circles.multipliers[i, 1:4]),
                "radius": circles.radius[i],
                "amplitude": circles.amplitude[i],
                "distance_mean": circles.distance[i, 0],
                "distance_smallest": circles.distance[i, 1],
                "around_the_point": bool(circles.inside[i]),
            }
            for i, j in enumerate(rows)
        ],
    }


def _or_none(what: Any, values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(what(known)) if len(known) else None
