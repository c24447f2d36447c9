"""LFADS-JSLDS: divergences and likelihood are what they are called, and both branches get one start and one input."""

import contextlib
import dataclasses
import io as stringio
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import systems
from scipy import stats

from jaxfp import cli, io
from jaxfp.cli import lfads_training
from jaxfp.models import jslds, lfads, lfads_losses, lfads_model
from jaxfp.tasks import spiking_integrator

KEY = jax.random.key(0)
N_NEURONS, N_TIME, N_TRIALS = 4, 6, 16
CONFIG = lfads_model.LfadsConfig(n_encoder=2, n_controller=3, n_generator=3, n_factors=2)
SMALL = lfads.Recipe(CONFIG, batch_size=8, n_steps=60, kl_warm_up=(0, 20), learning_rate=2e-2)
BOTH = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture
def _in(dtype):
    """Both dtypes, whatever the default."""
    with jax.enable_x64(dtype == "float64"):
        yield


@pytest.fixture(scope="module")
def spikes():
    """Counts with a slow common rate, so that there is something to find."""
    rng = np.random.default_rng(0)
    common = np.cumsum(0.5 * rng.standard_normal((N_TRIALS, N_TIME, 1)), axis=1)
    return rng.poisson(np.exp(common * np.array([1.0, -1.0, 0.5, 1.0])))


@pytest.fixture(scope="module")
def built():
    """Networks with random weights everywhere, in the expansion network as well, NumPy float64."""
    model, params = lfads_model.build_lfads(KEY, N_NEURONS, CONFIG)
    rng = np.random.default_rng(1)
    return model, jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape), params)


@pytest.fixture(scope="module")
def fitted(spikes):
    return lfads.fit_lfads(KEY, spikes, SMALL)


roll_out = jax.jit(lfads_model.roll_out, static_argnums=0)


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


# Divergences and likelihood


def test_gaussian_divergence_is_the_mean_of_log_q_minus_log_p():
    """Gauss-Hermite quadrature with 3 nodes is exact, both logarithms being quadratic; 1e-5: float32."""
    mean, log_variance, prior_mean, prior_variance = 0.7, -1.2, 0.3, 0.5
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    at = mean + np.exp(log_variance / 2) * nodes
    log_ratio = stats.norm.logpdf(at, mean, np.exp(log_variance / 2)) - stats.norm.logpdf(
        at, prior_mean, prior_variance**0.5
    )
    said = lfads_losses.gaussian_kl(jnp.array([mean]), jnp.array([log_variance]), prior_mean, prior_variance)
    np.testing.assert_allclose(said, [weights @ log_ratio / weights.sum()], rtol=1e-5)
    assert lfads_losses.gaussian_kl(jnp.array([0.3]), jnp.log(jnp.array([0.5])), 0.3, 0.5)[0] == pytest.approx(
        0, abs=1e-6
    )


def divergence_from_process(mean, variance, config):
    """KL(N(mean, diag variance) || AR(1)), from the covariance of the stationary process: closed, nats."""
    phi = np.exp(-1 / config.input_tau)
    lags = np.abs(np.subtract.outer(np.arange(len(mean)), np.arange(len(mean))))
    covariance = config.input_variance / (1 - phi**2) * phi**lags
    inverse = np.linalg.inv(covariance)
    quadratic = np.trace(inverse @ np.diag(variance)) + mean @ inverse @ mean
    return (quadratic - len(mean) + np.linalg.slogdet(covariance)[1] - np.log(variance).sum()) / 2


