"""`python -m jaxfp moving-average`: a sheet of slow points holds two values, a line one (T9); a pulse shifts them."""

import contextlib
import io as stringio
import json

import jax
import numpy as np
import pytest

from jaxfp import cli, io
from jaxfp.cli import average_mechanism, average_training

FIGURES = {"trial", "sheet_last", "sheet_second", "decoded", "tolerances", "timescales"}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The command with the packaged networks and few states: (folder, report, what it printed)."""
    out = tmp_path_factory.mktemp("moving_average")
    printed = stringio.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("COLUMNS", "80")
        command = ["moving-average", "--states", "96", "--candidates", "32", "--quiet", "--out", str(out)]
        assert cli.main(command) == 0
    return out, json.loads((out / "report.json").read_text()), printed.getvalue()


def test_two_values_lie_on_a_sheet(job):
    """T9, thresholds of the specification: R2, share of two directions, gap after the second timescale, decoding."""
    said = job[1]["network"]
    assert said["behaviour"]["r2"] > 0.999
    sheet = said["sheet"]
    assert sheet["variance_pc12"] > 0.95
    assert sheet["gap_2_3"] > 3
    assert min(sheet["decoded_last"], sheet["decoded_second"]) > 0.95
    assert min(sheet["pulse_map"]["15"]["r2"]) > 0.93
    np.testing.assert_allclose(sheet["pulse_map"]["15"]["map"], [[1, 0, 0], [0, 1, 0]], atol=0.15)
    assert sheet["readout_along_the_mean"] > 0.99


def test_one_value_lies_on_a_line(job):
    """The control: one direction, and nothing of the pulse before."""
    sheet = job[1]["control"]["sheet"]
    assert sheet["variance_pc1"] > 0.95
    assert sheet["gap_1_2"] > 3
    assert sheet["decoded_last"] > 0.95
    assert sheet["decoded_second"] < 0.2  # of 48 points; below 0.05 on average over many


def test_an_untrained_network_holds_nothing():
    arrays, _ = average_training.train_network(0, "gru", 16, average_training.Recipe(n_steps=1, warm_up=0))
    network = average_training.as_network("gru", arrays)
    assert average_mechanism.behaviour(jax.random.key(0), network, 2, 32)["r2"] < 0.5
    states, values = average_mechanism.draw_holding(jax.random.key(1), network, 64)
    assert average_mechanism.look_at(network, states.astype(np.float64), values).decoded[1] < 0.5


def test_it_writes_what_it_found(job):
    out, said, printed = job
    names = {"fixed_points.npz", "report.json", "state_space.png", "eigenvalues.png", "q.png", "discovery.png"}
    assert {file.name for file in out.iterdir()} == names | {f"{name}.png" for name in FIGURES}
    assert said["command"] == "moving-average"
    assert said["network"]["training"]["seed"] == said["control"]["training"]["seed"] == 0
    assert len(said["network"]["sheet"]["sweep"]["tolerance"]) == len(average_mechanism.TOLERANCES)
    assert len(io.load_points(out / "fixed_points.npz").hidden) == said["n_fixed"] + said["n_slow"]
    assert "15 steps after a pulse the sheet says" in " ".join(printed.split())


def test_training_is_a_function_of_its_seed():
    recipe = average_training.Recipe(n_time=20, warm_up=5, n_steps=60, batch_size=16)
    arrays, provenance = average_training.train_network(1, "gru", 8, recipe)
    again, _ = average_training.train_network(1, "gru", 8, recipe)
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], again[name])
    assert provenance["final_loss"] < 0.12  # saying 0 throughout scores 1/6 and less, as trials begin with 0


@pytest.mark.parametrize("wrong", [["--n-hidden", "8"], ["--states", "3"], ["--candidates", "0"], ["--cell", "tanh"]])
def test_wrong_arguments_are_one_line(wrong, tmp_path, capsys):
    assert cli.main(["moving-average", *wrong, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("jaxfp: error: --")


def test_too_few_slow_points_are_said():
    network = average_training.as_network("gru", io.load_packaged("moving_average_gru")[0])
    states, values = average_mechanism.draw_holding(jax.random.key(0), network, 4)
    with pytest.raises(ValueError, match="only 4 of 4 searches got below"):
        average_mechanism.find_sheets(network, states, values, (1e-3,))
    with pytest.raises(ValueError, match="one at the tolerance 1e-05"):
        average_mechanism.summarize({}, {}, network.readout)
