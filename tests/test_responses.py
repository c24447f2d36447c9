"""Pulses lead where the equations say, basins have their shares, and critical amplitudes are those of closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

import jaxfp

WELL = np.array([[-1.0], [0.0], [1.0]])


def well(params, hidden, inputs):
    """Flow x' = x - x^3 + u."""
    return hidden - hidden**3 + (0 if inputs is None else inputs)


def two_wells(params, hidden, inputs):
    """Flow x' = x - x^3 + u, y' = -2 y + x^2 - 1: stable at (+-1, 0), a saddle at (0, -1/2)."""
    x, y = hidden
    return jnp.stack([x - x**3 + inputs[0], -2 * y + x**2 - 1])


def modes_of(step_fn, params, points, kind="map", inputs=None):
    return jaxfp.spectrum(jaxfp.linearize(step_fn, params, points, inputs).jacobian, kind=kind)


@pytest.fixture(scope="module")
def tanh_unit():
    """A unit h' = tanh(1.5 h + u) and its three points: (step_fn, params, hidden, modes)."""
    step_fn, params = jaxfp.from_arrays("tanh", {"w_rec": np.array([[1.5]]), "w_in": np.array([[1.0]])})
    points = jaxfp.find_fixed_points(step_fn, params, np.linspace(-1, 1, 16)[:, None])
    order = np.argsort(points.hidden[:, 0])
    return step_fn, params, points.hidden[order], modes_of(step_fn, params, points.hidden[order])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_unit_flips_beyond_its_critical_amplitude(tanh_unit, dtype):
    """From -h* a pulse of one step leads to tanh(-1.5 h* + a): beyond 0 for a > 1.5 h*, and to 0 at it."""
    step_fn, params, hidden, modes = tanh_unit
    params = jax.tree.map(lambda x: np.asarray(x, dtype), params)
    found = jaxfp.critical_amplitude(step_fn, params, (hidden, None), modes, [0], np.ones((1, 1, 1)), high=3.0)
    # to rounding of 1.5 h* and of the sum: a few units in the last place
    np.testing.assert_allclose(found.amplitude, 1.5 * hidden[2], rtol=8 * np.finfo(float).eps)
    assert found.saddle.tolist() == [1]
    assert found.around.tolist() == [[0, 2]]
    assert found.target[0, 0] == 0
    assert found.target[0, 1] in (1, 2)  # the next amplitude may lead to the saddle itself: one unit can be 0 exactly
    # One unit: the distance is that of the state after the pulse, tanh(a - a*), which falls as the bisection goes on.
    # Rounding of h*, of 1.5 h* and of the sum again.
    expected = np.abs(np.tanh(found.tried[0] - found.amplitude))
    np.testing.assert_allclose(found.distance[0], expected, atol=32 * np.finfo(float).eps)
    assert found.distance[0, -1] < 1e-14 < found.distance[0, 0]

    wide = jaxfp.transitions(step_fn, params, (hidden, None), modes, found.amplitude * np.array([[[0.99]], [[1.01]]]))
    assert wide.memory.tolist() == [0, 2]
    assert wide.target.tolist() == [[0, 2], [2, 2]]
    assert (wide.outcome == jaxfp.REACHED).all()


def test_a_pulse_in_a_flow_lasts_as_long_as_it_says():
    """From -1 a pulse a that lasts 0.7 ends at 0 iff the integral of dx / (x - x^3 + a) from -1 to 0 is 0.7."""

    def duration(a):
        return quad(lambda x: 1 / (x - x**3 + a), -1, 0, epsabs=1e-13, epsrel=1e-13)[0]

    critical = brentq(lambda a: duration(a) - 0.7, 0.5, 10, xtol=1e-14)
    modes = modes_of(well, None, WELL, "flow")
    points = (WELL, None)
    found = jaxfp.critical_amplitude(
        well, None, points, modes, [0, 0], np.ones((2, 2, 1)), high=4.0, kind="flow", dt=0.35
    )
    # the error of a step is 1e-8 of its length
    np.testing.assert_allclose(found.amplitude, critical, rtol=1e-7)
    assert found.saddle.tolist() == [1, 1]


