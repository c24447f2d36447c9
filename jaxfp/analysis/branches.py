"""Branches: pieces of curves of fixed points on which s, the position along the path, only grows.

A curve that turns back at a fold is two branches that meet there, so that each branch is one fixed point at every s
where it exists: its identity. The same branch may be traced more than once, from both of its ends or from several of
the points given; traces of one curve agree at every sample of the path between their ends, and are one branch.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

_ON_SAMPLE = 1e-8  # of s
_SAME = 1e-6  # relative to 1 + ||hidden||: the rounding of a point near a singular I - J
_SAME_EVENT = 1e-5


class Events(NamedTuple):
    """Where the number or the stability of the points changes; by s.

    Attributes:
      kind: (n_events,) "fold" (eigenvalue 1, the branch turns back), "branch" (eigenvalue 1, branches cross:
        transcritical, pitchfork), "flip" (eigenvalue -1), "neimark-sacker" (a pair on the unit circle); of a flow
        "fold", "branch" (eigenvalue 0) and "hopf" (a pair on the imaginary axis).
      s: (n_events,) position on the path, in samples.
      hidden: (n_events, n_hidden) the point there.
      eigenvalue: (n_events,) complex, the one that crosses, of the pair that with positive imaginary part.
      branch: (n_events, 2) the branch it is on, and the one that it turns into, -1 where it does not turn.
    """

    kind: np.ndarray
    s: np.ndarray
    hidden: np.ndarray
    eigenvalue: np.ndarray
    branch: np.ndarray


class Family(NamedTuple):
    """Points followed along a path; a branch is one point at each s where it exists.

    Attributes:
      at_path: (n_branches, n_steps, n_hidden) the point at each sample of the path, NaN where it does not exist.
      unstable_at_path: (n_branches, n_steps) its unstable dimensions, -1 where it does not exist or none were counted.
      branch_of_point: (n_points,) the branch of each point given; -1 where it was not followed.
      s: (n_branches, n_samples) positions at which the branch was computed, growing; NaN after the last.
      hidden: (n_branches, n_samples, n_hidden) the point there.
      exists: (n_branches, n_samples) False after the last.
      speed: (n_branches, n_samples) norm of the residual.
      n_unstable: (n_branches, n_samples) unstable dimensions, -1 if they were not counted.
      begins: (n_branches,) why there is nothing at smaller s: "path" (its end), "fold", "branch" (a pitchfork seen from
        its outer side), "closed" (the curve came back to where it began), or "lost" and "unfinished": no step, however
        small, was to be believed, or max_samples were used up.
      ends: (n_branches,) why there is nothing at larger s.
      events: see `Events`.
    """

    at_path: np.ndarray
    unstable_at_path: np.ndarray
    branch_of_point: np.ndarray
    s: np.ndarray
    hidden: np.ndarray
    exists: np.ndarray
    speed: np.ndarray
    n_unstable: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    events: Events


@dataclasses.dataclass
class Sheet:
    """A piece of a trace between folds, in the order it was traced.

    Attributes:
      way: 1 where it was traced towards larger s, -1 towards smaller.
      places: (n_hidden + 1,) each: (hidden, s).
      n_unstable: of each.
      speed: of each.
      first: why it begins.
      last: why it ends.
    """

    way: int
    places: list[np.ndarray]
    n_unstable: list[int]
    speed: list[float]
    first: str
    last: str = ""


@dataclasses.dataclass
class Trace:
    """What one lane did: from a point, one way along the path.

    Attributes:
      point: number of the point.
      group: only points of one group (network and path) can lie on one branch.
      sheets: the first one holds the point.
      events: (kind, place, eigenvalue, number of the sheet).
    """

    point: int
    group: int
    sheets: list[Sheet]
    events: list[tuple[str, np.ndarray, complex, int]]


class _Branch(NamedTuple):
    group: int
    places: np.ndarray
    n_unstable: np.ndarray
    speed: np.ndarray
    begins: str
    ends: str


def at_samples(places: np.ndarray, n_steps: int) -> np.ndarray:
    """Where a branch is at the samples of the path.

    Args:
      places: (n_samples, n_hidden + 1).
      n_steps: samples of the path.

    Returns:
      (n_steps,) row of `places`, -1 where the branch does not exist.

    Example:
      >>> at_samples(np.array([[5.0, 0.0], [6.0, 0.5], [7.0, 1.0]]), 3).tolist()
      [0, 2, -1]
    """
    rows, s = np.full(n_steps, -1), places[:, -1]
    near = np.flatnonzero((np.abs(s - np.rint(s)) <= _ON_SAMPLE) & (s > -0.5) & (s < n_steps - 0.5))
    rows[np.rint(s[near]).astype(int)] = near
    return rows


def joined(traces: list[Trace], hidden: np.ndarray, start: np.ndarray, group: np.ndarray, n_steps: int) -> Family:
    """Put traces together: one branch for each curve between folds.

    Args:
      traces: at most two of each point, one each way.
      hidden: (n_points, n_hidden) the points given; one without a trace may lie on the trace of another.
      start: (n_points,) sample at which each is fixed.
      group: (n_points,) see `Trace`.
      n_steps: samples of the path.

    Returns:
      Family.

    Example:
      >>> sheet = Sheet(1, [np.array([2.0, 0.0]), np.array([3.0, 1.0])], [0, 0], [0.0, 0.0], "path", "path")
      >>> joined([Trace(0, 0, [sheet], [])], np.full((1, 1), 2.0), *np.zeros((2, 1), int), 2).at_path.ravel().tolist()
      [2.0, 3.0]
    """
    kept: list[_Branch] = []
    number: dict[tuple[int, int], int] = {}  # of the branch that a sheet of a trace belongs to
    n_hidden, of_point = hidden.shape[1], np.full(len(hidden), -1)
    for point in sorted({trace.point for trace in traces}):
        own = [i for i, trace in enumerate(traces) if trace.point == point]
        of_point[point] = _keep(kept, _whole([traces[i] for i in own]), n_steps)
        number |= {(i, 0): of_point[point] for i in own}
    for i, trace in enumerate(traces):
        for j, sheet in enumerate(trace.sheets[1:], start=1):
            number[i, j] = _keep(kept, _grown(trace.group, sheet), n_steps)
    for point in map(int, np.flatnonzero(of_point < 0)):
        of_point[point] = _holder(kept, hidden[point], start[point], group[point], n_steps)
    events = _distinct(traces, number, n_hidden)

    longest = max((len(branch.places) for branch in kept), default=0)
    s, speed = np.full((2, len(kept), longest), np.nan)
    hidden = np.full((len(kept), longest, n_hidden), np.nan)
    n_unstable = np.full((len(kept), longest), -1)
    at_path = np.full((len(kept), n_steps, n_hidden), np.nan)
    unstable = np.full((len(kept), n_steps), -1)
    for b, branch in enumerate(kept):
        n = len(branch.places)
        s[b, :n], hidden[b, :n] = branch.places[:, -1], branch.places[:, :-1]
        speed[b, :n], n_unstable[b, :n] = branch.speed, branch.n_unstable
        rows = at_samples(branch.places, n_steps)
        at_path[b, rows >= 0] = branch.places[rows[rows >= 0], :-1]
        unstable[b, rows >= 0] = branch.n_unstable[rows[rows >= 0]]
    begins, ends = (np.array([getattr(b, name) for b in kept], "<U10") for name in ("begins", "ends"))
    exists = ~np.isnan(s)
    return Family(at_path, unstable, of_point, s, hidden, exists, speed, n_unstable, begins, ends, events)


def _holder(kept: list[_Branch], hidden: np.ndarray, start: int, group: int, n_steps: int) -> int:
    """The number of the branch that a point lies on, or -1."""
    for number, branch in enumerate(kept):
        row = at_samples(branch.places, n_steps)[start]
        if branch.group == group and row >= 0:
            gap = np.linalg.norm(branch.places[row, :-1] - hidden)
            if gap <= _SAME * (1 + np.linalg.norm(hidden)):
                return number
    return -1


def _whole(traces: list[Trace]) -> _Branch:
    """The branch of a point, from the traces that leave it both ways, or one way from an end of the path."""
    branches = [_grown(trace.group, trace.sheets[0]) for trace in traces]
    if len(branches) == 1:
        return branches[0]
    low, high = (branches[i] for i in np.argsort([trace.sheets[0].way for trace in traces]))
    places, n_unstable, speed = (
        np.concatenate([getattr(low, c)[:-1], getattr(high, c)]) for c in ("places", "n_unstable", "speed")
    )
    return _Branch(low.group, places, n_unstable, speed, low.begins, high.ends)


def _grown(group: int, sheet: Sheet) -> _Branch:
    """With s growing."""
    places, n_unstable, speed = (
        np.array(column)[:: sheet.way] for column in (sheet.places, sheet.n_unstable, sheet.speed)
    )
    begins, ends = (sheet.first, sheet.last)[:: sheet.way]
    return _Branch(group, places, n_unstable, speed, begins, ends)


def _keep(kept: list[_Branch], branch: _Branch, n_steps: int) -> int:
    """The number of the branch, a new one if there is none like it."""
    for number, other in enumerate(kept):
        if other.group == branch.group and _same(other, branch, n_steps):
            return number
    kept.append(branch)
    return len(kept) - 1


def _same(one: _Branch, other: _Branch, n_steps: int) -> bool:
    ends = [np.stack([branch.places[0], branch.places[-1]]) for branch in (one, other)]
    inner = [at_samples(branch.places, n_steps) for branch in (one, other)]
    # Where branches meet in an event, their values say nothing.
    meets = [
        [end[-1] for end, why in zip(e, (b.begins, b.ends), strict=True) if why in ("fold", "branch")]
        for e, b in zip(ends, (one, other), strict=True)
    ]
    both = np.array(
        [
            k
            for k in np.flatnonzero((inner[0] >= 0) & (inner[1] >= 0))
            if all(abs(k - s) > _SAME_EVENT for s in meets[0] + meets[1])
        ],
        int,
    )
    if len(both):
        a, b = (x.places[rows[both], :-1] for x, rows in zip((one, other), inner, strict=True))
        return bool((np.linalg.norm(a - b, axis=1) <= _SAME * (1 + np.linalg.norm(a, axis=1))).all())
    return bool(np.abs(ends[0] - ends[1]).max() <= _SAME_EVENT * (1 + np.abs(ends[0]).max()))


def _distinct(traces: list[Trace], number: dict[tuple[int, int], int], n_hidden: int) -> Events:
    """Each event once, by s."""
    found: list[tuple[str, np.ndarray, complex, tuple[int, ...]]] = []
    for i, trace in enumerate(traces):
        for kind, place, eigenvalue, sheet in trace.events:
            turns = sheet + 1 < len(trace.sheets) and trace.sheets[sheet].places[-1] is place
            on = (number[i, sheet], number[i, sheet + 1] if turns else -1)
            known = any(
                kind == other and sorted(on) == sorted(where) and np.abs(place - at).max() <= _SAME_EVENT
                for other, at, _, where in found
            )
            if not known:
                found.append((kind, place, eigenvalue, on))
    found.sort(key=lambda event: event[1][-1])
    places = np.array([event[1] for event in found]).reshape(-1, n_hidden + 1)
    return Events(
        np.array([event[0] for event in found], "<U14"),
        places[:, -1],
        places[:, :-1],
        np.array([event[2] for event in found], complex),
        np.array([event[3] for event in found], int).reshape(-1, 2),
    )
