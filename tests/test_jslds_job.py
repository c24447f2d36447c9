"""The 3-bit memory with its switching linear system: both terms are needed, weights come back, numbers are right."""

import contextlib
import dataclasses
import io as stringio
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfp
from jaxfp import cli, io
from jaxfp.cli import jslds_mechanism, jslds_training
from jaxfp.models import jslds_losses, train
from jaxfp.tasks import three_bit_memory
from jaxfp.types import FIXED, FixedPoints

N_UPDATES = 400
REST = 0.9575040240772687  # h* = tanh(2 h*)
SMALL = jslds_training.Recipe("tanh", n_units=8, noise=0.0, batch_size=4, n_steps=3, ramp=1.0)


@pytest.fixture(scope="module")
def memory():
    """A memory of three units that is known by hand: h' = tanh(2 h + 20 (u+ - u-)), each unit a bit, read as it is.

    Each unit rests at 0 and +-h*, h* = tanh(2 h*): 27 points. E(a) = tanh(w tanh(100 a)), w = atanh(h*), is the sign of
    a times h*.
    """
    eye = np.eye(3, dtype=np.float32)
    arrays = {
        "w_rec": 2 * eye,
        "w_in": 20 * np.repeat(eye, 2, axis=1) * np.tile(np.float32([-1, 1]), 3)[None],
        "w_out": eye,
        "b_out": np.zeros(3, np.float32),
        "hidden0": np.float32(np.full(3, -REST)),
        "first_kernel": 99 * eye,
        "first_bias": np.zeros(3, np.float32),
        "second_kernel": np.float32(np.arctanh(REST) - 1) * eye,
        "second_bias": np.zeros(3, np.float32),
    }
    return jslds_training.as_network("tanh", arrays)


@pytest.fixture(scope="module")
def batch():
    """Sparse trials: the linear system overshoots at every pulse, since the network saturates there."""
    config = three_bit_memory.ThreeBitMemoryConfig()
    return three_bit_memory.sample_batch(jax.random.key(0), config, 64, sparse_fraction=1.0)


@pytest.fixture(scope="module")
def trials(memory, batch):
    return jslds_mechanism.run_trials(memory, batch)


@pytest.fixture(scope="module")
def points():
    """All 27, as they are known."""
    hidden = REST * np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)))
    zeros, ones = np.zeros(27), np.ones(27, int)
    found = FixedPoints(hidden, np.zeros((27, 6)), zeros, zeros, np.full(27, FIXED), ones > 0, ones, None)
    return jslds_mechanism.Points(found, ones > 0)


def test_a_memory_known_by_hand_is_right_in_both_branches(memory, trials):
    does = jslds_mechanism.behaviour(trials)
    assert does["sign_accuracy"] == {"rnn": 1.0, "jslds": 1.0}
    assert does["residual"] < 1e-6  # weights are float32
    held = jslds_mechanism.hold_curve(jax.random.key(1), memory, 16, holds=(5, 20))
    assert held == {"rnn": [1.0, 1.0], "jslds": [1.0, 1.0]}


def test_its_points_clusters_and_codes_are_those_known(memory, trials, points):
    assert jslds_mechanism.count_by_index(memory, points.found) == {"0": 8, "1": 12, "2": 6, "3": 1, "slow": 0}
    said = jslds_mechanism.explain(jslds_mechanism.find_states(memory, trials), points)
    assert said["n_clusters"] == said["n_codes"] == 8
    assert sum(said["sizes"]) == 64 * 20
    assert said["readout_least"] == pytest.approx(REST, abs=1e-6)
    assert said["distance_to_proved"]["largest"] < 1e-5
    assert said["distance_to_proved"]["points_used"] == 8
    assert said["distance_to_proved"]["one_point_a_cluster"]
    np.testing.assert_allclose(said["eigenvalues"], 2 * (1 - REST**2), atol=1e-5)
    # Either line of a bit drives it alike, whether it flips it or not: there is no selection.
    np.testing.assert_allclose(said["selection_in_outputs"], 1.0, rtol=1e-6)


