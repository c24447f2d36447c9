"""Follow curves of fixed points along a path, many at once, and find the events on them.

A step (`tracking`) is believed or halved: from sample to sample of the path at given s where that works (natural
parameter), in arclength where a curve turns back. Between two steps an event has happened where one of these changed:

    sign of ds/darclength             a fold; or, if the next line did not change, a pitchfork from its outer side
    sign of det r_x                   a fold; or, if the line before did not change, another branch crosses
    number of unstable eigenvalues    if neither of these changed: flip or Neimark-Sacker; of a flow, Hopf

with r_x = J - I of a map, J of a flow. Its place is a zero, along the curve, of ds/darclength, of det r_x, or of how
far beyond the border the m-th eigenvalue is, counted from 0, least stable first, m the smaller number of unstable ones.
These are continuous on a curve. The bracket shrinks to 1e-9 in (hidden, s); if the states at its ends do not come
together, there was no event: the step had jumped to another curve, and is halved. So is one that holds several events.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxfp.analysis import stability, tracking
from jaxfp.analysis.branches import Sheet, Trace
from jaxfp.analysis.tracking import Lane, Path, Proposal
from jaxfp.types import Kind, StepFn

_LEAST_STEP = 1e-7
_SINGLE = 1e-5  # shorter steps may hold several events at once: those of a symmetric network
_OVER = 1e-2  # of a sample: how far a step may leave its segment where none can end at the sample
_NEAR = 2e-3  # of a sample: how near that must be
_BRACKET = 1e-9
_N_LOCATE = 80
_SAME = 1e-6  # relative to 1 + ||z||


class Problem(NamedTuple):
    """What is followed, and how.

    Attributes:
      step_fn: map or vector field.
      kind: "map" or "flow".
      path: see `tracking.Path`.
      stability: whether eigenvalues are computed.
      max_step: largest step in s.
      max_samples: of one lane.
    """

    step_fn: StepFn
    kind: Kind
    path: Path
    stability: bool
    max_step: float
    max_samples: int


@dataclasses.dataclass
class _Lanes:
    """Where each lane stands."""

    place: np.ndarray
    tangent: np.ndarray
    segment: np.ndarray
    row: np.ndarray
    network: np.ndarray
    sign: np.ndarray  # of det r_x
    log_size: np.ndarray
    eigenvalues: np.ndarray
    wish: np.ndarray  # length of the next step
    free: np.ndarray  # of the sample ahead, where no step could end
    active: np.ndarray


class _Event(NamedTuple):
    kind: str
    place: np.ndarray
    eigenvalue: complex
    turns: bool


def follow(
    problem: Problem,
    hidden: np.ndarray,
    start: np.ndarray,
    way: np.ndarray,
    point: np.ndarray,
    network: np.ndarray,
    group: np.ndarray,
) -> list[Trace]:
    """Follow each lane until its curve leaves the path, closes, or cannot be followed. Needs x64 in scope.

    Args:
      problem: see `Problem`.
      hidden: (n_lanes, n_hidden) fixed points.
      start: (n_lanes,) sample of the path at which they are fixed.
      way: (n_lanes,) 1 towards larger s, -1 towards smaller.
      point: (n_lanes,) number of the point, and row of the path's inputs.
      network: (n_lanes,).
      group: (n_lanes,) see `branches.Trace`.

    Returns:
      A trace for each lane.

    Example:
      >>> import jax
      >>> path = Path(np.array([0.5, 1.5]), None, (True,), False, 2)
      >>> problem = Problem(lambda p, h, u: p * h, "map", path, True, 1.0, 9)
      >>> one = np.ones(1, int)
      >>> with jax.enable_x64(True):
      ...     [trace] = follow(problem, np.zeros((1, 1)), 0 * one, one, 0 * one, 0 * one, 0 * one)
      >>> trace.sheets[0].last, trace.events[0][:2]
      ('path', ('branch', array([0. , 0.5])))
    """
    lanes, traces = _begun(problem, hidden, start, way, point, network, group)
    while lanes.active.any():
        now = np.flatnonzero(lanes.active)
        step, lands = _plan(problem, lanes, now)
        proposal = _propose(problem, lanes, now, step, lands)
        over = np.maximum(proposal.place[:, -1] - lanes.segment[now] - 1, lanes.segment[now] - proposal.place[:, -1])
        believed = proposal.believed & (over <= np.where(lanes.free[now], _OVER, _BRACKET))
        eigenvalues = _eigenvalues(problem, proposal.jacobian, believed, stability.deciding)
        events = _find_events(problem, lanes, now, step, lands, proposal, eigenvalues, believed)
        for i, lane in enumerate(now):
            if believed[i]:
                _record(
                    problem, traces[lane], proposal.place[i], eigenvalues[i], proposal.speed[i], events.get(i), over[i]
                )
        _advance(problem, lanes, traces, now, step, lands, proposal, eigenvalues, believed, over)
    return traces


def _begun(
    problem: Problem, hidden: np.ndarray, start: np.ndarray, way: np.ndarray, point: np.ndarray, network: np.ndarray,
    group: np.ndarray,
) -> tuple[_Lanes, list[Trace]]:  # fmt: skip
    """Lanes at their points, which are taken to the last digit first."""
    n_lanes, n_hidden = hidden.shape
    tangent = np.zeros((n_lanes, n_hidden + 1))
    tangent[:, -1] = way
    lanes = _Lanes(
        np.column_stack([hidden, start]), tangent, np.minimum(start, start + way), point, network, np.zeros(n_lanes),
        np.zeros(n_lanes), np.zeros((n_lanes, 0)), np.full(n_lanes, np.inf), np.zeros(n_lanes, bool),
        np.ones(n_lanes, bool),
    )  # fmt: skip
    first = _propose(problem, lanes, np.arange(n_lanes), np.zeros(n_lanes), np.ones(n_lanes, bool))
    # A point given to half the digits is near its curve; farther off it may be near any.
    near = first.error <= np.sqrt(_SAME) * (1 + np.linalg.norm(hidden, axis=1))
    lanes.active = first.converged & near
    lanes.eigenvalues = _eigenvalues(problem, first.jacobian, lanes.active, stability.deciding)
    n_unstable = _count(problem, lanes.eigenvalues)
    traces = []
    for i in range(n_lanes):
        place = (first if lanes.active[i] else lanes).place[i].copy()  # lanes move on
        end = "" if lanes.active[i] else "lost"
        sheet = Sheet(int(way[i]), [place], [int(n_unstable[i])], [float(first.speed[i])], "path", end)
        traces.append(Trace(int(point[i]), int(group[i]), [sheet], []))
    lanes.place, lanes.tangent, lanes.sign, lanes.log_size = first.place, first.tangent, first.sign, first.log_size
    return lanes, traces


def _plan(problem: Problem, lanes: _Lanes, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each lane goes, and whether it ends exactly at the sample ahead."""
    slope, s = lanes.tangent[now, -1], lanes.place[now, -1]
    knot = lanes.segment[now] + (slope > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ahead = np.where(slope == 0, np.inf, (knot - s) / slope)
        longest = np.minimum(problem.max_step / np.abs(slope), 0.25 * (1 + np.linalg.norm(lanes.place[now], axis=1)))
    longest = np.where(np.abs(slope) > 0.5, problem.max_step / np.abs(slope), longest)
    length = np.minimum(lanes.wish[now], longest)
    free = lanes.free[now]
    lands = ~free & (ahead <= length * (1 + 1e-9))
    return np.where(lands, ahead, np.where(free, np.minimum(4 * ahead, length), length)), lands


def _propose(problem: Problem, lanes: _Lanes, now: np.ndarray, step: np.ndarray, lands: np.ndarray) -> Proposal:
    segment, slope = lanes.segment[now], lanes.tangent[now, -1]
    onward = np.clip(
        np.where(lands & (step != 0), segment + np.where(slope > 0, 1, -1), segment), 0, problem.path.n_steps - 2
    )
    lane = Lane(lanes.place[now], lanes.tangent[now], step, lands, segment, onward, lanes.row[now], lanes.network[now])
    return tracking.propose(problem.step_fn, problem.kind, problem.path, lane)


def _eigenvalues(problem: Problem, jacobian: np.ndarray, wanted: np.ndarray, which: Any) -> np.ndarray:
    """Of J, of the lanes wanted, 0 for the others; (n_lanes, 0) without stability."""
    if not problem.stability:
        return np.zeros((len(jacobian), 0), complex)
    values = np.zeros(jacobian.shape[:2], complex)
    rows = wanted & np.isfinite(jacobian).all(axis=(1, 2))
    identity = np.eye(jacobian.shape[-1]) if problem.kind == "map" else 0.0
    values[rows] = which(jacobian[rows] + identity, problem.kind)
    return values


def _count(problem: Problem, eigenvalues: np.ndarray) -> np.ndarray:
    unstable = stability.beyond(eigenvalues, problem.kind) > 0
    return unstable.sum(axis=1) if problem.stability else np.full(len(eigenvalues), -1)


def _find_events(
    problem: Problem, lanes: _Lanes, now: np.ndarray, step: np.ndarray, lands: np.ndarray, proposal: Proposal,
    eigenvalues: np.ndarray, believed: np.ndarray,
) -> dict[int, _Event]:  # fmt: skip
    """The event of each step that holds one; a step that holds several, or none after all, is believed no more."""
    slope = lanes.tangent[now, -1]
    turned = proposal.tangent[:, -1] * slope < 0
    crossed = proposal.sign * np.sign(proposal.tangent[:, -1]) != lanes.sign[now] * np.sign(slope)
    before, after = _count(problem, lanes.eigenvalues[now]), _count(problem, eigenvalues)
    change = np.abs(after - before)
    single = np.where(turned ^ crossed, change == 1, np.where(turned, change == 0, change <= 2))
    believed &= single | (not problem.stability) | (step < _SINGLE)
    rows = np.flatnonzero(believed & (turned | crossed | (change != 0)))
    if not len(rows):
        return {}
    test = np.where(turned, "turn", np.where(crossed, "det", "border"))[rows]
    rank = np.minimum(before, after)[rows]
    places, values, sound = _locate(
        problem, lanes, now[rows], step[rows], lands[rows], test, rank, (after > before)[rows]
    )
    # Two real eigenvalues that cross one after the other are two events.
    sound &= (change[rows] < 2) | (test != "border") | (values.imag != 0) | (step[rows] < _SINGLE)
    believed[rows] = sound
    return {
        int(i): _Event(_kind_of(problem, turned[i], crossed[i], value), place, complex(value), bool(turned[i]))
        for i, place, value, well in zip(rows, places, values, sound, strict=True)
        if well
    }


def _kind_of(problem: Problem, turned: bool, crossed: bool, eigenvalue: complex) -> str:
    if turned and not crossed:
        return "fold"
    if not crossed and eigenvalue.imag:
        return "neimark-sacker" if problem.kind == "map" else "hopf"
    return "flip" if not crossed and problem.kind == "map" and eigenvalue.real < 0 else "branch"


def _locate(
    problem: Problem, lanes: _Lanes, now: np.ndarray, step: np.ndarray, lands: np.ndarray, test: np.ndarray,
    rank: np.ndarray, grows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Place and eigenvalue of the event in each step, and whether the curve is whole there: regula falsi (Illinois)."""
    slope, each = lanes.tangent[now, -1], np.arange(len(now))

    def value(sign: np.ndarray, log_size: np.ndarray, tangent: np.ndarray, eigenvalues: np.ndarray) -> np.ndarray:
        """Positive before the event, negative after it."""
        with np.errstate(over="ignore", invalid="ignore"):
            det = sign * lanes.sign[now] * np.exp(np.minimum(log_size - lanes.log_size[now], 50.0))
        border = 0 * det
        if problem.stability:
            border = stability.beyond(eigenvalues[each, rank % eigenvalues.shape[1]], problem.kind)
        border = np.where(grows, -border, border)
        return np.where(test == "turn", tangent[:, -1] * np.sign(slope), np.where(test == "det", det, border))

    low, high = np.zeros(len(now)), np.ones(len(now))
    at_low = value(lanes.sign[now], lanes.log_size[now], lanes.tangent[now], lanes.eigenvalues[now])
    at_high, part = np.zeros(len(now)), np.ones(len(now))
    place_low, place_high = lanes.place[now], lanes.place[now] + np.inf
    jacobian_high = np.full((len(now), *2 * (lanes.place.shape[1] - 1,)), np.nan)
    last = np.zeros(len(now))
    for number in range(_N_LOCATE):
        some = np.flatnonzero((high - low) * step > _BRACKET)
        if not len(some):
            break
        proposal = _propose(problem, lanes, now, step * part, lands)
        open_ = (high - low) * step > _BRACKET
        eigenvalues = _eigenvalues(problem, proposal.jacobian, open_ & (test == "border"), stability.eigenvalues)
        new = value(proposal.sign, proposal.log_size, proposal.tangent, eigenvalues)
        well = open_ & proposal.converged & np.isfinite(new)
        before, after = well & (new > 0), well & (new <= 0)
        low, at_low = np.where(before, part, low), np.where(before, new, at_low)
        high, at_high = np.where(after, part, high), np.where(after, new, at_high)
        place_low = np.where(before[:, None], proposal.place, place_low)
        place_high = np.where(after[:, None], proposal.place, place_high)
        jacobian_high = np.where(after[:, None, None], proposal.jacobian, jacobian_high)
        at_high = np.where(before & (last > 0), at_high / 2, at_high)
        at_low = np.where(after & (last < 0), at_low / 2, at_low)
        last = np.where(before, 1.0, np.where(after, -1.0, 0.0))
        # A little beyond the estimate, away from the nearer end, so that the bracket closes from both sides.
        with np.errstate(divide="ignore", invalid="ignore"):
            share = at_low / (at_low - at_high)
            nudge = 0.3 * _BRACKET / (step * (high - low))
        share = np.where(share < 0.5, share + nudge, share - nudge)
        simple = (number % 4 == 3) | ~well | ~np.isfinite(share) | (share <= 0) | (share >= 1)
        part = low + (high - low) * np.where(simple, np.where(well, 0.5, 0.37), share)
    width = (high - low) * step
    scale = 1 + np.linalg.norm(lanes.place[now], axis=1)
    sound = np.linalg.norm(place_high - place_low, axis=1) <= _SAME * scale + 10 * width
    sound &= width <= 1e3 * _BRACKET
    border = 1.0 if problem.kind == "map" else 0.0
    crossing = np.full(len(now), border + 0j)
    if problem.stability:
        values = _eigenvalues(problem, jacobian_high, sound, stability.eigenvalues)
        of_border = values[each, rank % values.shape[1]]
        at_one = values[each, np.abs(values - border).argmin(axis=1)]
        crossing = np.where(test == "border", of_border.real + 1j * np.abs(of_border.imag), at_one)
    place = (place_low + place_high) / 2
    turns = np.flatnonzero((test == "turn") & sound)
    if len(turns):
        place[turns] = _summit(problem, lanes, now[turns], step[turns], (low * step)[turns], place[turns])
    return place, crossing, sound


def _summit(
    problem: Problem, lanes: _Lanes, now: np.ndarray, step: np.ndarray, length: np.ndarray, place: np.ndarray
) -> np.ndarray:
    """Where s is largest or smallest, from a little before and a little after, by cubic Hermite interpolation.

    At the tip of a pitchfork's outer branch no step converges to more than half the digits: M is singular there.
    """
    h = np.minimum(1e-3, step / 10)
    ends, slopes = [], []
    for side in (-1, 1):
        end = _propose(problem, lanes, now, length + side * h, np.zeros(len(now), bool))
        ends.append(end.place)
        slopes.append(end.tangent / (end.tangent * lanes.tangent[now]).sum(axis=1, keepdims=True) * 2 * h[:, None])
    a, b, gain = slopes[0], slopes[1], ends[1] - ends[0]
    # s' / 2h = a + 2 (3 gain - 2 a - b) t + 3 (a + b - 2 gain) t^2 vanishes once in [0, 1]: from + to - or back.
    c1, c2 = 2 * (3 * gain - 2 * a - b)[:, -1], 3 * (a + b - 2 * gain)[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(c1**2 - 4 * c2 * a[:, -1])
        t = (2 * a[:, -1] / (-c1 + np.where(c1 > 0, -root, root)))[:, None]
        found = ends[0] + t * (a + t * (3 * gain - 2 * a - b + t * (a + b - 2 * gain)))
    well = (t[:, 0] >= 0) & (t[:, 0] <= 1) & (np.linalg.norm(found - place, axis=1) <= h)
    return np.where(well[:, None], found, place)


def _record(
    problem: Problem, trace: Trace, place: np.ndarray, eigenvalues: np.ndarray, speed: float, event: _Event | None,
    over: float,
) -> None:  # fmt: skip
    """Add a sample, and the event before it."""
    sheet = trace.sheets[-1]
    if event is not None:
        trace.events.append((event.kind, event.place, event.eigenvalue, len(trace.sheets) - 1))
        if event.kind in ("fold", "branch"):
            _append(sheet, event.place, sheet.n_unstable[-1], sheet.speed[-1])
        if event.turns:
            sheet.last = event.kind
            sheet = Sheet(-sheet.way, [event.place], [sheet.n_unstable[-1]], [sheet.speed[-1]], event.kind)
            trace.sheets.append(sheet)
    if not (over > _BRACKET and not 0 <= place[-1] <= problem.path.n_steps - 1):
        _append(sheet, place, int(_count(problem, eigenvalues[None])[0]), speed)


def _append(sheet: Sheet, place: np.ndarray, n_unstable: int, speed: float) -> None:
    sheet.places.append(place)
    sheet.n_unstable.append(n_unstable)
    sheet.speed.append(float(speed))


def _advance(
    problem: Problem, lanes: _Lanes, traces: list[Trace], now: np.ndarray, step: np.ndarray, lands: np.ndarray,
    proposal: Proposal, eigenvalues: np.ndarray, believed: np.ndarray, over: np.ndarray,
) -> None:  # fmt: skip
    """Move the lanes whose step is believed; the others try half of it, or give up."""
    old_wish = np.where(lands & np.isfinite(lanes.wish[now]), np.maximum(lanes.wish[now], step), step)
    easy = (proposal.error <= 0.1 * step) & believed
    wish = np.where(lands & ~np.isfinite(lanes.wish[now]), np.inf, np.where(easy, 2.0, 1.0) * old_wish)
    slope = lanes.tangent[now, -1]
    stuck = ~believed & lands & (np.abs(step * slope) <= _NEAR)
    lanes.free[now] = np.where(believed, False, lanes.free[now] | stuck)
    lanes.wish[now] = np.where(believed, wish, np.where(stuck, np.inf, step / 2))

    kept = now[believed]
    lanes.place[kept], lanes.eigenvalues[kept] = proposal.place[believed], eigenvalues[believed]
    lanes.tangent[kept] = np.where(lands[:, None], proposal.onward, proposal.tangent)[believed]
    lanes.sign[kept], lanes.log_size[kept] = proposal.sign[believed], proposal.log_size[believed]
    leaves = believed & (lands | (over > _BRACKET))
    lanes.segment[now[leaves]] += np.where(lanes.tangent[now[leaves], -1] > 0, 1, -1)

    crossed = now[leaves & ~lands & (lanes.segment[now] >= 0) & (lanes.segment[now] < problem.path.n_steps - 1)]
    if len(crossed):  # over a sample at which no step could end: onto the next segment of the path
        again = _propose(problem, lanes, crossed, np.zeros(len(crossed)), np.ones(len(crossed), bool))
        lanes.place[crossed], lanes.tangent[crossed] = again.place, again.tangent
    for i, lane in enumerate(now):
        end = ""
        if not believed[i] and lanes.wish[lane] < _LEAST_STEP:
            end = "lost"
        elif believed[i]:
            first, trace = traces[lane].sheets[0].places[0], traces[lane]
            if not 0 <= lanes.segment[lane] <= problem.path.n_steps - 2:
                end = "path"
            elif sum(len(sheet.places) for sheet in trace.sheets) >= problem.max_samples:
                end = "unfinished"
            elif len(trace.sheets) > 2 and np.linalg.norm(lanes.place[lane] - first) <= _SAME * (
                1 + np.linalg.norm(first)
            ):
                end = "closed"
        if end:
            traces[lane].sheets[-1].last = end
            lanes.active[lane] = False
