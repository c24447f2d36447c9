"""Where a moving average keeps its numbers: a sheet of slow points, the modes along it, and what a pulse does on it.

Searches begin at states that hold, some steps after a pulse, and stop as soon as q is below a tolerance: first 1e-3,
then from there 1e-4, and so on. What they then stand on is slow, not fixed: further down they slide along the sheet to
the few true points. `SLOW_TOLERANCE` was fixed before any seed was run; the sweep says what depends on it.

Coordinates are those in the first two principal directions of the slow points. A linear map from coordinates to the
values remembered is fitted to one half of the points and judged on the other (R2, the share of variance explained).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import dynamics
from jaxfp.analysis import linearization
from jaxfp.cli import average_training, report
from jaxfp.cli.average_training import Network
from jaxfp.search import engine
from jaxfp.search.solvers.levenberg_marquardt import levenberg_marquardt
from jaxfp.tasks import moving_average
from jaxfp.types import StepFn

SLOW_TOLERANCE = 1e-5
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
DELAYS = (5, 15, 30)  # steps after a pulse at which its effect is decoded
DELAY = 15  # the one named
MIN_AGE = 4  # steps since the last pulse, of a state that holds
_MAX_STEPS = 60  # of a lane at each tolerance


class Sheet(NamedTuple):
    """Slow points of one network at one tolerance.

    Attributes:
      hidden: (n_points, n_units).
      values: (n_points, 2) the last pulse and the one before, of the state that the search began with.
      q: (n_points,).
      share: (3,) of the variance of the points along their first principal directions.
      coordinates: (n_points, 2) along the first two.
      decode: (3, 2): coordinates and a 1 to values.
      decoded: (2,) R2 of that map on the points that it was not fitted to.
      timescales: (n_points, 8) 1 / |ln |lambda||, slowest first, steps.
      growing: share of the points with some |lambda| > 1.
    """

    hidden: np.ndarray
    values: np.ndarray
    q: np.ndarray
    share: np.ndarray
    coordinates: np.ndarray
    decode: np.ndarray
    decoded: np.ndarray
    timescales: np.ndarray
    growing: float


def behaviour(key: jax.Array, network: Network, n_values: int, n_trials: int = 256) -> dict[str, float]:
    """Does it do the task? On fresh trials of 200 steps, with gaps as in training and with gaps of 60.

    Args:
      key: of the trials.
      network: see `Network`.
      n_values: pulses averaged over.
      n_trials: number of trials.

    Returns:
      Dict: R2 with gaps as in training, and in trials with gaps twice the longest of training.

    Example:
      >>> from jaxfp import io
      >>> network = average_training.as_network("gru", io.load_packaged("moving_average_gru")[0])
      >>> behaviour(jax.random.key(0), network, 2, 16)["r2"] > 0.99
      True
    """
    said = {}
    for name, gaps in (("r2", (5, 30)), ("r2_gap_60", (60, 60))):
        config = moving_average.MovingAverageConfig(n_values, 200, *gaps)
        batch = _sample(key, config, n_trials)
        outputs = average_training.read_out(network.readout, states_of(network, batch.inputs))
        said[name] = float(1 - moving_average.loss(outputs, batch.targets) / jnp.var(batch.targets))
    return said


def states_of(network: Network, inputs: Any) -> Any:
    """States from rest.

    Args:
      network: see `Network`.
      inputs: (n_trials, n_time, 2).

    Returns:
      (n_trials, n_time, n_units).

    Example:
      >>> from jaxfp import io
      >>> network = average_training.as_network("gru", io.load_packaged("moving_average_gru")[0])
      >>> states_of(network, jnp.zeros((1, 5, 2))).shape
      (1, 5, 64)
    """
    n_units = network.readout[0].shape[1]
    return _simulate(network.step_fn, network.params, jnp.zeros(n_units), inputs)


def draw_holding(key: jax.Array, network: Network, n_states: int) -> tuple[np.ndarray, np.ndarray]:
    """States that hold two pulses or more, `MIN_AGE` steps or more after the last.

    Args:
      key: of trials and choice.
      network: see `Network`.
      n_states: how many.

    Returns:
      States (n_states, n_units), and the last pulse and the one before of each, (n_states, 2).

    Example:
      >>> from jaxfp import io
      >>> network = average_training.as_network("gru", io.load_packaged("moving_average_gru")[0])
      >>> draw_holding(jax.random.key(0), network, 8)[1].shape
      (8, 2)
    """
    key_trials, key_choice = jax.random.split(key)
    batch = _sample(key_trials, moving_average.MovingAverageConfig(), 64)
    states = np.asarray(states_of(network, batch.inputs))
    holds = np.argwhere((np.asarray(batch.age) >= MIN_AGE) & np.asarray(batch.values).all(-1))
    trial, time = holds[np.asarray(jax.random.choice(key_choice, len(holds), (n_states,), replace=False))].T
    return states[trial, time], np.asarray(batch.values)[trial, time]


def find_sheets(
    network: Network, states: np.ndarray, values: np.ndarray, tolerances: tuple[float, ...] = TOLERANCES
) -> dict[float, Sheet]:
    """Slow points at each tolerance, from states that hold.

    Args:
      network: see `Network`.
      states: (n_states, n_units).
      values: (n_states, 2).
      tolerances: of q, falling.

    Returns:
      Sheet by tolerance, of the lanes that got that far; none for a tolerance that fewer than 8 got below.

    Raises:
      ValueError: if there is none for the first.

    Example:
      >>> from jaxfp import io
      >>> network = average_training.as_network("gru", io.load_packaged("moving_average_gru")[0])
      >>> sheets = find_sheets(network, *draw_holding(jax.random.key(0), network, 32), (1e-4,))
      >>> bool(sheets[1e-4].q.max() <= 1e-4)
      True
    """
    search = _build_search(network.step_fn)
    silence, sheets = jnp.zeros(2), {}
    for tolerance in tolerances:
        lanes = search(network.params, states, silence, tolerance=tolerance, max_steps=_MAX_STEPS)
        states = np.asarray(lanes.hidden)
        slow = np.asarray(lanes.q) <= tolerance
        if slow.sum() >= 8:
            sheets[tolerance] = look_at(network, states[slow].astype(np.float64), values[slow])
        elif not sheets:
            raise ValueError(f"only {slow.sum()} of {len(slow)} searches got below q = {tolerance}.")
    return sheets


def look_at(network: Network, hidden: np.ndarray, values: np.ndarray) -> Sheet:
    """Shape, contents and modes of slow points.

    Args:
      network: see `Network`.
      hidden: (n_points, n_units) float64.
      values: (n_points, 2).

    Returns:
      Sheet.

    Example:
      >>> from jaxfp import io
      >>> network = average_training.as_network("gru", io.load_packaged("moving_average_gru")[0])
      >>> states, values = draw_holding(jax.random.key(0), network, 16)
      >>> look_at(network, states.astype(np.float64), values).coordinates.shape
      (16, 2)
    """
    origin, directions = report.principal_directions(hidden)
    variance = np.square((hidden - origin) @ directions.T).mean(0)
    coordinates = project(hidden, origin, directions)
    fitted = np.arange(len(hidden)) % 2 == 0
    decode = np.linalg.lstsq(_affine(coordinates[fitted]), values[fitted], rcond=None)[0]
    silence = np.zeros(2)
    linear = linearization.linearize(network.step_fn, network.params, hidden, silence)
    size = np.abs(np.linalg.eigvals(linear.jacobian))
    scales = np.sort(1 / np.maximum(np.abs(np.log(np.maximum(size, 1e-300))), 1e-12), axis=1)[:, ::-1]
    return Sheet(
        hidden=hidden,
        values=values,
        q=np.asarray(dynamics.q(network.step_fn, network.params, hidden, silence)),
        share=variance / np.square(hidden - origin).sum(1).mean(),
        coordinates=coordinates,
        decode=decode,
        decoded=r2(_affine(coordinates[~fitted]) @ decode, values[~fitted]),
        timescales=scales[:, :8],
        growing=float((size > 1).any(1).mean()),
    )


def project(hidden: np.ndarray, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Coordinates along the first two directions.

    Args:
      hidden: (..., n_units).
      origin: (n_units,).
      directions: (3, n_units).

    Returns:
      (..., 2).

    Example:
      >>> project(np.ones(3), np.zeros(3), np.eye(3)).tolist()
      [1.0, 1.0]
    """
    return (hidden - origin) @ directions[:2].T