def test_other_expansion_points_and_other_points_are_worse(memory, batch, trials, points):
    """Controls: the points in another order; and one point in place of all."""
    own = jslds_mechanism.behaviour(trials)["relative_error"]
    assert jslds_mechanism.shuffled_error(jax.random.key(2), memory, batch, trials.both) > 1.5 * own
    whole = jslds_mechanism.baseline_error(memory, trials, points.found)
    at_rest = jslds_mechanism.baseline_error(memory, trials, jaxfp.take(points.found, points.found.q * 0 == 0))
    assert whole == at_rest
    saddle = np.linalg.norm(points.found.hidden, axis=1) < 0.5
    assert saddle.sum() == 1
    worse = jslds_mechanism.baseline_error(memory, trials, jaxfp.take(points.found, saddle))
    assert worse["one_step"] > 1.5 * whole["one_step"]
    none = jslds_mechanism.baseline_error(memory, trials, jaxfp.take(points.found, saddle & ~saddle))
    assert np.isnan([none["one_step"], none["free_run"]]).all()


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The command with the packaged network, few trials and few candidates: (folder, report, what it printed)."""
    out = tmp_path_factory.mktemp("jslds")
    printed = stringio.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("COLUMNS", "80")
        assert cli.main(["jslds", "--trials", "64", "--candidates", "128", "--quiet", "--out", str(out)]) == 0
    return out, json.loads((out / "report.json").read_text()), printed.getvalue()


def test_the_packaged_network_meets_the_bars(job):
    """Issue 6, one seed: both branches, free run, clusters and codes, controls, selection, hold."""
    said = job[1]
    does, found = said["behaviour"], said["expansion_points"]
    assert min(does["sign_accuracy"].values()) >= 0.999
    assert max(does["mse"].values()) < 2e-4
    assert does["relative_error"] <= 0.02
    assert does["residual"] < 0.03
    assert said["shuffled_relative_error"] > 10 * does["relative_error"]
    assert said["nearest_fixed_point"]["free_run"] > 3 * does["relative_error"]
    assert found["n_clusters"] == found["n_codes"] == 8
    assert found["readout_least"] >= 0.3
    assert found["selection_least"] > 5
    assert min(said["hold"]["rnn"][-1], said["hold"]["jslds"][-1]) >= 0.99
    # A small residual is no fixed point: README says so.
    assert found["n_proved"] == said["n_fixed"]
    assert min(found["distance_to_proved"]["of_centers"]) > 0.3


def test_it_writes_what_it_found(job):
    out, said, printed = job
    figures = {"state_space", "eigenvalues", "q", "discovery", "trial", "outputs", "expansion_points", "branches",
               "expansion_eigenvalues", "selection", "hold"}  # fmt: skip
    assert {file.name for file in out.iterdir()} == {
        "fixed_points.npz", "report.json", *(f"{name}.png" for name in figures)
    }  # fmt: skip
    assert said["command"] == "jslds"
    assert said["training"]["seed"] == 50
    assert len(io.load_points(out / "fixed_points.npz").hidden) == said["n_fixed"] + said["n_slow"]
    assert "They are not the fixed points of the network" in " ".join(printed.split())


@pytest.mark.parametrize("wrong", [["--n-hidden", "8"], ["--trials", "0"], ["--candidates", "0"], ["--paper"]])
def test_wrong_arguments_are_one_line(wrong, tmp_path, capsys):
    assert cli.main(["jslds", *wrong, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("jaxfp: error: --")


def test_weights_come_back_from_their_arrays(memory):
    arrays = jslds_training.as_arrays(memory.params)
    again = jslds_training.as_network("tanh", arrays)
    assert again.model == memory.model
    for leaf, other in zip(jax.tree.leaves(again.params), jax.tree.leaves(memory.params), strict=True):
        np.testing.assert_array_equal(leaf, other)
    with pytest.raises(ValueError, match=r"needs \['second_bias'\]"):
        jslds_training.as_network("tanh", {k: a for k, a in arrays.items() if k != "second_bias"})


def test_the_ramp_begins_at_zero_and_grows_with_the_updates():
    """On the same data the loss is linear in it, from the task alone to all terms; one update is one tick."""
    model, params = jslds_training.init_network(jax.random.key(0), SMALL)
    recipe = dataclasses.replace(SMALL, n_steps=20, ramp=0.5)
    loss = jax.jit(jslds_training.loss_of(model, recipe))

    def at_update(update):
        return loss(jslds_training.Training(params, jnp.full((), update)), jax.random.key(1))

    at = [float(at_update(update)[0]) for update in (0.0, 5.0, 10.0, 15.0)]
    # The terms that are reported are those of the loss.
    assert float(jslds_losses.total_loss(at_update(15.0)[1], recipe.strengths)) == pytest.approx(at[3])
    strengths = dataclasses.replace(recipe.strengths, lam_e=0.0, lam_a=0.0)
    task = jslds_training.loss_of(model, dataclasses.replace(recipe, strengths=strengths))
    assert at[0] == pytest.approx(
        float(jax.jit(task)(jslds_training.Training(params, jnp.zeros(())), jax.random.key(1))[0])
    )
    assert at[1] == pytest.approx((at[0] + at[2]) / 2, rel=1e-5)
    assert at[2] == at[3] > 1.1 * at[0]
    start = jslds_training.Training(params, jnp.zeros(()))
    optimizer = jslds_training.optimizer_of(recipe)
    gradient = jax.tree.map(jnp.ones_like, start)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(start), start)
    assert updates.clock == 1.0
    # Adam's first update is the learning rate against the sign of the gradient.
    np.testing.assert_allclose(updates.weights.hidden0, -recipe.learning_rate, rtol=1e-4)


@pytest.fixture(scope="module")
def trained_alone():
    """Seed 5, three updates."""
    return jslds_training.train_network(5, SMALL)


def test_two_seeds_in_one_program_are_trained_as_each_alone(trained_alone):
    together = jslds_training.train_seeds(jslds_training.THREE_BIT, (4, 5), SMALL)
    assert [said["seed"] for _, said in together] == [4, 5]
    arrays, said = trained_alone
    # Batched products round differently, and Adam divides by the size of the gradient.
    for name, array in together[1][0].items():
        np.testing.assert_allclose(array, arrays[name], atol=1e-4, err_msg=name)
    assert together[1][1]["final_loss"] == pytest.approx(said["final_loss"], rel=1e-4)
    assert np.abs(together[0][0]["w_rec"] - arrays["w_rec"]).max() > 0.1
    # All terms are told, of each.
    assert set(said["final_terms"]) == set(jslds_losses.LossTerms._fields)
    assert together[1][1]["final_terms"] == pytest.approx(said["final_terms"], rel=1e-4)


def test_the_papers_recipe_is_its_released_code():
    """Learning rate 0.02 * 0.9999^n, Adam's epsilon 0.1, all terms at full strength from the first update on."""
    paper = jslds_training.PAPER
    assert (paper.n_units, paper.batch_size, paper.n_steps, paper.clip) == (100, 256, 40_000, 10.0)
    assert paper.strengths == jslds_losses.Strengths(3.0, 1.0, 100.0, 10.0, 0.0)
    recipe = dataclasses.replace(paper, cell="tanh", n_units=2, batch_size=2)
    model, params = jslds_training.init_network(jax.random.key(0), recipe)
    start = jslds_training.Training(params, jnp.zeros(()))
    loss, terms = jslds_training.loss_of(model, recipe)(start, jax.random.key(1))
    assert float(loss) == pytest.approx(float(jslds_losses.total_loss(terms, recipe.strengths)))
    optimizer = jslds_training.optimizer_of(recipe)
    gradient, state = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.1), start), optimizer.init(start)
    with jax.numpy_dtype_promotion("standard"):
        for n in range(2):
            updates, state = optimizer.update(gradient, state, start)
            # A constant gradient g: Adam moves by rate * g / (g + eps), here half the rate.
            np.testing.assert_allclose(updates.weights.hidden0, -0.02 * 0.9999**n / 2, rtol=1e-5)