@pytest.mark.parametrize("tau", [0.5, 5.0])
def test_the_mean_over_samples_is_the_divergence_from_the_autoregressive_process(tau):
    """Where q is the same whatever was sampled, the whole divergence is known; 5 standard errors of 20,000 samples."""
    config = lfads_model.LfadsConfig(input_tau=tau, input_variance=0.3)
    rng = np.random.default_rng(2)
    mean, log_variance = (jnp.asarray(rng.standard_normal((N_TIME, 1)), jnp.float32) for _ in range(2))
    noise = rng.standard_normal((20_000, N_TIME, 1)).astype(np.float32)
    sampled = np.asarray(mean) + np.exp(np.asarray(log_variance) / 2) * noise
    each = jax.vmap(lambda u: jnp.sum(lfads_losses.autoregressive_kl(mean, log_variance, u, config)))(sampled)
    wanted = divergence_from_process(np.asarray(mean)[:, 0], np.exp(np.asarray(log_variance))[:, 0], config)
    error = float(each.std()) / len(each) ** 0.5
    assert abs(float(each.mean()) - wanted) < 5 * error
    assert float(each.min()) >= 0
    other = divergence_from_process(np.asarray(mean)[:, 0], np.exp(np.asarray(log_variance))[:, 0],
                                    dataclasses.replace(config, input_tau=2 * tau))  # fmt: skip
    assert abs(other - wanted) > 10 * error  # the check tells one prior from another


@BOTH
@pytest.mark.usefixtures("_in")
def test_likelihood_is_poisson(dtype):
    """Float32: log k! of 12 is 20, so eps times 20 and some operations."""
    counts = np.arange(13)
    log_rates = np.linspace(-3, 3, 13)
    said = lfads_losses.poisson_nll(jnp.asarray(log_rates, dtype), jnp.asarray(counts, dtype))
    np.testing.assert_allclose(said, -stats.poisson.logpmf(counts, np.exp(log_rates)), atol=200 * jnp.finfo(dtype).eps)


# Roll-out


def test_both_branches_are_those_of_jslds_from_one_start_and_one_input(built, spikes):
    """The states are what jslds.roll_out makes of the sampled g_0 and u; readouts are shared. Float32 stays float32."""
    model = built[0]
    with jax.enable_x64(True):
        params = cast(built[1], "float64")
        both = roll_out(model, params, jnp.asarray(spikes[0], "float64"), KEY)
        pair = jslds.JsldsParams(params.generator, params.expansion, (None, None), both.start)
        alone = jslds.Jslds(model.step_fn, model.expand_fn)
        wanted = jax.jit(jslds.roll_out, static_argnums=0)(alone, pair, both.inputs)
        # 6 steps of sums of 3 products, numbers up to 3
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), both.states, wanted)
    assert {leaf.dtype for leaf in jax.tree.leaves(both)} == {np.dtype("float64")}
    said = roll_out.eval_shape(model, cast(params, "float32"), jnp.asarray(spikes[0], "float32"), KEY)
    assert {leaf.dtype for leaf in jax.tree.leaves(said)} == {np.dtype("float32")}
    weights, bias = built[1].log_rates
    for states, log_rates in ((both.states.hidden, both.log_rates), (both.states.switching, both.switching_log_rates)):
        np.testing.assert_allclose(log_rates, np.asarray(states) @ built[1].factors.T @ weights.T + bias, atol=1e-13)
    assert np.abs(np.asarray(both.states.hidden) - np.asarray(both.states.switching)).max() > 1e-2
    assert np.abs(np.asarray(both.start) - np.asarray(both.start_mean)).max() > 1e-2  # it was a sample


def stays(params, hidden):
    """An expansion network that knows one point."""
    return params


def test_an_affine_generator_about_its_fixed_point_has_equal_branches(built, spikes):
    """And with a point 0.1 off it has not."""
    A = jnp.array([[0.5, 0.2, 0.0], [-0.3, 0.6, 0.1], [0.0, 0.1, 0.4]])
    cell = {"A": A, "b": jnp.array([0.3, -0.2, 0.1]), "B": jnp.array([[1.0], [0.5], [0.0]])}
    point = jnp.linalg.solve(jnp.eye(3) - A, cell["b"])
    model = dataclasses.replace(built[0], step_fn=systems.affine, expand_fn=stays)
    for off, same in ((0.0, True), (0.1, False)):
        params = cast(built[1], "float32")._replace(generator=cell, expansion=point + off)
        both = roll_out(model, params, jnp.asarray(spikes[0], "float32"), KEY)
        assert (np.abs(both.log_rates - both.switching_log_rates).max() < 1e-5) == same


