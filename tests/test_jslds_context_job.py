"""Context integration with its switching linear system: the numbers are right on a network known by hand."""

import contextlib
import dataclasses
import io as stringio
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfp import cli, io
from jaxfp.cli import jslds_context, jslds_context_mechanism, jslds_context_report, jslds_training
from jaxfp.tasks import context_integration
from jaxfp.types import FIXED

SCALE, GATE, LEAK = 0.05, 5.0, 0.98
SHUT = np.tanh(GATE)


@pytest.fixture(scope="module")
def integrator():
    """Three units: a gate for each channel, shut by the context of the other, and a leaky sum of what the gates let by.

    p_k' = tanh(s w_k - g c_other);   x' = tanh(r (x + p_0 + p_1 + tanh(g))),   one gate being shut: p = -tanh(g);
    what is said is (x + p_0 + p_1 + tanh(g)) / s, about the sum, since s is small.
    """
    arrays = {
        "w_rec": np.float32([[0, 0, 0], [0, 0, 0], [LEAK, LEAK, LEAK]]),
        "w_in": np.float32([[SCALE, 0, 0, -GATE], [0, SCALE, -GATE, 0], [0, 0, 0, 0]]),
        "b": np.float32([0, 0, LEAK * SHUT]),
        "w_out": np.full((1, 3), 1 / SCALE, np.float32),
        "b_out": np.float32([SHUT / SCALE]),
        "hidden0": np.float32([-SHUT / 2, -SHUT / 2, 0]),
        **{f"{layer}_kernel": np.zeros((3, 3), np.float32) for layer in ("first", "second")},
        **{f"{layer}_bias": np.zeros(3, np.float32) for layer in ("first", "second")},
    }
    return jslds_context.as_network(arrays)


@pytest.fixture(scope="module")
def batch():
    return context_integration.sample_batch(jax.random.key(0), context_integration.ContextIntegrationConfig(), 128)


@pytest.fixture(scope="module")
def trials(integrator, batch):
    """Expanded by hand at the fixed point of each context, as E cannot know it from the first state."""
    made = jslds_context_mechanism.run_context_trials(integrator, batch)
    points = np.where(made.context[:, None] == [0, 1, 2], -0.0, -SHUT) * [1, 1, 0]
    expansion = np.broadcast_to(points[:, None], made.does.both.expansion.shape)
    return made._replace(does=made.does._replace(both=made.does.both._replace(expansion=expansion)))


@pytest.fixture(scope="module")
def line(integrator, trials):
    return jslds_context_mechanism.find_line_points(jax.random.key(1), integrator, trials, 32)


def test_the_context_says_which_channel_is_added_up(integrator, batch):
    said = jslds_context_mechanism.context_behaviour(jax.random.key(1), integrator, batch)
    assert said["r_squared"]["rnn"] > 0.95  # it leaks 2 % a step
    turned = batch._replace(inputs=batch.inputs[:, :, jnp.array([1, 0, 2, 3])])
    assert jslds_context_mechanism.context_behaviour(jax.random.key(1), integrator, turned)["r_squared"]["rnn"] < 0.1


def test_one_mode_stays_and_takes_up_what_its_context_asks_for(integrator, trials):
    """Eigenvalues are r (1 - tanh^2) = r at the fixed point, and 0; the shut gate passes 1 - tanh(g)^2 of the other."""
    said = jslds_context_mechanism.explain_context(integrator, trials)
    for context in said.values():
        assert context["leading"]["least"] == pytest.approx(LEAK, abs=1e-5)
        assert context["leading"]["largest"] == pytest.approx(LEAK, abs=1e-5)
        assert context["second"]["largest"] < 1e-6
        assert context["selection"]["least"] == pytest.approx(1 / (1 - SHUT**2), rel=1e-3)
        assert context["taken_up"]["asked"] == pytest.approx(SCALE / 3**0.5, rel=1e-4)
        assert [context[name]["share"] for name in ("leading", "second", "selection")] == [1.0, 1.0, 1.0]
    # With its input lines exchanged it takes up the wrong channel in either context.
    cell = {**integrator.params.cell, "w_in": integrator.params.cell["w_in"][:, [1, 0, 2, 3]]}
    wrong = integrator._replace(params=integrator.params._replace(cell=cell))
    for context in jslds_context_mechanism.explain_context(wrong, trials).values():
        assert context["selection"]["largest"] < 1
        assert context["selection"]["share"] == 0


def test_choice_and_evidence_are_the_axes_of_the_integrator(integrator, trials):
    """Its third unit (right eigenvector) sums what is on all three (left), and the gates are those of evidence."""
    lines = jslds_context_report.find_lines(integrator, trials)
    assert np.unique(lines.context, return_counts=True)[1].tolist() == [jslds_context_report.N_SHOWN] * 2
    np.testing.assert_allclose(lines.right, [[0.0, 0.0, 1.0]] * len(lines.points), atol=1e-9)
    np.testing.assert_allclose(lines.left, np.full((len(lines.points), 3), 3**-0.5), rtol=1e-6)
    np.testing.assert_allclose(lines.eigenvalues[:, 0], LEAK, atol=1e-5)
    np.testing.assert_allclose(jslds_context_report.choice_axes(integrator, lines), np.eye(3)[[2, 0, 1]], atol=1e-9)
    turned = integrator._replace(params=integrator.params._replace(readout=(-integrator.params.readout[0], None)))
    np.testing.assert_allclose(jslds_context_report.find_lines(turned, trials).right, -lines.right, atol=1e-9)