def pulse_map(key: jax.Array, network: Network, sheet: Sheet) -> dict[int, dict[str, Any]]:
    """What a pulse does to slow points, decoded some silent steps later, beside the shift it should be.

    Args:
      key: of the pulses, U(-1, 1).
      network: see `Network`.
      sheet: see `Sheet`.

    Returns:
      Dict by delay: R2 of the new last value against the pulse and of the new second against the last, and the linear
      map (2, 3) from (pulse, last, second) to (new last, new second).

    Example:
      >>> from jaxfp import io
      >>> network = average_training.as_network("gru", io.load_packaged("moving_average_gru")[0])
      >>> sheets = find_sheets(network, *draw_holding(jax.random.key(0), network, 32), (1e-4,))
      >>> sorted(pulse_map(jax.random.key(0), network, sheets[1e-4]))
      [5, 15, 30]
    """
    pulse = np.asarray(jax.random.uniform(key, (len(sheet.hidden),), minval=-1.0), np.float64)
    inputs = np.zeros((len(pulse), 1 + max(DELAYS), 2), np.float32)
    inputs[:, 0] = np.stack([pulse, np.ones_like(pulse)], axis=1)
    starts = jnp.asarray(sheet.hidden, jnp.float32)
    after = np.asarray(_simulate(network.step_fn, network.params, starts, inputs), np.float64)
    origin, directions = report.principal_directions(sheet.hidden)
    before = np.column_stack([pulse, sheet.values])
    said = {}
    for delay in DELAYS:
        new = _affine(project(after[:, delay], origin, directions)) @ sheet.decode
        fit = np.linalg.lstsq(_affine(before), new, rcond=None)[0]
        said[delay] = {"r2": r2(new, before[:, :2]), "map": fit[:3].T}
    return said


