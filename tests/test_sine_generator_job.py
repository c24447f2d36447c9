"""`python -m jaxfp sine-generator`: one point in the middle of each orbit, whose leading modes turn as fast (T8)."""

import contextlib
import io as stringio
import json

import numpy as np
import pytest

from jaxfp import cli, io
from jaxfp.cli import sine_generator, sine_mechanism, sine_training

FIGURES = {"outputs", "orbits", "frequencies", "taylor"}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The command with the packaged network, short runs and few candidates: (folder, report, what it printed)."""
    out = tmp_path_factory.mktemp("sine_generator")
    printed = stringio.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("COLUMNS", "80")
        command = ["sine-generator", "--duration", "400", "--candidates", "1", "--quiet", "--out", str(out)]
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


def test_it_writes_what_it_found(job):
    out, said, printed = job
    names = {"fixed_points.npz", "report.json", "state_space.png", "eigenvalues.png", "q.png", "discovery.png"}
    assert {file.name for file in out.iterdir()} == names | {f"{name}.png" for name in FIGURES}
    assert said["network"]["recipe"]["stages"][-1]["duration"] == 126
    assert said["audit"]["index_sums"] == [1] * 51
    assert len(io.load_points(out / "fixed_points.npz").hidden) == said["n_fixed"] + said["n_slow"]
    assert "At 51 of 51 inputs exactly one fixed point lies inside the orbit" in " ".join(printed.split())


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


@pytest.mark.parametrize("wrong", [["--n-hidden", "8"], ["--duration", "3"], ["--candidates", "0"]])
def test_wrong_arguments_are_one_line(wrong, tmp_path, capsys):
    assert cli.main(["sine-generator", *wrong, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("jaxfp: error: --")