def test_without_either_term_the_linear_system_fails():
    """J11 at toy size: without lam_e expansion points are no fixed points, without lam_a the branches part.

    A memory of one bit, three trainings at once that differ in their strengths alone.
    """
    config = three_bit_memory.ThreeBitMemoryConfig(n_bits=1, n_time=12)
    recipe = dataclasses.replace(SMALL, cell="gru")
    model, start = jslds_training.init_network(jax.random.key(0), recipe)
    w_in = start.cell["w_in"][:, :2]
    start = start._replace(cell={**start.cell, "w_in": w_in}, readout=(start.readout[0][:1], start.readout[1][:1]))
    optimizer = optax.adam(2e-2)

    @jax.jit
    @jax.vmap
    def trained(lam_e, lam_a):
        strengths = jslds_losses.Strengths(lam_e=lam_e, lam_a=lam_a)

        def loss(params, key):
            batch = three_bit_memory.sample_batch(key, config, 16)
            return jslds_losses.total_loss(
                jslds_losses.loss_terms(model, params, *batch, three_bit_memory.loss), strengths
            )

        end = train.train_steps(jax.random.key(1), loss, start, optimizer.init(start), optimizer, jnp.arange(N_UPDATES))
        batch = three_bit_memory.sample_batch(jax.random.key(2), config, 64)
        return jslds_losses.loss_terms(model, end.params, *batch, three_bit_memory.loss)

    terms = trained(jnp.array([100.0, 0.0, 100.0]), jnp.array([10.0, 10.0, 0.0]))
    assert terms.rnn[0] < 0.1
    assert terms.jslds[0] < 0.1
    # J11 asks for three times the distance; these are its squares.
    assert terms.expansion[1] > 9 * terms.expansion[0]
    assert terms.approximation[2] > 9 * terms.approximation[0]