def r2(said: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Share of the variance explained, column by column; negative where the mean would be better.

    Args:
      said: (n, k).
      wanted: (n, k).

    Returns:
      (k,).

    Example:
      >>> r2(np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]])).tolist()
      [1.0]
    """
    return 1 - np.square(said - wanted).mean(0) / wanted.var(0)


def summarize(
    sheets: dict[float, Sheet], pulses: dict[int, dict[str, Any]], readout: tuple[Any, Any]
) -> dict[str, Any]:
    """The numbers of the sheets, JSON-like.

    Args:
      sheets: see `find_sheets`; with the chosen tolerance.
      pulses: see `pulse_map`.
      readout: of the network.

    Returns:
      Dict.

    Raises:
      ValueError: if there is no sheet at the chosen tolerance.

    Example:
      >>> from jaxfp import io
      >>> network = average_training.as_network("gru", io.load_packaged("moving_average_gru")[0])
      >>> sheets = find_sheets(network, *draw_holding(jax.random.key(0), network, 32), (1e-4, SLOW_TOLERANCE))
      >>> said = summarize(sheets, {}, network.readout)
      >>> len(said["sweep"]["tolerance"])
      2
    """
    if SLOW_TOLERANCE not in sheets:
        raise ValueError(f"sheets must have one at the tolerance {SLOW_TOLERANCE}, got {sorted(sheets)}.")
    chosen = sheets[SLOW_TOLERANCE]
    directions = report.principal_directions(chosen.hidden)[1][:2]
    reads, means = directions @ np.asarray(readout[0], np.float64)[0], chosen.decode[:2].sum(1)
    scales = chosen.timescales
    return {
        "slow_tolerance": SLOW_TOLERANCE,
        "n_points": len(chosen.hidden),
        "q_median": float(np.median(chosen.q)),
        "variance_pc1": float(chosen.share[0]),
        "variance_pc12": float(chosen.share[:2].sum()),
        "decoded_last": float(chosen.decoded[0]),
        "decoded_second": float(chosen.decoded[1]),
        "timescales_median": np.median(scales, axis=0),
        "gap_1_2": float(np.median(scales[:, 0] / scales[:, 1])),
        "gap_2_3": float(np.median(scales[:, 1] / scales[:, 2])),
        "growing": chosen.growing,
        "readout_along_the_mean": float(reads @ means / np.linalg.norm(reads) / np.linalg.norm(means)),
        "pulse_map": pulses,
        "sweep": {
            "tolerance": list(sheets),
            "n_points": [len(s.hidden) for s in sheets.values()],
            "share of 2 PCs": [float(s.share[:2].sum()) for s in sheets.values()],
            "last decoded, R2": [float(s.decoded[0]) for s in sheets.values()],
            "second decoded, R2": [float(s.decoded[1]) for s in sheets.values()],
            "tau_2 / tau_3": [float(np.median(s.timescales[:, 1] / s.timescales[:, 2])) for s in sheets.values()],
        },
    }


def _affine(coordinates: np.ndarray) -> np.ndarray:
    return np.column_stack([coordinates, np.ones(len(coordinates))])


@functools.lru_cache
def _build_search(step_fn: StepFn) -> Callable[..., Any]:
    return jax.jit(engine.build_search(step_fn, levenberg_marquardt(damping=0.1)))


_sample = jax.jit(moving_average.sample_batch, static_argnames=("config", "n_trials"))
_simulate = jax.jit(dynamics.simulate, static_argnums=0)
