"""What is in the middle of a sine generator's orbits: points, their leading modes, and how far these explain the orbit.

The second half of a free run at each input is taken for its orbit. A fixed point at that input is inside if the orbit
goes around it once a cycle, seen in the plane of the orbit's first two principal directions, and if it is less than 1.5
root mean square radii from the orbit's mean.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxfp import pipeline
from jaxfp.analysis import linearization, modes, validity
from jaxfp.cli import report, sine_training
from jaxfp.cli.sine_training import Network, Recipe
from jaxfp.tasks import sine_generator
from jaxfp.types import FIXED, FixedPoints

DURATION = 1260.0  # of a free run, time constants; the second half holds 10 cycles of the slowest input
PER_INPUT = 10  # candidates on each orbit, and one in its middle
_AT_REST = 3e-4  # sqrt(eps) of float32, relative: a state that moves less stands still
_N_SHOWN = 64  # states of an orbit at which Taylor terms are taken


class Orbits(NamedTuple):
    """What the network does at each input, without noise, once it has settled.

    Attributes:
      inputs: (n_conditions, 1).
      target: (n_conditions,) angular frequency wanted, radians per time constant.
      states: (n_conditions, n_time, n_units), the second half of the free run.
      outputs: (n_conditions, n_time).
      omega: (n_conditions,) angular frequency of the outputs; NaN without two cycles.
      dt: duration of a step, time constants.
    """

    inputs: np.ndarray
    target: np.ndarray
    states: np.ndarray
    outputs: np.ndarray
    omega: np.ndarray
    dt: float


class Mechanism(NamedTuple):
    """What is in the middle of each orbit.

    Attributes:
      point: (n_conditions,) row of the fixed point inside the orbit, the nearest to its middle if there are more; -1
        for none.
      n_inside: (n_conditions,) fixed points inside.
      n_elsewhere: (n_conditions,) fixed points that are not.
      n_unstable: (n_conditions,) of the point inside; -1 for none.
      complex_pair: (n_conditions,) bool, its leading modes are a complex pair, and it is unstable in these two alone.
      omega: (n_conditions,) |arg lambda| / dt of its leading mode, radians per time constant; NaN without a point.
      eccentricity: (n_conditions,) distance of the point from the orbit's mean, in root mean square radii of the orbit.
      correlation: of omega with the targets over the inputs that have a point; NaN with fewer than three.
    """

    point: np.ndarray
    n_inside: np.ndarray
    n_elsewhere: np.ndarray
    n_unstable: np.ndarray
    complex_pair: np.ndarray
    omega: np.ndarray
    eccentricity: np.ndarray
    correlation: float


def run_freely(network: Network, recipe: Recipe, duration: float = DURATION) -> Orbits:
    """The orbits at all inputs.

    Args:
      network: see `Network`.
      recipe: what it was trained on.
      duration: of the run, time constants; the first half is left out.

    Returns:
      Orbits.

    Example:
      >>> from jaxfp import io
      >>> arrays, _ = io.load_packaged("sine_generator")
      >>> orbits = run_freely(sine_training.as_network(arrays, 0.5), Recipe(), 400.0)
      >>> bool((np.abs(orbits.omega / orbits.target - 1) < 0.1).all())
      True
    """
    config = sine_generator.SineGeneratorConfig(recipe.n_conditions)
    states = sine_training.free_runs(network, recipe.dt, duration, recipe.n_conditions)
    states = states[:, states.shape[1] // 2 :]
    outputs = np.asarray(sine_training.read_out(network.readout, states))
    inputs, target = (np.asarray(x, np.float64) for x in sine_generator.conditions(config))
    omega = np.asarray(sine_generator.frequency(jnp.asarray(outputs), recipe.dt), np.float64)
    return Orbits(inputs, target, states, outputs, omega, recipe.dt)


def draw_candidates(orbits: Orbits, per_input: int = PER_INPUT) -> tuple[np.ndarray, np.ndarray]:
    """States along each orbit, at equal distances in time over its last cycle, and its mean.

    Args:
      orbits: see `Orbits`.
      per_input: how many along each orbit.

    Returns:
      Candidates (n_conditions * (per_input + 1), n_units) and their inputs (n_candidates, 1).

    Example:
      >>> orbits = Orbits(np.ones((2, 1)), np.ones(2), np.ones((2, 40, 3)), np.ones((2, 40)), np.full(2, 0.5), 0.5)
      >>> draw_candidates(orbits, 4)[0].shape
      (10, 3)
    """
    n_time, n_units = orbits.states.shape[1:]
    cycle = 2 * np.pi / np.where(np.isnan(orbits.omega), orbits.target, orbits.omega) / orbits.dt
    cycle = np.minimum(cycle, n_time - 1)
    when = n_time - 1 - (cycle[:, None] * np.arange(per_input) / per_input).astype(int)
    along = np.take_along_axis(orbits.states, when[:, :, None], axis=1)
    starts = np.concatenate([along, orbits.states.mean(1, keepdims=True)], axis=1)
    return starts.reshape(-1, n_units), np.repeat(orbits.inputs, per_input + 1, axis=0)


def explain(points: FixedPoints, spectra: modes.Modes, orbits: Orbits) -> Mechanism:
    """The point in the middle of each orbit and what its leading modes do.

    Args:
      points: of searches at the inputs of the orbits.
      spectra: of their Jacobians.
      orbits: see `Orbits`.

    Returns:
      Mechanism.

    Example:
      >>> from jaxfp import io
      >>> arrays, _ = io.load_packaged("sine_generator")
      >>> network = sine_training.as_network(arrays, 0.5)
      >>> orbits = run_freely(network, Recipe(), 252.0)
      >>> points, spectra = search(network, orbits, per_input=2)
      >>> int(explain(points, spectra, orbits).n_inside.min())
      1
    """
    point, n_inside, n_elsewhere = np.full((3, len(orbits.target)), -1)
    eccentricity = np.full(len(orbits.target), np.nan)
    fixed, inputs = points.status == FIXED, np.asarray(points.inputs)
    for j, u in enumerate(orbits.inputs):
        here = np.flatnonzero(fixed & (inputs == u).all(1))
        inside, distance = goes_around(points.hidden[here], orbits.states[j].astype(np.float64))
        n_inside[j], n_elsewhere[j] = inside.sum(), (~inside).sum()
        if inside.any():
            best = np.argmin(np.where(inside, distance, np.inf))
            point[j], eccentricity[j] = here[best], distance[best]
    there = point >= 0
    rows = point[there]
    n_unstable, omega, pair = point.copy(), np.full(len(point), np.nan), there.copy()
    n_unstable[there] = spectra.n_unstable[rows]
    omega[there] = 2 * np.pi * np.abs(spectra.frequency[rows, 0])
    pair[there] = (n_unstable[there] == 2) & (spectra.eigenvalues[rows, 0].imag != 0)
    correlation = np.nan
    if there.sum() > 2 and np.ptp(omega[there]) > 0:
        correlation = float(np.corrcoef(omega[there], orbits.target[there])[0, 1])
    return Mechanism(point, n_inside, n_elsewhere, n_unstable, pair, omega, eccentricity, correlation)


def search(network: Network, orbits: Orbits, per_input: int = PER_INPUT) -> tuple[FixedPoints, modes.Modes]:
    """A quick search at every input, without seeded waves.

    Args:
      network: see `Network`.
      orbits: where to begin.
      per_input: see `draw_candidates`.

    Returns:
      The points and their spectra.

    Example:
      >>> from jaxfp import io
      >>> arrays, _ = io.load_packaged("sine_generator")
      >>> network = sine_training.as_network(arrays, 0.5)
      >>> points, _ = search(network, run_freely(network, Recipe(), 252.0), per_input=2)
      >>> len(points.hidden) >= 51
      True
    """
    starts, inputs = draw_candidates(orbits, per_input)
    points = pipeline.find_fixed_points(network.step_fn, network.params, starts, inputs)
    linear = linearization.linearize(network.step_fn, network.params, points.hidden, points.inputs)
    return points, modes.spectrum(linear.jacobian, dt=orbits.dt)


def missed(orbits: Orbits, mechanism: Mechanism) -> list[str]:
    """What the retry rule finds wrong.

    Args:
      orbits: of the network.
      mechanism: of its orbits.

    Returns:
      Sentences, none if all is well.

    Example:
      >>> orbits = Orbits(np.ones((2, 1)), np.ones(2), np.ones((2, 4, 3)), np.ones((2, 4)), np.array([1.0, 1.02]), 0.5)
      >>> missed(orbits, Mechanism(*[np.zeros(2)] * 7, correlation=0.5))
      ['1 of 2 inputs more than 1 % off', 'correlation 0.5000 of the leading modes with the targets']
    """
    off = ~(np.abs(orbits.omega / orbits.target - 1) <= 0.01)
    said = [f"{off.sum()} of {len(off)} inputs more than 1 % off"] if off.any() else []
    if not mechanism.correlation >= 0.99:
        said.append(f"correlation {mechanism.correlation:.4f} of the leading modes with the targets")
    return said


def taylor_norms(network: Network, points: FixedPoints, mechanism: Mechanism, orbits: Orbits) -> dict[str, np.ndarray]:
    """Sizes of the constant, linear and quadratic term along each orbit, seen from the point inside.

    Args:
      network: see `Network`.
      points: as given to `explain`.
      mechanism: of these points.
      orbits: the same.

    Returns:
      Dict of constant, first, second, usable, each (n_conditions,), means over the orbit, NaN without a point.

    Example:
      >>> from jaxfp import io
      >>> arrays, _ = io.load_packaged("sine_generator")
      >>> network = sine_training.as_network(arrays, 0.5)
      >>> orbits = run_freely(network, Recipe(), 252.0)
      >>> points, spectra = search(network, orbits, per_input=2)
      >>> norms = taylor_norms(network, points, explain(points, spectra, orbits), orbits)
      >>> bool((norms["constant"] < norms["first"]).all())
      True
    """
    there = np.flatnonzero(mechanism.point >= 0)
    rows = mechanism.point[there]
    n_time = orbits.states.shape[1]
    states = orbits.states[there][:, np.linspace(0, n_time - 1, _N_SHOWN).astype(int)].astype(np.float64)
    terms = validity.taylor_terms(
        network.step_fn,
        network.params,
        points.hidden[rows],
        np.asarray(points.inputs)[rows],
        states - points.hidden[rows][:, None],
    )
    norms = {name: np.full(len(mechanism.point), np.nan) for name in terms._fields}
    for name, values in terms._asdict().items():
        norms[name][there] = np.asarray(values) if name == "constant" else np.asarray(values).mean(1)
    return norms


def summarize(orbits: Orbits, mechanism: Mechanism, norms: dict[str, np.ndarray], proved: np.ndarray) -> dict[str, Any]:
    """The numbers of the mechanism, JSON-like.

    Args:
      orbits: see `Orbits`.
      mechanism: see `Mechanism`.
      norms: see `taylor_norms`.
      proved: (n_points,) bool, which points are certified.

    Returns:
      Dict: one number each, and under "each" one entry an input.

    Example:
      >>> orbits = Orbits(np.ones((2, 1)), np.ones(2), np.ones((2, 4, 3)), np.ones((2, 4)), np.array([1.0, 1.02]), 0.5)
      >>> mechanism = Mechanism(*[np.zeros(2, int)] * 7, correlation=0.5)
      >>> summarize(orbits, mechanism, {"first": np.ones(2)}, np.ones(1, bool))["within_1_percent"]
      1
    """
    off = np.nan_to_num(np.abs(orbits.omega / orbits.target - 1), nan=np.inf)
    slow = orbits.target < 0.18
    shuffles = np.random.default_rng(0).permuted(np.tile(orbits.target, (1000, 1)), axis=1)
    known = np.isfinite(mechanism.omega)
    ratio = (mechanism.omega / orbits.target)[known] if known.any() else np.full(1, np.nan)
    slowest = ratio[slow[known]] if known.any() else ratio
    varies = known.sum() > 2 and np.ptp(mechanism.omega[known]) > 0
    shuffled = [np.corrcoef(mechanism.omega[known], t[known])[0, 1] for t in shuffles] if varies else [np.nan]
    certified = np.array([p >= 0 and bool(proved[p]) for p in mechanism.point])
    each = [
        {
            "input": float(orbits.inputs[j, 0]),
            "target": orbits.target[j],
            "orbit": orbits.omega[j],
            "leading_mode": mechanism.omega[j],
            "n_inside": mechanism.n_inside[j],
            "n_elsewhere": mechanism.n_elsewhere[j],
            "n_unstable": mechanism.n_unstable[j],
            "certified": certified[j],
            "eccentricity": mechanism.eccentricity[j],
            "taylor": {name: values[j] for name, values in norms.items()},
        }
        for j in range(len(off))
    ]
    return {
        "n_inputs": len(off),
        "one_point_inside": int((mechanism.n_inside == 1).sum()),
        "points_elsewhere": int(mechanism.n_elsewhere.sum()),
        "index_2_with_one_complex_pair": int(np.sum(mechanism.complex_pair)),
        "certified": int(certified.sum()),
        "orbit_error_median": float(np.median(off)),
        "orbit_error_largest": float(np.max(off)),
        "within_1_percent": int((off <= 0.01).sum()),
        "within_2_percent": int((off <= 0.02).sum()),
        "correlation": mechanism.correlation,
        "correlation_shuffled_mean": float(np.mean(shuffled)),
        "correlation_shuffled_largest": float(np.max(np.abs(shuffled))),
        "ratio_median": float(np.median(ratio)),
        "ratio_range": [float(np.min(ratio)), float(np.max(ratio))],
        "ratio_median_slowest": float(np.median(slowest)) if len(slowest) else None,
        "each": each,
    }


def goes_around(hidden: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which points an orbit goes around once a cycle, as the module says.

    Args:
      hidden: (n_points, n_units).
      states: (n_time, n_units), of more than one cycle.

    Returns:
      (n_points,) bool; and (n_points,) the distance of each from the orbit's mean, in root mean square radii.

    Example:
      >>> turn = np.linspace(0, 20, 200)
      >>> states = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
      >>> goes_around(np.array([[0.5, 0.0, 0.0], [1.2, 0.0, 0.0]]), states)[0].tolist()
      [True, False]
    """
    mean = states.mean(0)
    radius = np.sqrt(np.square(states - mean).sum(1).mean())
    if radius <= _AT_REST * (1 + np.linalg.norm(mean)):
        return np.zeros(len(hidden), bool), np.full(len(hidden), np.inf)
    plane = report.principal_directions(states)[1][:2]
    flat = (states - mean) @ plane.T
    turns = []
    for at in np.vstack([np.zeros(2), (hidden - mean) @ plane.T]):
        angle = np.unwrap(np.arctan2(*(flat - at).T))
        turns.append(abs(angle[-1] - angle[0]) / (2 * np.pi))
    cycles, distance = turns[0], np.linalg.norm(hidden - mean, axis=1) / radius
    # what is not a whole cycle at the end of the run makes at most half a turn of difference
    return (np.abs(np.array(turns[1:]) - cycles) < max(1.0, 0.1 * cycles)) & (cycles > 1) & (distance < 1.5), distance
