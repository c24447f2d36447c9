"""Training: the loop is the optimizer's own, and chunks, checkpoints and bars do not change a bit of it."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfp.models import train
from jaxfp.tasks import flip_flop

KEY = jax.random.key(7)
OPTIMIZER = optax.adam(1e-2)
CONFIG = flip_flop.FlipFlopConfig(n_bits=2, n_time=10)
N_STEPS, CHUNK_SIZE = 20, 5


def flip_flop_loss(params, key):
    """A small vanilla network on fresh trials."""
    batch = flip_flop.sample_batch(key, CONFIG, 16, pulse_probability=0.2)

    def step(hidden, inputs):
        hidden = jnp.tanh(hidden @ params["w_rec"].T + inputs @ params["w_in"].T)
        return hidden, hidden @ params["w_out"].T

    _, outputs = jax.lax.scan(step, jnp.zeros((16, 8)), batch.inputs.swapaxes(0, 1))
    return flip_flop.loss(outputs.swapaxes(0, 1), batch.targets)


def noisy_step_loss(params, key):
    """The same network for one step on noise: quicker to compile."""
    key_input, key_target = jax.random.split(key)
    hidden = jnp.tanh(params["w_in"] @ jax.random.normal(key_input, (2,)))
    outputs = params["w_out"] @ jnp.tanh(params["w_rec"] @ hidden)
    return jnp.mean(jnp.square(outputs - jax.random.normal(key_target, (2,))))


def loss_of_two_terms(params, key):
    task, size = noisy_step_loss(params, key), jnp.sum(jnp.square(params["w_out"]))
    return task + 0.5 * size, {"task": task, "size": size}


@functools.partial(jax.jit, static_argnums=0)
def small_network(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = {"w_rec": (8, 8), "w_in": (8, 2), "w_out": (2, 8)}
    return {name: 0.3 * jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}


def fit(n_steps=N_STEPS, key=KEY, params=None, loss_fn=noisy_step_loss, optimizer=OPTIMIZER, **keywords):
    params = small_network() if params is None else params
    return train.fit(key, loss_fn, params, optimizer, n_steps, **{"chunk_size": CHUNK_SIZE, **keywords})


def assert_same_bits(result, other):
    assert jax.tree.structure(result) == jax.tree.structure(other)
    for leaf, other_leaf in zip(jax.tree.leaves(result), jax.tree.leaves(other), strict=True):
        assert leaf.dtype == other_leaf.dtype
        np.testing.assert_array_equal(leaf, other_leaf)


@pytest.fixture(scope="module")
def uninterrupted():
    return fit()


class StopError(Exception):
    pass


def record_chunks(monkeypatch, n_chunks=None):
    """A list that gets the first and last step of each chunk; once n_chunks are trained, but not saved, StopError."""
    chunks = []
    train_chunk = train._train_chunk

    def recorded(*arguments):
        result = train_chunk(*arguments)
        chunks.append((int(arguments[-1][0]), int(arguments[-1][-1])))
        if len(chunks) == n_chunks:
            raise StopError
        return result

    monkeypatch.setattr(train, "_train_chunk", recorded)
    return chunks


def test_step_i_is_one_optax_update_on_the_data_of_fold_in_key_i():
    @jax.jit
    def update(params, state, key):
        loss, gradient = jax.value_and_grad(noisy_step_loss)(params, key)
        updates, state = OPTIMIZER.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    params, losses = small_network(), []
    state = OPTIMIZER.init(params)
    with jax.numpy_dtype_promotion("standard"):
        for step in range(10):
            params, state, loss = update(params, state, jax.random.fold_in(KEY, step))
            losses.append(loss)
    result = fit(10)
    # The two programs round differently, and Adam divides by the size of the gradient.
    np.testing.assert_allclose(result.losses, losses, rtol=1e-4)
    for name in params:
        np.testing.assert_allclose(result.params[name], params[name], atol=1e-4)


def test_gradient_descent_on_a_parabola_has_the_closed_form():
    def parabola(params, key):
        return params**2 / 2

    result = train.fit(KEY, parabola, 8.0, optax.sgd(0.5), 4)
    assert result.params == 0.5
    np.testing.assert_array_equal(result.losses, [32.0, 8.0, 2.0, 0.5])
    assert isinstance(result.losses, np.ndarray)


def test_every_step_sees_fresh_data():
    def draw(params, key):
        return 0.0 * params + jax.random.uniform(key)

    losses = train.fit(KEY, draw, jnp.zeros(()), optax.sgd(0.1), 12, chunk_size=5).losses
    np.testing.assert_array_equal(losses, [jax.random.uniform(jax.random.fold_in(KEY, step)) for step in range(12)])


def test_training_learns():
    losses = fit(200, loss_fn=flip_flop_loss, chunk_size=200).losses
    assert losses[-20:].mean() < 0.5 * losses[:20].mean()


def test_a_bar_changes_nothing_and_appears_only_when_asked_for(uninterrupted, capsys):
    assert_same_bits(fit(), uninterrupted)
    assert capsys.readouterr() == ("", "")
    assert_same_bits(fit(progress=True), uninterrupted)
    shown = capsys.readouterr().out
    assert "100%" in shown
    assert f"loss {uninterrupted.losses[-1]:.3g}" in shown


def test_a_checkpoint_changes_nothing(uninterrupted, tmp_path):
    assert_same_bits(fit(checkpoint=tmp_path / "made" / "here"), uninterrupted)


@pytest.mark.parametrize("n_chunks", [1, 3])
def test_a_stopped_run_resumes_after_its_last_saved_chunk_and_ends_in_the_same_bits(
    n_chunks, uninterrupted, tmp_path, monkeypatch
):
    with monkeypatch.context() as stopped:
        record_chunks(stopped, n_chunks)
        with pytest.raises(StopError):
            fit(checkpoint=tmp_path)

    chunks = record_chunks(monkeypatch)
    assert_same_bits(fit(checkpoint=tmp_path), uninterrupted)
    assert chunks == [(first, first + 4) for first in range(CHUNK_SIZE * (n_chunks - 1), N_STEPS, CHUNK_SIZE)]


def test_a_half_written_checkpoint_is_passed_over(uninterrupted, tmp_path):
    fit(10, checkpoint=tmp_path)
    (tmp_path / "15.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "15.orbax-checkpoint-tmp" / "default").write_text("cut off")
    assert_same_bits(fit(checkpoint=tmp_path), uninterrupted)


def test_a_finished_run_is_read_back_and_a_longer_one_prolongs_it(uninterrupted, tmp_path, monkeypatch, capsys):
    fit(12, checkpoint=tmp_path)
    chunks = record_chunks(monkeypatch)
    assert_same_bits(fit(checkpoint=tmp_path), uninterrupted)
    assert chunks == [(12, 14), (15, 19)]  # back to the boundaries of a run that was not stopped
    monkeypatch.setattr(train, "_train_chunk", None)  # nothing is left to train
    assert_same_bits(fit(checkpoint=tmp_path, progress=True), uninterrupted)
    assert "100%" in capsys.readouterr().out


def test_a_checkpoint_of_another_run_is_refused_and_left_alone(tmp_path):
    saved = fit(10, checkpoint=tmp_path)
    wider = small_network() | {"w_in": jnp.zeros((8, 3))}
    with pytest.raises(ValueError, match=r"another run: params/w_in must have shape \(8, 3\), got \(8, 2\)"):
        fit(10, params=wider, loss_fn=lambda params, key: jnp.sum(params["w_in"]), checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"another run: optimizer_state/.* must have shape"):
        fit(10, optimizer=optax.sgd(0.1), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="another run: it began from another key or other params"):
        fit(10, key=jax.random.key(8), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="another run: it began from another key or other params"):
        fit(10, params=small_network(1), checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"n_steps must be at least the 10 steps in checkpoint .*, got 9"):
        fit(9, checkpoint=tmp_path)
    assert_same_bits(fit(10, checkpoint=tmp_path), saved)


def test_a_relative_directory_and_one_newest_state_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(15, checkpoint="run")
    assert [path.name for path in pathlib.Path("run").iterdir()] == ["15"]


N_NETWORKS = 3


@functools.cache
def ensemble():
    """Keys and params of three networks."""
    members = [small_network(seed) for seed in range(N_NETWORKS)]
    return jax.random.split(KEY, N_NETWORKS), jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


@functools.cache
def trained_ensemble():
    keys, params = ensemble()
    return fit(10, key=keys, params=params)


def member_of(tree, member):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[member], tree)


def test_an_ensemble_in_one_program_is_its_members_trained_apart():
    """Each with its own key; losses (n_networks, n_steps), and an optimizer state of each."""
    keys, params = ensemble()
    together = trained_ensemble()
    assert together.losses.shape == (N_NETWORKS, 10)
    for member in range(N_NETWORKS):
        alone = fit(10, key=keys[member], params=member_of(params, member))
        # Batched products round differently, and Adam divides by the size of the gradient.
        np.testing.assert_allclose(together.losses[member], alone.losses, rtol=1e-4)
        for name in params:
            np.testing.assert_allclose(together.params[name][member], alone.params[name], atol=1e-4)
        assert jax.tree.structure(together.optimizer_state) == jax.tree.structure(alone.optimizer_state)


def test_a_network_that_diverges_changes_no_bit_of_another():
    keys, params = ensemble()
    broken = params | {"w_rec": params["w_rec"].at[1, 0, 0].set(jnp.nan)}
    together = fit(10, key=keys, params=broken)
    assert np.isnan(together.losses[1]).all()
    for member in (0, 2):
        assert_same_bits(member_of(together, member), member_of(trained_ensemble(), member))


def test_an_ensemble_is_resumed_with_a_bar_in_the_same_bits(tmp_path, capsys):
    keys, params = ensemble()
    fit(5, key=keys, params=params, checkpoint=tmp_path)
    resumed = fit(10, key=keys, params=params, checkpoint=tmp_path, progress=True)
    assert_same_bits(resumed, trained_ensemble())
    assert f"loss {np.median(resumed.losses[:, -1]):.3g}" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds another run"):
        fit(10, key=keys[:2], params=jax.tree.map(lambda x: x[:2], params), checkpoint=tmp_path)


def test_terms_are_reported_and_change_nothing(tmp_path, capsys):
    """Those of the loss, in every step; alone, of an ensemble, resumed, and in the bar."""

    def total(params, key):
        return loss_of_two_terms(params, key)[0]

    result = fit(10, loss_fn=loss_of_two_terms)
    plain = fit(10, loss_fn=total)
    assert_same_bits(result._replace(terms=None), plain)
    assert plain.terms is None
    np.testing.assert_allclose(result.terms["task"] + 0.5 * result.terms["size"], result.losses, rtol=1e-6)
    assert {name: term.dtype for name, term in result.terms.items()} == dict.fromkeys(("task", "size"), np.float32)

    fit(5, loss_fn=loss_of_two_terms, checkpoint=tmp_path)
    assert_same_bits(fit(10, loss_fn=loss_of_two_terms, checkpoint=tmp_path, progress=True), result)
    assert f"size {result.terms['size'][-1]:.3g}" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"another run: terms/task must have shape None, got \(10,\)"):
        fit(10, loss_fn=total, checkpoint=tmp_path)

    keys, params = ensemble()
    together = fit(10, key=keys, params=params, loss_fn=loss_of_two_terms)
    assert together.terms["size"].shape == (N_NETWORKS, 10)
    np.testing.assert_allclose(together.terms["size"][:, 0], np.sum(np.square(params["w_out"]), (1, 2)), rtol=1e-6)


def test_terms_are_scalars():
    def wide(params, key):
        return noisy_step_loss(params, key), {"weights": params["w_in"]}

    with pytest.raises(ValueError, match=r"terms of loss_fn must be scalars, got .* \(8, 2\) as weights"):
        fit(1, loss_fn=wide)


def test_an_ensemble_needs_params_for_each_key():
    keys, params = ensemble()
    with pytest.raises(ValueError, match=r"params\['w_in'\] must have a leading axis of 3 networks, .* got \(8, 2\)"):
        fit(1, key=keys, params=params | {"w_in": jnp.zeros((8, 2))})
    with pytest.raises(ValueError, match=r"loss_fn must return a scalar, got an array of shape \(8, 8\)"):
        fit(1, key=keys, params=params, loss_fn=lambda params, key: params["w_rec"])


def test_a_second_run_compiles_nothing():
    calls = []

    def counted(params, key):
        calls.append(None)
        return noisy_step_loss(params, key)

    fit(10, loss_fn=counted)
    n_calls = len(calls)
    train._train_chunk(KEY, counted, small_network(1), OPTIMIZER.init(small_network()), OPTIMIZER, jnp.arange(5, 10))
    assert len(calls) == n_calls


def test_training_follows_float64():
    params = {name: np.asarray(leaf, np.float64) for name, leaf in small_network().items()}
    with jax.enable_x64(True):
        result = fit(CHUNK_SIZE, params=params)
        assert {leaf.dtype for leaf in jax.tree.leaves((result.params, result.losses))} == {np.dtype(np.float64)}
        start = jax.jit(noisy_step_loss)(params, jax.random.fold_in(KEY, 0))
    np.testing.assert_allclose(result.losses[0], start)


def test_a_diverging_loss_is_data():
    def explode(params, key):
        return jnp.sum(jnp.exp(params))

    losses = train.fit(KEY, explode, jnp.ones(2), optax.sgd(-10.0), 5).losses
    assert np.isfinite(losses[0])
    assert not np.isfinite(losses[-1])


def test_wrong_arguments_are_refused():
    for wrong in ({"n_steps": 0}, {"chunk_size": 0}):
        with pytest.raises(ValueError, match="n_steps and chunk_size must be at least 1"):
            fit(**wrong)
    with pytest.raises(ValueError, match=r"loss_fn must return a scalar, got an array of shape \(8, 8\)"):
        fit(loss_fn=lambda params, key: params["w_rec"])


def test_strict_promotion_reaches_the_loss_but_not_optax():
    with jax.numpy_dtype_promotion("strict"):
        fit(2, chunk_size=2)

        def mixed(params, key):
            return jnp.sum(params["w_rec"] * jnp.arange(8)[None, :])

        with pytest.raises(ValueError, match="no available implicit dtype promotion path"):
            fit(2, loss_fn=mixed)
