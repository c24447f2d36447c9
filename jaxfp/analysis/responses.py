"""What input does to memories: transitions by pulses, basins, and the pulse that just does not change a memory.

From a stable point a pulse is added to the input, then the input is what it was (silence), and the trajectory runs
until it is sure where it ends (`arrivals`).

Critical amplitude. Scaled by a, a pulse that leads from one memory to another leads at small a back to the first.
Between such amplitudes bisection ends at two neighboring floating-point numbers, the smaller of which still leads
back. The state after the critical pulse lies on the boundary of the first basin, in the simplest case the stable
manifold of a saddle, so that the trajectories follow it to the saddle the more closely the deeper the bisection
(Sussillo & Barak 2013, figure 3B): with an amplitude that is off by e they come as near as

    e^theta,  theta = ln(1/mu) / (ln lambda + ln(1/mu)),

lambda the multiplier of the unstable mode of the saddle, mu that of its slowest stable one.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxfp import arguments as given
from jaxfp.analysis import arrivals
from jaxfp.types import FixedPoints, Kind, Params, StepFn

_MAX_DEPTH = 1100  # of a bisection; from one float64 to the next there are fewer between any two


class Transitions(NamedTuple):
    """Which memory each pulse leads to from each memory.

    Attributes:
      memory: (n_memories,) rows of the stable points.
      target: (n_memories, n_pulses) row of the point reached; -1: not a point.
      outcome: (n_memories, n_pulses) as in `Connections`.
      n_steps: (n_memories, n_pulses) steps in silence.
    """

    memory: np.ndarray
    target: np.ndarray
    outcome: np.ndarray
    n_steps: np.ndarray


class Basins(NamedTuple):
    """How many of some states end in each stable point.

    Attributes:
      attractor: (n_attractors,) rows of the stable points.
      fraction: (n_attractors,) share of the starts that end there; what is missing to 1 ends in none of them.
      error: (n_attractors,) its binomial standard error, (p (1 - p) / n)^(1/2); 0 where p is 0 or 1, of which n starts
        show no more than p < 3/n or p > 1 - 3/n, at 95 %.
      target: (n_starts,) row of the point that each start ends in; -1: not a point.
      outcome: (n_starts,) as in `Connections`.
    """

    attractor: np.ndarray
    fraction: np.ndarray
    error: np.ndarray
    target: np.ndarray
    outcome: np.ndarray


class CriticalAmplitude(NamedTuple):
    """Bisection of the amplitude of pulses.

    Attributes:
      amplitude: (n_sweeps,) the last that still ends where `low` does, to rounding; NaN where `high` ends there, too.
      saddle: (n_sweeps,) row of the unstable point that the deepest trajectories come closest to; -1 for none.
      target: (n_sweeps, 2) rows reached at `amplitude` and at the next floating-point number; -1 of the next, and of
        `around`, may mean that max_steps were too few, and `amplitude` no border.
      around: (n_sweeps, 2) rows reached at 0.99 and at 1.01 times `amplitude`.
      tried: (n_sweeps, n_depth) amplitudes, in order; NaN once there is none between.
      ended: (n_sweeps, n_depth) rows reached; -1: not a point.
      distance: (n_sweeps, n_depth) least distance of each trajectory from the saddle, after the pulse; NaN as in tried.
    """

    amplitude: np.ndarray
    saddle: np.ndarray
    target: np.ndarray
    around: np.ndarray
    tried: np.ndarray
    ended: np.ndarray
    distance: np.ndarray


def transitions(
    step_fn: StepFn,
    params: Params,
    points: FixedPoints | tuple[Any, Any],
    modes: Any,
    pulses: Any,
    *,
    kind: Kind | None = None,
    dt: float = 1.0,
    max_steps: int = 100_000,
) -> Transitions:
    """Apply each pulse to each stable point, then silence, and say which point is reached.

    A host function: NumPy in, NumPy out, float64 whatever the caller's x64 setting.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      points: result of `find_fixed_points`, of which FIXED isolated points count, or plain
        (hidden (n_points, n_hidden), inputs None, (n_inputs,) or (n_points, n_inputs)).
      modes: `spectrum` of the Jacobians there, with vectors.
      pulses: (n_pulses, n_time, n_inputs), added to the input at which a point is fixed.
      kind: "map" or "flow"; by default what the report of points says, "map" for plain arrays.
      dt: how long each of the n_time steps lasts in a flow; unused for a map.
      max_steps: in silence; of integration for a flow.

    Returns:
      Transitions.

    Raises:
      ValueError: if the shapes do not fit or numbers are out of range.

    Example:
      >>> from jaxfp import from_arrays, linearize, spectrum
      >>> network = from_arrays("tanh", {"w_rec": np.full((1, 1), 1.5), "w_in": np.ones((1, 1))})
      >>> x = np.array([[-0.858559], [0.858559]])
      >>> modes = spectrum(linearize(*network, x).jacobian)
      >>> transitions(*network, (x, None), modes, np.array([[[-3.0]], [[0.1]]])).target.tolist()
      [[0, 0], [0, 1]]

    Source: Sussillo & Barak (2013), Neural Computation 25:626, figure 3.
    """
    given.check_number("dt", dt, positive=True)
    given.check_count("max_steps", max_steps)
    land = arrivals.read(step_fn, params, points, modes, kind)
    pushes = _pulses("pulses", pulses, "(n_pulses, n_time, n_inputs)", land)
    memory = np.flatnonzero(land.stable)
    shape = len(memory), len(pushes)
    lane = np.repeat(memory, shape[1])
    inputs = None if land.inputs is None else land.inputs[lane]
    ends = arrivals.run(land, land.hidden[lane], inputs, max_steps, np.tile(pushes, (len(memory), 1, 1)), dt)
    return Transitions(memory, ends.target.reshape(shape), ends.outcome.reshape(shape), ends.n_steps.reshape(shape))


def basins(
    step_fn: StepFn,
    params: Params,
    points: FixedPoints | tuple[Any, Any],
    modes: Any,
    starts: Any,
    inputs: Any = None,
    *,
    kind: Kind | None = None,
    max_steps: int = 100_000,
) -> Basins:
    """Run states until they arrive, and count the shares of the stable points.

    A host function: NumPy in, NumPy out, float64 whatever the caller's x64 setting.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      points: result of `find_fixed_points`, of which FIXED isolated points count, or plain
        (hidden (n_points, n_hidden), inputs None, (n_inputs,) or (n_points, n_inputs)).
      modes: `spectrum` of the Jacobians there, with vectors.
      starts: (n_starts, n_hidden), e.g. a sample of the states that matter.
      inputs: (n_inputs,) at which they run; by default that of the points, which must then be one. None where points
        have none.
      kind: "map" or "flow"; by default what the report of points says, "map" for plain arrays.
      max_steps: of a trajectory; of integration for a flow.

    Returns:
      Basins, of the stable points at that input.

    Raises:
      ValueError: if the shapes do not fit or numbers are out of range.

    Example:
      >>> from jaxfp import spectrum
      >>> x = np.array([[-1.0], [0.0], [1.0]])
      >>> modes = spectrum((1 - 3 * x**2)[:, :, None], kind="flow")
      >>> starts = np.linspace(-1.0, 2.0, 30)[:, None]
      >>> shares = basins(lambda p, h, u: h - h**3, None, (x, None), modes, starts, kind="flow")
      >>> shares.attractor.tolist(), shares.fraction.round(3).tolist(), shares.error.round(3).tolist()
      ([0, 2], [0.333, 0.667], [0.086, 0.086])
    """
    given.check_count("max_steps", max_steps)
    land = arrivals.read(step_fn, params, points, modes, kind)
    wanted = f"(n_starts, {land.hidden.shape[1]})"
    begin = given.as_numpy("starts", starts, wanted).astype(np.float64)
    if begin.ndim != 2 or begin.shape[1] != land.hidden.shape[1] or not len(begin):
        raise ValueError(f"starts must be {wanted}, got {given.came(begin)}.")
    if inputs is None and land.inputs is not None:
        if len(np.unique(land.group)) != 1:
            raise ValueError("inputs must be given, as the points are at more than one input.")
        inputs = land.inputs[0]
    if inputs is not None and land.inputs is None:
        raise ValueError(f"inputs must be None, as those of the points are, got {given.came(inputs)}.")
    if inputs is not None and np.ndim(inputs) != 1:
        raise ValueError(f"inputs must be (n_inputs,), one for all, got {given.came(inputs)}.")
    drive = arrivals.input_rows("inputs", inputs, len(begin))
    if drive is not None and land.inputs is not None and drive.shape[1] != land.inputs.shape[1]:
        raise ValueError(f"inputs must be ({land.inputs.shape[1]},), as those of the points, got {drive.shape[1:]}.")
    ends = arrivals.run(land, begin, drive, max_steps)
    known = None if drive is None or land.inputs is None else (land.inputs == drive[0]).all(1)
    here = land.stable if known is None else land.stable & known
    attractor = np.flatnonzero(here)
    fraction = (ends.target[:, None] == attractor).mean(0)
    return Basins(attractor, fraction, (fraction * (1 - fraction) / len(begin)) ** 0.5, ends.target, ends.outcome)


def critical_amplitude(
    step_fn: StepFn,
    params: Params,
    points: FixedPoints | tuple[Any, Any],
    modes: Any,
    memory: Any,
    pulses: Any,
    *,
    low: float = 0.0,
    high: float = 1.0,
    kind: Kind | None = None,
    dt: float = 1.0,
    max_steps: int = 100_000,
) -> CriticalAmplitude:
    """Find, by bisection, the amplitude at which a pulse begins to change a memory, and the saddle that it leads to.

    A host function: NumPy in, NumPy out, float64 whatever the caller's x64 setting. All sweeps are bisected at once.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      points: result of `find_fixed_points`, of which FIXED isolated points count, or plain
        (hidden (n_points, n_hidden), inputs None, (n_inputs,) or (n_points, n_inputs)).
      modes: `spectrum` of the Jacobians there, with vectors.
      memory: (n_sweeps,) rows of the points at which the pulses begin.
      pulses: (n_sweeps, n_time, n_inputs); the amplitude times this is added to the input at which the point is fixed.
      low: amplitude, 0 or more, that leaves the memory.
      high: amplitude that changes it.
      kind: "map" or "flow"; by default what the report of points says, "map" for plain arrays.
      dt: how long each of the n_time steps lasts in a flow; unused for a map.
      max_steps: in silence; of integration for a flow.

    Returns:
      CriticalAmplitude.

    Raises:
      ValueError: if the shapes do not fit or numbers are out of range.

    Example:
      >>> from jaxfp import from_arrays, linearize, spectrum
      >>> network = from_arrays("tanh", {"w_rec": np.full((1, 1), 1.5), "w_in": np.ones((1, 1))})
      >>> x = np.array([[-0.858559], [0.0], [0.858559]])
      >>> modes = spectrum(linearize(*network, x).jacobian)
      >>> found = critical_amplitude(*network, (x, None), modes, [0], np.array([[[3.0]]]))
      >>> (3 * found.amplitude).round(4).tolist(), found.saddle.tolist(), found.around.tolist()  # 1.5 * 0.858559
      ([1.2878], [1], [[0, 2]])

    Source: Sussillo & Barak (2013), Neural Computation 25:626, figure 3B.
    """
    given.check_number("dt", dt, positive=True)
    given.check_count("max_steps", max_steps)
    given.check_number("low", low)
    given.check_number("high", high, positive=True)
    if not low < high:
        raise ValueError(f"high must be larger than low, got {low} and {high}.")
    land = arrivals.read(step_fn, params, points, modes, kind)
    rows = given.as_numpy("memory", memory, "(n_sweeps,) rows of points")
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not ((rows >= 0) & (rows < len(land.hidden))).all():
        raise ValueError(f"memory must be (n_sweeps,) rows of {len(land.hidden)} points, got {given.came(memory)}.")
    pushes = _pulses("pulses", pulses, f"({len(rows)}, n_time, n_inputs)", land)
    if len(pushes) != len(rows):
        raise ValueError(f"pulses must be one for each of {len(rows)} rows of memory, got {pushes.shape}.")
    inputs = None if land.inputs is None else land.inputs[rows]

    def run(amplitude: np.ndarray) -> arrivals.Ends:
        return arrivals.run(land, land.hidden[rows], inputs, max_steps, amplitude[:, None, None] * pushes, dt)

    small, large = np.full(len(rows), float(low)), np.full(len(rows), float(high))
    stays, leaves = run(small).target, run(large).target
    crosses = (stays != leaves) & (stays >= 0)
    after, tried, ended, closest = leaves.copy(), [], [], []
    for _ in range(_MAX_DEPTH):
        middle = (small + large) / 2
        between = crosses & (small < middle) & (middle < large)
        if not between.any():
            break
        ends = run(middle)
        back = ends.target == stays
        small, large = np.where(between & back, middle, small), np.where(between & ~back, middle, large)
        after = np.where(between & ~back, ends.target, after)
        tried.append(np.where(between, middle, np.nan))
        ended.append(np.where(between, ends.target, -1))
        closest.append(np.where(between[:, None], ends.closest, np.nan))
    shape = len(rows), len(tried)
    amplitude = np.where(crosses, small, np.nan)
    saddle, distance = _nearest(land, np.array(closest), shape)
    around = np.stack([run(share * np.where(crosses, small, low)).target for share in (0.99, 1.01)], axis=1)
    around[~crosses] = -1
    both = np.stack([stays, after], axis=1)
    all_tried, all_ended = (np.array(column).reshape(shape[::-1]).T for column in (tried, ended))
    return CriticalAmplitude(amplitude, saddle, both, around, all_tried, all_ended, distance)


def _nearest(land: arrivals.Landscape, closest: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The unstable point that each sweep ends at, and the distance of each of its trajectories from it."""
    saddles = np.flatnonzero(land.unstable)
    saddle, distance = np.full(shape[0], -1), np.full(shape, np.nan)
    if not len(saddles) or not shape[1]:
        return saddle, distance
    for sweep in range(shape[0]):
        each = closest[:, sweep][:, saddles]
        done = np.flatnonzero(np.isfinite(each).all(1))
        if len(done):
            best = int(each[done[-8:]].min(0).argmin())  # either side of the boundary, at the deepest
            saddle[sweep], distance[sweep] = saddles[best], each[:, best]
    return saddle, distance


def _pulses(name: str, pulses: Any, wanted: str, land: arrivals.Landscape) -> np.ndarray:
    array = given.as_numpy(name, pulses, wanted).astype(np.float64)
    if array.ndim != 3 or not array.shape[1] or not np.isfinite(array).all():
        raise ValueError(f"{name} must be {wanted} and finite, got {given.came(array)}.")
    if land.inputs is not None and array.shape[2] != land.inputs.shape[1]:
        raise ValueError(f"{name} must have {land.inputs.shape[1]} inputs, as the points have, got {array.shape}.")
    return array