def test_each_trial_is_predicted_from_the_points_of_its_context(integrator, trials, line):
    """The network is nearly linear about either."""
    assert jslds_context_mechanism.point_counts(line) == {"fixed": [1, 1], "proved": [1, 1], "slow": [0, 0]}
    own = jslds_context_mechanism.nearest_point_error(integrator, trials, line.found, line.proved)
    assert own["one_step"] < 1e-3
    # With the channels exchanged it is worse.
    moved = trials.does._replace(inputs=trials.does.inputs[:, :, [1, 0, 2, 3]])
    other = jslds_context_mechanism.nearest_point_error(
        integrator, trials._replace(does=moved), line.found, line.proved
    )
    assert other["one_step"] > 100 * own["one_step"]
    lacking = line.proved & (line.found.inputs[:, 2] > 0)
    assert lacking.any()
    none = jslds_context_mechanism.nearest_point_error(integrator, trials, line.found, lacking)
    assert np.isnan([none["one_step"], none["free_run"]]).all()


def test_points_spread_where_the_search_ends_early(integrator, trials, line):
    """Where F(h) is nearly h the search stops at once: states, not fixed points, and more than one a context."""
    spread = jslds_context_mechanism.find_line_points(jax.random.key(1), integrator, trials, 32, 1e-6)
    counts = jslds_context_mechanism.point_counts(spread)
    assert min(counts["slow"]) > 1
    assert sum(counts["proved"]) == 0
    assert (line.found.status == FIXED).all()


def test_the_network_that_is_trained_is_the_one_that_is_looked_at():
    """Both are expanded at their context, and no weight is lost on the way through the arrays."""
    start = jslds_context.init_network(jax.random.key(3), dataclasses.replace(jslds_context.RECIPE, n_units=4))
    again = jslds_context.as_network(jslds_training.as_arrays(start.params))
    assert again.model == start.model
    assert again.model.static_lines == (2, 3)
    for leaf, was in zip(jax.tree.leaves(again.params), jax.tree.leaves(start.params), strict=True):
        np.testing.assert_array_equal(leaf, was)


def test_the_standard_network_is_trained_alone_and_without_noise():
    assert jslds_context.STANDARD.strengths.network_alone
    assert jslds_context.STANDARD.noise == 0
    recipe = jslds_context.RECIPE
    kept = dataclasses.replace(jslds_context.STANDARD, strengths=recipe.strengths, noise=recipe.noise)
    assert kept == recipe


def test_the_papers_recipe_is_its_released_code():
    paper = jslds_context.PAPER
    assert (paper.cell, paper.n_units, paper.batch_size, paper.n_steps) == ("tanh", 128, 256, 50_000)
    assert (paper.learning_rate, paper.decay, paper.adam_eps, paper.noise, paper.ramp) == (0.02, 0.9999, 0.1, 0.0, 0.0)
    assert dataclasses.astuple(paper.strengths) == (1.0, 1.0, 100.0, 10.0, 1e-5)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The command with the packaged network, few trials and few candidates: (folder, report, what it printed)."""
    out = tmp_path_factory.mktemp("context")
    printed = stringio.StringIO()
    command = ["jslds", "--task", "context", "--trials", "64", "--candidates", "32", "--quiet", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("COLUMNS", "80")
        patch.setattr(jslds_context_mechanism, "N_DRAWN", 200)  # a spectrum takes 7 ms
        assert cli.main(command) == 0
    return out, json.loads((out / "report.json").read_text()), printed.getvalue()


def test_the_packaged_network_has_a_line_in_each_context(job):
    """Issue 6, one seed: one mode, the next far from it at every point, and selection nearly everywhere."""
    said = job[1]
    does = said["behaviour"]
    assert min(does["r_squared"].values()) > 0.99
    assert does["relative_error"] <= 0.03
    assert does["shuffled_relative_error"] > 2 * does["relative_error"]
    assert said["own_points"]["spread"]["free_run"] > does["relative_error"]
    for context in said["contexts"].values():
        assert context["leading"]["share"] == context["second"]["share"] == 1
        assert context["selection"]["share"] >= 0.95
        assert context["line"] > 0.8


def test_it_writes_what_it_found(job):
    out, said, printed = job
    figures = {"state_space", "eigenvalues", "q", "discovery", "expansion_points", "branches", "expansion_eigenvalues",
               "selection_vectors", *(f"context_{c}_evidence_{k}" for c in (0, 1) for k in (0, 1))}  # fmt: skip
    assert {file.name for file in out.iterdir()} == {
        "fixed_points.npz", "report.json", *(f"{name}.png" for name in figures)
    }  # fmt: skip
    points = io.load_points(out / "fixed_points.npz")
    assert len(points.hidden) == said["n_fixed"] + said["n_slow"]
    # Evidence is 0 there, and each is of one context.
    assert np.unique(points.inputs, axis=0).tolist() == [[0, 0, 0, 1], [0, 0, 1, 0]]
    assert f"seed {said['training']['seed']}; fresh trials" in printed
