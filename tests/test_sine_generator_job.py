"""`python -m jaxfp sine-generator`: one point in the middle of each orbit, whose leading modes turn as fast (T8)."""

import contextlib
import io as stringio
import json

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfp
from jaxfp import cli, io, types
from jaxfp.cli import sine_family, sine_generator, sine_mechanism, sine_training
from jaxfp.cli.sine_mechanism import Orbits

FIGURES = {"outputs", "orbits", "frequencies", "taylor", "family", "multipliers", "distances"}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The command with the packaged network, short runs and few candidates: (folder, report, what it printed)."""
    out = tmp_path_factory.mktemp("sine_generator")
    printed = stringio.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("COLUMNS", "80")
        command = ["sine-generator", "--duration", "400", "--candidates", "1", "--cycles", "3", "--quiet"]
        command += ["--out", str(out)]
        assert cli.main(command) == 0
    return out, json.loads((out / "report.json").read_text()), printed.getvalue()


def test_one_point_in_the_middle_of_each_orbit(job):
    """T8, all 51 inputs: one point inside, certified, unstable in one complex pair alone; frequencies; correlation."""
    said = job[1]["mechanism"]
    assert said["one_point_inside"] == said["index_2_with_one_complex_pair"] == said["certified"] == 51
    assert said["orbit_error_median"] < 0.005
    assert said["within_2_percent"] == 51
    assert said["correlation"] > 0.99
    assert 0.8 < said["ratio_median"] < 1.25
    for one in said["each"]:
        assert one["taylor"]["constant"] < 1e-12 < one["taylor"]["second"] < one["taylor"]["first"]


def test_controls_fail(job):
    """Shuffled targets do not correlate; an untrained network has a stable point and no orbit."""
    assert abs(job[1]["mechanism"]["correlation_shuffled_mean"]) < 0.05
    recipe = sine_training.Recipe(stages=())
    arrays, _ = sine_training.train_network(0, 100, recipe)
    network = sine_training.as_network(arrays, recipe.dt)
    orbits = sine_mechanism.run_freely(network, recipe, 400.0)
    points, spectra = sine_mechanism.search(network, orbits, 1)
    mechanism = sine_mechanism.explain(points, spectra, orbits)
    assert not (mechanism.complex_pair & (mechanism.n_inside == 1)).any()
    assert len(sine_mechanism.missed(orbits, mechanism)) == 2


def test_one_family_through_all_inputs(job):
    """Followed from input to input, each point is proved to be the one that the search found there; nothing happens."""
    said = job[1]["family"]
    assert said["n_followed"] == said["n_same"] == 51
    assert said["identity_errors"] == 0
    assert said["largest_difference"] < 1e-11  # both at the rounding floor, seen through (I - J)^-1
    assert said["events"] == []
    assert (said["begins"], said["ends"], said["unstable_dimensions"]) == ("path", "path", [2])
    assert job[1]["elsewhere"] == []


def test_limit_cycles_turn_as_free_runs_do(job):
    """At 3 inputs: around the point, attracting, one multiplier 1, and the frequency of the free run."""
    said = job[1]["cycles"]
    assert said["n_looked"] == said["n_found"] == said["n_agree_with_free_runs"] == said["n_around_the_point"] == 3
    assert said["largest_difference_from_free_runs"] < 1e-3
    assert said["multiplier_along_off_1"] < 1e-2  # interpolation between the iterates
    assert 0 < said["multiplier_across_largest"] < 0.5
    for one in said["each"]:
        assert 0 < one["distance_smallest"] < one["distance_mean"] < 1.5 * one["radius"]


def test_the_multiplier_across_a_cycle_is_its_lyapunov_exponent(job):
    """Two ways to one number, at the fastest input: the mean growth of a second direction, times the period."""
    arrays, _ = io.load_packaged("sine_generator")
    network = sine_training.as_network(arrays, 0.5)
    cycle = job[1]["cycles"]["each"][-1]
    exponents = jaxfp.lyapunov_exponents(
        network.step_fn, network.params, arrays["hidden0"].astype(float), np.array([cycle["input"]]),
        n_time=4200, n_settle=500, k=2, dt=0.5,
    )  # fmt: skip
    assert abs(exponents[0]) < 1e-3  # what is left of a turn, over 2,100 time constants
    growth = np.exp(exponents[1] * cycle["period"])
    assert growth == pytest.approx(cycle["multipliers_across"][0], rel=0.02)


def test_taylor_terms_are_those_of_the_equation():
    """The quadratic term is dt/2 sum_k W_ik (-2 r_k (1 - r_k^2)) d_k^2, without a second factor 1 - r_k^2."""
    arrays, _ = io.load_packaged("sine_generator")
    network = sine_training.as_network(arrays, 0.5)
    hidden, d = (np.sin(np.arange(100.0) * factor) for factor in (1.3, 0.7))
    terms = jaxfp.taylor_terms(network.step_fn, network.params, hidden, np.array([0.5]), d[None])
    rate, w_rec = np.tanh(hidden), arrays["w_rec"].astype(float)
    second = 0.5 * w_rec @ (-rate * (1 - rate**2) * d**2)
    assert terms.second[0] == pytest.approx(np.linalg.norm(second), rel=1e-12)
    first = 0.5 * (w_rec @ ((1 - rate**2) * d) - d)
    assert terms.first[0] == pytest.approx(np.linalg.norm(first), rel=1e-12)
    trap = 0.5 * w_rec @ (-rate * (1 - rate**2) ** 2 * d**2)
    assert abs(terms.second[0] / np.linalg.norm(trap) - 1) > 0.1


def empty(inputs, states, omega):
    """Orbits at these inputs, wanted as fast as they are."""
    return Orbits(inputs, omega, states, states[:, :, 0], omega, 1.0)


def test_another_point_is_an_error_of_identity():
    """H' = tanh(1.5 h + u) has an upper and a lower point; calling the lower one inside at 3 of 9 inputs is 3 errors.

    So is a state that is no fixed point at all, although Newton's method would lead to one from there.
    """
    step_fn, params = jaxfp.from_arrays("tanh", {"w_rec": np.array([[1.5]]), "w_in": np.array([[1.0]])})
    inputs = np.linspace(-0.1, 0.1, 9)[:, None]
    network = sine_training.Network(step_fn, params, (np.ones(1), 0.0), np.zeros(1))
    points = jaxfp.find_fixed_points(step_fn, params, np.repeat([[0.9], [-0.9]], 9, axis=0), np.tile(inputs, (2, 1)))
    upper, lower = (
        np.array([np.flatnonzero((points.inputs == u).all(1) & (side * points.hidden[:, 0] > 0))[0] for u in inputs])
        for side in (1, -1)
    )
    orbits = empty(inputs, np.zeros((9, 4, 1)), np.full(9, np.nan))

    def errors(rows, points=points):
        mechanism = sine_mechanism.Mechanism(rows, *[rows] * 6, correlation=np.nan)
        tracked = sine_family.track(network, points, mechanism, orbits)
        circles = sine_family.close(network, points, mechanism, orbits)
        return sine_family.summarize(tracked, circles, mechanism, orbits)["family"]

    assert errors(upper)["identity_errors"] == 0
    mixed = np.where(np.arange(9) < 3, lower, upper)
    assert errors(mixed)["identity_errors"] == 3
    assert errors(mixed)["n_followed"] == 9
    off = points._replace(hidden=points.hidden + 0.3 * (np.arange(len(points.hidden)) == upper[4])[:, None])
    assert errors(upper, off)["n_same"] == 8


def turn_and_grow(params, hidden, inputs):
    """Turns by u a step, r -> r (1.05 - 0.05 r^2): the circle r = 1, across it 0.9 a step; the origin is inside."""
    cos, sin = jnp.cos(inputs[0]), jnp.sin(inputs[0])
    turned = jnp.stack([cos * hidden[0] - sin * hidden[1], sin * hidden[0] + cos * hidden[1]])
    return turned * (1.05 - params * hidden @ hidden)


def test_circles_of_a_map_in_closed_form():
    """Period 2 pi / u, multipliers 1 and 0.9^period, distance 1; a point beyond the circle is not inside."""
    inputs = np.array([[0.1], [0.17]])
    network = sine_training.Network(turn_and_grow, 0.05, (np.array([1.0, 0.0]), 0.0), np.ones(2))
    angle = inputs * np.arange(300)
    orbits = empty(inputs, np.stack([np.cos(angle), np.sin(angle)], axis=2), inputs[:, 0])
    points = types.FixedPoints(np.array([[0.0, 0.0], [1.5, 0.0]]), inputs, *[None] * 6)
    mechanism = sine_mechanism.Mechanism(np.arange(2), *[np.zeros(2)] * 6, correlation=np.nan)
    circles = sine_family.close(network, points, mechanism, orbits)
    period = 2 * np.pi / inputs[:, 0]
    assert circles.period == pytest.approx(period, rel=1e-6)
    assert np.abs(circles.multipliers[:, 0]) == pytest.approx(1, abs=1e-4)
    assert np.abs(circles.multipliers[:, 1]) == pytest.approx(0.9**period, rel=1e-3)
    assert circles.radius == pytest.approx(1, abs=0.01)  # a whole number of steps is not quite a whole turn
    assert circles.distance[0] == pytest.approx(1, rel=1e-6)
    assert circles.amplitude == pytest.approx(np.tanh(1), rel=1e-3)
    assert circles.inside.tolist() == [True, False]
    nothing = sine_family.Tracked(None, -1, np.zeros(2, bool), np.zeros(2, bool), np.full(2, np.nan))
    said = sine_family.summarize(nothing, circles, mechanism, orbits)
    assert said["cycles"]["n_agree_with_free_runs"] == said["cycles"]["n_attract"] == 2
    wrong = orbits._replace(omega=1.03 * orbits.omega)
    assert sine_family.summarize(nothing, circles, mechanism, wrong)["cycles"]["n_agree_with_free_runs"] == 0


def test_it_writes_what_it_found(job):
    out, said, printed = job
    names = {"fixed_points.npz", "report.json", "state_space.png", "eigenvalues.png", "q.png", "discovery.png"}
    assert {file.name for file in out.iterdir()} == names | {f"{name}.png" for name in FIGURES}
    assert said["network"]["recipe"]["stages"][-1]["duration"] == 126
    assert said["audit"]["index_sums"] == [1] * 51
    assert len(io.load_points(out / "fixed_points.npz").hidden) == said["n_fixed"] + said["n_slow"]
    printed = " ".join(printed.split())
    assert "At 51 of 51 inputs exactly one fixed point lies inside the orbit" in printed
    assert (
        "followed to 51 inputs, at 51 proved to be the point inside the orbit, at 0 not. Events on the way: none."
        in printed
    )


def test_inside_is_what_the_orbit_goes_around():
    """An ellipse: its middle and a point off the middle are inside, one beyond it is not, nor one far off its plane."""
    turn = np.linspace(0, 20 * np.pi, 2000)
    states = np.stack([2 * np.cos(turn), np.sin(turn), 0.1 * np.cos(2 * turn)], axis=1)
    hidden = np.array([[0, 0, 0.0], [1.0, 0.2, 0], [0, 1.2, 0], [0, 0, 5.0]])
    inside, distance = sine_mechanism.goes_around(hidden, states)
    assert inside.tolist() == [True, True, False, False]
    assert distance[0] == pytest.approx(0, abs=1e-3)
    assert not sine_mechanism.goes_around(hidden, np.zeros((10, 3)))[0].any()


def test_the_retry_rule_is_taken_once():
    """A network that fails is trained on, one that was is not; and the rule says what it found."""
    stage = sine_training.Stage(4, 1e-3, 3)
    recipe = sine_training.Recipe(n_conditions=5, stages=(stage,), retry=stage)
    arrays, provenance = sine_generator.train_whole(1, 6, recipe)
    assert provenance["retried"]
    assert len(provenance["losses"]) == 2
    assert provenance["missed"]
    with pytest.raises(ValueError, match="one retry"):
        sine_training.retry(arrays, provenance, recipe)


@pytest.mark.parametrize("wrong", [["--n-hidden", "8"], ["--duration", "3"], ["--candidates", "0"], ["--cycles", "-1"]])
def test_wrong_arguments_are_one_line(wrong, tmp_path, capsys):
    assert cli.main(["sine-generator", *wrong, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("jaxfp: error: --")