def test_the_encoder_reads_both_ways_and_the_controller_looks_back(built, spikes):
    """The last bin changes g_0 and the first input. Where codes are what a step shows, inputs follow what was before.

    The controller never sees the linear system: other expansion points change no input.
    """
    model, params = built[0], cast(built[1], "float32")
    counts = jnp.asarray(spikes[0], "float32")
    plain = roll_out(model, params, counts)
    other = roll_out(model, params, counts.at[-1, 0].add(3.0))
    assert np.abs(plain.start_mean - other.start_mean).max() > 1e-4
    assert np.abs(plain.input_mean[0] - other.input_mean[0]).max() > 1e-6
    assert np.array_equal(plain.inputs, plain.input_mean)  # without a key, means

    shows = dataclasses.replace(model, encode_fn=show_spikes)
    plain = roll_out(shows, params, counts)
    other = roll_out(shows, params, counts.at[3].add(1.0))
    assert np.array_equal(plain.inputs[:3], other.inputs[:3])
    assert (np.abs(plain.inputs[3:] - other.inputs[3:]) > 0).all()
    other = roll_out(shows, params._replace(factors=2 * params.factors), counts)
    assert (np.abs(plain.inputs[0] - other.inputs[0]) > 0).all()  # what else the controller saw first was the same

    moved = roll_out(shows, params, counts, expansion=plain.states.expansion + 0.5)
    assert np.array_equal(moved.inputs, plain.inputs)
    assert np.abs(moved.switching_log_rates - plain.switching_log_rates).max() > 1e-3


def show_spikes(params, spikes):
    """The start is given, and the code of a step is the spikes of that step."""
    return jnp.full(3, 0.2), jnp.full(3, -2.0), spikes


def test_the_fixed_point_term_moves_generator_and_expansion_network(built, spikes):
    """J3; that these gradients are right, tests/test_jslds.py shows by differences."""
    params = cast(built[1], "float32")
    counts = jnp.asarray(spikes[0], "float32")

    def term(generator, expansion):
        moved = params._replace(generator=generator, expansion=expansion)
        states = lfads_model.roll_out(built[0], moved, counts).states
        return jnp.sum(jnp.square(states.expansion - states.image))

    gradients = jax.jit(jax.grad(term, argnums=(0, 1)))(params.generator, params.expansion)
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients)) > 0


# Training and inference


def test_training_lowers_the_loss_and_weights_come_back(fitted, spikes):
    """The same numbers after a file's worth of arrays; both divergences are above 0."""
    assert np.mean(fitted.losses[-10:]) < np.mean(fitted.losses[:10])
    found = lfads.infer(fitted.model, fitted.params, spikes)
    model, params = lfads.as_params(lfads.as_arrays(fitted.params), CONFIG)
    assert model == fitted.model
    again = lfads.infer(model, params, spikes)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    assert found.rates.shape == spikes.shape
    assert {leaf.dtype for leaf in found} == {np.dtype("float64")}
    with pytest.raises(ValueError, match=r"hold encoder\.start\.kernel .*, got none"):
        lfads.as_params({"log_rates.1": np.zeros(N_NEURONS)} | {k: a for k, a in lfads.as_arrays(params).items()
                         if k != "encoder.start.kernel"}, CONFIG)  # fmt: skip


def test_every_weight_is_trained(fitted):
    """J3: none stays as it was built, those of the expansion network included."""
    start = lfads_model.build_lfads(jax.random.split(KEY)[0], N_NEURONS, CONFIG)[1]
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start, fitted.params)
    assert [path for path, by in jax.tree_util.tree_leaves_with_path(moved) if not by > 1e-4] == []


def test_what_is_held_out_stays_out(fitted, spikes):
    """No trial is in both parts, none is lost, and what is inferred of a trial does not depend on others."""
    parts = lfads_training.split_spikes(KEY, np.arange(20)[:, None, None] * np.ones((1, 2, 3), int))
    ids = [set(part.spikes[:, 0, 0].tolist()) for part in parts]
    assert (len(ids[1]), ids[0] & ids[1], ids[0] | ids[1]) == (2, set(), set(range(20)))
    found = lfads.infer(fitted.model, fitted.params, spikes)
    changed = spikes.copy()
    changed[1:] = 0
    for all_trials, other in zip(found, lfads.infer(fitted.model, fitted.params, changed), strict=True):
        np.testing.assert_allclose(other[0], all_trials[0], atol=1e-12)