def test_bisection_leads_to_a_saddle_off_the_way():
    """In two dimensions the state after the pulse is beside the stable manifold x = 0 of the saddle, and follows it.

    Beside it by e the least distance from the saddle is of the order of e^(2/3): growth 1, decay 2.
    """
    hidden, inputs = np.array([[-1.0, 0.0], [0.0, -0.5], [1.0, 0.0]]), np.zeros(1)
    modes = modes_of(two_wells, None, hidden, "flow", inputs)
    found = jaxfp.critical_amplitude(
        two_wells, None, (hidden, inputs), modes, [0], np.ones((1, 1, 1)), high=8.0, kind="flow"
    )
    assert found.saddle.tolist() == [1]
    assert found.target.tolist() == found.around.tolist() == [[0, 2]]
    offset, distance = np.abs(found.tried - found.amplitude)[0], found.distance[0]
    rows = (offset > 1e-12) & (offset < 1e-3)
    slope = np.polyfit(np.log(offset[rows]), np.log(distance[rows]), 1)[0]
    assert abs(slope - 2 / 3) < 0.05


def test_a_pulse_that_changes_nothing_has_no_critical_amplitude(tanh_unit):
    step_fn, params, hidden, modes = tanh_unit
    found = jaxfp.critical_amplitude(step_fn, params, (hidden, None), modes, [0, 2], np.full((2, 1, 1), -1.0), high=2.0)
    assert np.isnan(found.amplitude).tolist() == [True, False]
    assert found.saddle.tolist() == [-1, 1]
    assert found.target[0].tolist() == [0, 0]
    assert np.isnan(found.distance[0]).all()


def test_basins_have_their_shares(tanh_unit):
    """A third of [-1, 2] is left of 0, within 4 standard errors; the start on the saddle is in neither basin."""
    step_fn, params, hidden, modes = tanh_unit
    starts = np.asarray(jax.random.uniform(jax.random.key(0), (2000, 1), minval=-1, maxval=2), np.float64)
    starts[0] = 0
    shares = jaxfp.basins(step_fn, params, (hidden, None), modes, starts)
    assert shares.attractor.tolist() == [0, 2]
    assert shares.fraction.sum() == pytest.approx(1 - 1 / 2000)
    np.testing.assert_allclose(shares.error, np.sqrt(shares.fraction * (1 - shares.fraction) / 2000))
    assert abs(shares.fraction[0] - 1 / 3) < 4 * shares.error[0]
    assert (shares.target[0], shares.outcome[0]) == (1, jaxfp.AT_SADDLE)
    assert ((shares.target[1:] == 2) == (starts[1:, 0] > 0)).all()


def test_basins_at_the_inputs_of_the_points():
    """Points at two inputs: which one is meant must be said, and only the attractors there count."""
    step_fn, params = jaxfp.from_arrays("tanh", {"w_rec": np.array([[0.5]]), "w_in": np.array([[1.0]])})
    inputs = np.array([[0.0], [0.5]])
    points = jaxfp.find_fixed_points(step_fn, params, np.zeros((2, 1)), inputs)
    modes = modes_of(step_fn, params, points.hidden, inputs=points.inputs)
    with pytest.raises(ValueError, match="inputs must be given"):
        jaxfp.basins(step_fn, params, points, modes, np.zeros((3, 1)))
    with pytest.raises(ValueError, match="inputs must be None, as those of the points are"):
        jaxfp.basins(
            step_fn,
            params,
            (points.hidden[:1], None),
            modes_of(step_fn, params, points.hidden[:1]),
            np.zeros((3, 1)),
            np.array([0.5]),
        )
    shares = jaxfp.basins(step_fn, params, points, modes, np.zeros((3, 1)), np.array([0.5]))
    assert shares.fraction.tolist() == [1.0]
    assert points.inputs[shares.attractor].tolist() == [[0.5]]


def test_a_wrong_network_fails_the_truth_table(tanh_network, tanh_analysis):
    """Control: with its input weights exchanged the trained memory no longer does what the task asks."""
    from jaxfp.cli import flip_flop, flip_flop_mechanism

    analysis = tanh_analysis[0]
    codes = flip_flop.sign_codes(tanh_network, analysis.points.hidden)
    step_fn, params, _ = tanh_network
    right = flip_flop_mechanism.explain(step_fn, params, analysis, codes, 3).summary
    assert right["truth_table"] == {"right": 48, "of": 48, "asked": 48}
    assert right["edges"]["by_hamming_distance"] == {"1": 12}
    pulses = right["critical_pulses"]
    assert (
        pulses["of"] == pulses["bracketed"] == pulses["to_the_saddle_between"] == pulses["ends_1_percent_around"] == 24
    )
    assert (pulses["least_distance"] < 1e-5 * pulses["distance_of_first_bisection"]).all()

    exchanged = params | {"w_in": np.asarray(params["w_in"])[:, ::-1]}
    table = flip_flop_mechanism.explain(step_fn, exchanged, analysis, codes, 3).summary["truth_table"]
    # Pulses on line 2 are as they were, and so are those on 1 and 3 where both bits are alike and stay so.
    assert table["right"] < 48