def test_a_model_is_judged_by_what_it_says(fitted, spikes):
    """Numbers agree with scipy's; the control with shuffled points has other rates."""
    given = lfads_training.Spikes(spikes, np.full(spikes.shape, 1.0) + np.arange(N_TRIALS)[:, None, None])
    mean_counts = lfads.mean_counts(spikes)
    found, said = lfads_training.evaluate(KEY, lfads_training.Network(*fitted[:2]), given, mean_counts)
    assert said["nll"]["rnn"] == pytest.approx(-stats.poisson.logpmf(spikes, found.rates).mean())
    assert said["nll"]["mean_counts"] == pytest.approx(-stats.poisson.logpmf(spikes, mean_counts).mean())
    gain = said["nll"]["mean_counts"] - said["nll"]["jslds"]
    assert said["bits_per_spike"]["jslds"] == pytest.approx(gain * spikes.size / spikes.sum() / np.log(2))
    assert min(said["kl"].values()) > 0
    with jax.enable_x64(True):  # the control is the linear system where points stay in order
        generator = cast(fitted.params.generator, "float64")
        same = lfads_training._follow(fitted.model, generator, found.start, found.inputs, found.expansion)
        np.testing.assert_allclose(same, found.switching, atol=1e-12)
    assert abs(said["shuffled_points"]["relative_error"] - said["relative_error"]) > 1e-3
    about = given.rates - given.rates.mean((0, 1))
    assert said["r2"]["rnn"] == pytest.approx(1 - ((found.rates - given.rates) ** 2).sum() / (about**2).sum())


def test_shuffled_trials_keep_each_neuron(spikes):
    mixed = lfads_training.shuffle_neurons(KEY, lfads_training.Spikes(spikes, spikes + 0.5))
    rows = np.lexsort(spikes[:, ::-1, 0].T), np.lexsort(mixed.spikes[:, ::-1, 0].T)
    assert np.array_equal(spikes[rows[0], :, 0], mixed.spikes[rows[1], :, 0])
    assert np.array_equal(mixed.rates, mixed.spikes + 0.5)
    assert not np.array_equal(mixed.spikes, spikes)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([[[1, 2]], [[1, 2], [3, 4]]], "trials of one length"),
        (-np.ones((2, 3, 4)), "they hold -1.0"),
        (np.full((2, 3, 4), 0.5), "they hold 0.5"),
        (np.full((2, 3, 4), np.nan), "must be finite"),
        (np.ones((3, 4)), r"\(n_trials, n_time, n_neurons\), at least one of each, got \(3, 4\)"),
        (np.ones((0, 3, 4)), "at least one of each"),
        ("spikes", "must be real numbers"),
    ],
)
def test_what_is_no_count_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        lfads.fit_lfads(KEY, wrong)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"dropout": 1.0}, "dropout must be 0 or more and less than 1"),
        ({"kl_warm_up": (5, 2)}, "kl_warm_up must be two updates"),
        ({"clip": 0.0}, "clip must be positive"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(spikes, change, said):
    with pytest.raises(ValueError, match=said):
        lfads.fit_lfads(KEY, spikes, dataclasses.replace(SMALL, **change))
    with pytest.raises(ValueError, match="n_factors must be a positive integer"):
        lfads_model.LfadsConfig(n_factors=0)


def test_other_neurons_and_dropout_without_a_key_are_refused(built):
    with pytest.raises(ValueError, match="must be of 4 neurons"):
        lfads.infer(*built, np.ones((2, 3, 5), int))
    with pytest.raises(ValueError, match=r"\(n_time, n_neurons = 4\)"):
        lfads_model.roll_out(*built, jnp.ones((3, 5)))
    with pytest.raises(ValueError, match="needs a key"):
        lfads_model.roll_out(*built, jnp.ones((3, 4)), dropout=0.1)


# The spiking integrator


def test_the_integrator_holds_the_sum_of_its_inputs():
    """Rates are those of tanh units at the running sum, up to the error of the fit, and counts are Poisson about them.

    The held sum is off by at most 0.03 a bin within the reach, so by less than 0.75 after 25. Counts: 5 standard
    errors.
    """
    config = spiking_integrator.SpikingIntegratorConfig()
    network = spiking_integrator.build_integrator(KEY, config)
    held = np.linspace(-3.5, 3.5, 50)
    states = np.tanh(np.outer(held, network.gain) + network.threshold)
    assert np.abs(states @ network.sum_weights - held).max() < 0.03
    batch = spiking_integrator.sample_batch(KEY, config, network, 32)
    hidden = np.asarray(batch.rates, np.float64) / (config.max_rate * config.dt) * 2 - 1
    assert np.abs(hidden @ network.sum_weights - np.cumsum(batch.inputs[..., 0], axis=1)).max() < 0.75
    wanted = np.tanh(np.asarray(batch.targets[:, :1]) * network.gain + network.threshold)
    np.testing.assert_allclose(hidden[:, :1], wanted, atol=1e-2)  # the first bin: the sum began 0.03 off at most
    error = np.sqrt(batch.rates.sum())
    assert abs(float(batch.spikes.sum()) - float(batch.rates.sum())) < 5 * error
    assert 1.3 < batch.spikes.mean() < 1.9
    with pytest.raises(ValueError, match="n_time must be a positive integer"):
        spiking_integrator.SpikingIntegratorConfig(n_time=0)


# The packaged networks


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """`lfads` with the packaged networks and few trials."""
    out = tmp_path_factory.mktemp("lfads")
    printed = stringio.StringIO()
    with contextlib.redirect_stdout(printed):
        assert cli.main(["lfads", "--trials", "32", "--out", str(out), "--quiet"]) == 0
    return out, printed.getvalue(), json.loads((out / "report.json").read_text())


def test_the_packaged_networks_meet_their_bars(job):
    """J10: the likelihood of the linear system within 2 % of the generator's, both divergences above 0, R2 in both.

    A slow mode, as an integrator needs. With expansion points in another order the rates are lost.
    """
    said = job[2]
    assert abs(said["nll_excess"]) < 0.02
    assert said["bits_per_spike"]["jslds"] > 0.98 * said["bits_per_spike"]["rnn"] > 0
    assert min(said["kl"].values()) > 0
    assert min(said["r2"].values()) > 0.95
    assert said["input_correlation"] > 0.6
    assert abs(said["eigenvalues"][0] - 1) < 0.05
    assert 1 - said["shuffled_points"]["r2"] > 10 * (1 - said["r2"]["jslds"])
    assert said["training"]["seed"] == 0


def test_the_command_writes_what_it_says(job):
    out, printed, said = job
    assert {file.name for file in out.iterdir()} == {
        "report.json", "inferred.npz", "rates.png", "factors.png", "inputs.png"}  # fmt: skip
    arrays = io.load(out / "inferred.npz")[0]
    assert arrays["rates"].shape == arrays["spikes"].shape == (32, 25, 100)
    assert f"{said['r2']['jslds']:.4f}" in printed


def test_a_users_spikes_are_trained_on(tmp_path, capsys, spikes, fitted, monkeypatch):
    """From a file to figures; data that are no counts, and data without --train, are one line and exit status 2."""

    def trained(seed, given, recipe, **fit):
        counts = lfads.check_spikes(given.spikes)
        provenance = {"task": "a user's", "seed": seed, "recipe": dataclasses.asdict(SMALL), "n_trials": len(counts)}
        return {**lfads.as_arrays(fitted.params), "mean_counts": lfads.mean_counts(counts)}, provenance

    monkeypatch.setattr(lfads_training, "train_network", trained)  # the real one is compiled by `fitted`
    np.save(tmp_path / "spikes.npy", np.tile(spikes, (10, 1, 1)))
    command = ["lfads", "--data", str(tmp_path / "spikes.npy"), "--out", str(tmp_path / "out"), "--quiet"]
    assert cli.main([*command, "--train"]) == 0
    said = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "r2" not in said
    assert said["training"]["n_trials"] == 144  # 16 of 160 are held out
    assert (tmp_path / "out" / "weights.npz").exists()
    assert not (tmp_path / "out" / "inputs.png").exists()
    assert cli.main(command) == 2
    np.save(tmp_path / "spikes.npy", spikes - 1.0)
    assert cli.main([*command, "--train"]) == 2
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["jaxfp", "jaxfp"]
