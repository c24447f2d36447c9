"""One training loop: any optax optimizer, any loss, fresh data in every step.

Step i draws its data from fold_in(key, i) and nothing else, so what step i does depends only on the state before it:

  loss_i, g_i = value_and_grad(loss_fn)(params_i, fold_in(key, i))
  updates_i, s_{i+1} = optimizer.update(g_i, s_i, params_i);    params_{i+1} = params_i + updates_i

`train_steps` is that, traceable; `fit` runs it on the host in chunks, between which it reports and saves. The chunks
are the same with and without progress and checkpoints, so neither changes a bit of the result. Given many keys and
params with a leading axis, it trains an ensemble of networks in one program, `train_steps` under `vmap`.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.progress

from jaxfp.types import Array, Params

LossFn = Callable[[Params, jax.Array], Any]


class FitResult(NamedTuple):
    """What training leaves behind.

    Attributes:
      params: pytree like the one training began with.
      optimizer_state: what the optimizer would go on from.
      losses: array of shape (n_steps,), the loss in each step, before its update. NaN from some step on: it diverged.
      terms: pytree of arrays of the same shape, what `loss_fn` says beside the loss; None if it says no more.

    Of an ensemble, everything has a leading axis n_networks.
    """

    params: Params
    optimizer_state: Any
    losses: Array
    terms: Any = None


def train_steps(
    key: jax.Array,
    loss_fn: LossFn,
    params: Params,
    optimizer_state: Any,
    optimizer: optax.GradientTransformation,
    steps: jax.Array,
) -> FitResult:
    """Take the numbered training steps, in their order: traceable, so a `vmap` trains an ensemble.

    Args:
      key: typed PRNG key of the whole run; step i uses fold_in(key, i).
      loss_fn: `(params, key) -> loss`, a scalar, or `(loss, terms)`; draws its data from the key.
      params: pytree of float arrays.
      optimizer_state: `optimizer.init(params)`, or where earlier steps ended.
      optimizer: optax gradient transformation.
      steps: integer array of shape (n_steps,), the numbers of the steps to take.

    Returns:
      FitResult after these steps.

    Example:
      >>> optimizer = optax.sgd(0.5)
      >>> def train(key, params):
      ...   steps = jnp.arange(3)
      ...   return train_steps(key, lambda p, key: p**2 / 2, params, optimizer.init(params), optimizer, steps)
      >>> jax.vmap(train)(jax.random.split(jax.random.key(0), 2), jnp.array([8.0, 16.0])).params.tolist()
      [1.0, 2.0]
    """

    def take_step(carry: tuple[Params, Any], step: jax.Array) -> tuple[tuple[Params, Any], tuple[jax.Array, Any]]:
        params, state = carry
        loss_and_terms = functools.partial(_loss_and_terms, loss_fn)
        said, gradient = jax.value_and_grad(loss_and_terms, has_aux=True)(params, jax.random.fold_in(key, step))
        # optax multiplies its integer counters with floats, which a caller's strict promotion forbids.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), said

    (params, optimizer_state), (losses, terms) = jax.lax.scan(take_step, (params, optimizer_state), steps)
    return FitResult(params, optimizer_state, losses, terms)


def _loss_and_terms(loss_fn: LossFn, params: Params, key: jax.Array) -> tuple[jax.Array, Any]:
    """Terms are None if there are none."""
    said = loss_fn(params, key)
    return said if isinstance(said, tuple) else (said, None)


def fit(
    key: jax.Array,
    loss_fn: LossFn,
    params: Params,
    optimizer: optax.GradientTransformation,
    n_steps: int,
    *,
    chunk_size: int = 100,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> FitResult:
    """Train for `n_steps` steps, with a bar on request and a checkpoint to resume from.

    A run that was stopped goes on from the last finished chunk of its checkpoint and ends in the same bits as one that
    was not. A later call with a larger `n_steps` prolongs it.

    Args:
      key: typed PRNG key of the whole run; step i uses fold_in(key, i). Or (n_networks,) keys: an ensemble, each
        network trained as it would be alone, all in one program; a network that diverges leaves the others alone.
      loss_fn: `(params, key) -> loss` of one network, a scalar; draws its data from the key. Or `(loss, terms)`, with a
        pytree of scalars to report beside it, e.g. those of a sum. A named function: a fresh lambda in each call
        compiles again.
      params: pytree of float arrays to begin with; of an ensemble, each with a leading axis n_networks.
      optimizer: optax gradient transformation.
      n_steps: number of steps, at least 1.
      chunk_size: steps from one report and save to the next; compiled once, and once more for a shorter last chunk.
      checkpoint: directory for the newest state (orbax-checkpoint, which replaces it as a whole or not at all), made if
        missing; None saves nothing. It knows its run by key, initial params and optimizer state shapes: a change of
        `loss_fn` or of a learning rate alone is not seen.
      progress: show a bar, with the newest loss and terms; of an ensemble, their medians.

    Returns:
      FitResult with `losses` and each of `terms` (n_steps,) or (n_networks, n_steps), the resumed part included.

    Raises:
      ValueError: if a number is out of range, `loss_fn` does not return a scalar, `params` lack the axis of the keys,
        or `checkpoint` holds another run or more than `n_steps` steps.

    Example:
      >>> def distance(params, key):
      ...   return jnp.sum((params - 3.0 - jax.random.normal(key, (2,))) ** 2)
      >>> result = fit(jax.random.key(0), distance, jnp.zeros(2), optax.adam(0.1), 300)
      >>> result.losses.shape, bool(jnp.all(jnp.abs(result.params - 3.0) < 1.0))
      ((300,), True)
    """
    if n_steps < 1 or chunk_size < 1:
        raise ValueError(f"n_steps and chunk_size must be at least 1, got {n_steps} and {chunk_size}.")
    params = jax.tree.map(jnp.asarray, params)
    networks = jnp.shape(key)  # () or (n_networks,)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params) if networks else ():
        if leaf.shape[:1] != networks:
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} must have a leading axis of {networks[0]} networks, as many as "
                f"there are keys, got {leaf.shape}."
            )
    said = functools.partial(_loss_and_terms, loss_fn)
    loss, terms = jax.eval_shape(jax.vmap(said) if networks else said, params, key)
    if loss.shape != networks:
        raise ValueError(f"loss_fn must return a scalar, got an array of shape {loss.shape[len(networks) :]}.")
    for path, term in jax.tree_util.tree_leaves_with_path(terms):
        if term.shape != networks:
            shape = term.shape[len(networks) :]
            raise ValueError(f"terms of loss_fn must be scalars, got an array of shape {shape} as {_name(path)}.")

    start = (jax.vmap(optimizer.init) if networks else optimizer.init)(params)
    losses, terms = jax.tree.map(lambda said: np.zeros((*networks, 0), said.dtype), (loss, terms))
    result = FitResult(params, start, losses, terms)
    train_chunk = _train_chunks if networks else _train_chunk
    with _open_checkpoint(checkpoint) as saved, _open_bar(n_steps, progress) as show:
        run = _fingerprint(key, params)
        result = _restore(saved, result, run, n_steps)
        first = _n_done(result)
        if first:
            show(result)
        while first < n_steps:
            # Boundaries are multiples of chunk_size wherever a run was stopped: resuming runs the same programs.
            last = min(first - first % chunk_size + chunk_size, n_steps)
            chunk = train_chunk(key, loss_fn, result.params, result.optimizer_state, optimizer, jnp.arange(first, last))
            earlier, newest = ((each.losses, each.terms) for each in (result, chunk))
            losses, terms = jax.tree.map(lambda *parts: np.concatenate(parts, axis=-1), earlier, newest)
            result = chunk._replace(losses=losses, terms=terms)
            _save(saved, result, run)
            show(result)
            first = last
    return result


_train_chunk = jax.jit(train_steps, static_argnames=("loss_fn", "optimizer"))


@functools.partial(jax.jit, static_argnums=(1, 4))
def _train_chunks(
    keys: jax.Array, loss_fn: LossFn, params: Params, states: Any, optimizer: Any, steps: jax.Array
) -> FitResult:
    def one(key: jax.Array, params: Params, state: Any) -> FitResult:
        return train_steps(key, loss_fn, params, state, optimizer, steps)

    return jax.vmap(one)(keys, params, states)


def _n_done(result: FitResult) -> int:
    """Steps taken so far."""
    return result.losses.shape[-1]


@contextlib.contextmanager
def _open_bar(n_steps: int, progress: bool) -> Iterator[Callable[[FitResult], None]]:
    """A function that is told what is done so far."""
    if not progress:
        yield lambda result: None
        return
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.TextColumn("{task.fields[said]}"))
    with rich.progress.Progress(*columns) as bar:
        task = bar.add_task("training", total=n_steps, said="")
        yield lambda result: bar.update(task, completed=_n_done(result), said=_newest(result))


def _newest(result: FitResult) -> str:
    """The newest loss and its terms in words."""
    named = [("loss", result.losses)]
    named += [(_name(path), term) for path, term in jax.tree_util.tree_leaves_with_path(result.terms)]
    # one below the other: side by side they would push the bar off a narrow terminal
    return "\n".join(f"{name} {np.median(said[..., -1]):.3g}" for name, said in named)


@contextlib.contextmanager
def _open_checkpoint(checkpoint: str | os.PathLike[str] | None) -> Iterator[Any]:
    """An orbax manager of the newest state, or None."""
    if checkpoint is None:
        yield None
        return
    import orbax.checkpoint as ocp  # takes a second to import, which only those who save should wait for

    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    path = pathlib.Path(checkpoint).absolute()
    with ocp.CheckpointManager(path, item_handlers=ocp.StandardCheckpointHandler(), options=options) as manager:
        yield manager


def _fingerprint(key: jax.Array, params: Params) -> np.ndarray:
    """What a run is known by: sha256 (32 bytes) of its key and of the params it began with."""
    digest = hashlib.sha256(np.asarray(jax.random.key_data(key)).tobytes())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
        digest.update(np.asarray(leaf).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _named_arrays(result: FitResult, run: np.ndarray) -> dict[str, np.ndarray]:
    """A checkpoint is a flat dictionary, so that what differs has a name."""
    leaves = jax.tree_util.tree_leaves_with_path(result._asdict())
    return {_name(path): np.asarray(leaf) for path, leaf in leaves} | {"run": run}


def _save(saved: Any, result: FitResult, run: np.ndarray) -> None:
    if saved is None:
        return
    import orbax.checkpoint as ocp

    saved.save(_n_done(result), args=ocp.args.StandardSave(_named_arrays(result, run)))


def _restore(saved: Any, start: FitResult, run: np.ndarray, n_steps: int) -> FitResult:
    """The newest saved state, or `start` if there is none."""
    newest = None if saved is None else saved.latest_step()
    if newest is None:
        return start
    if newest > n_steps:
        raise ValueError(f"n_steps must be at least the {newest} steps in checkpoint {saved.directory}, got {n_steps}.")
    # Shapes are compared before anything is read: orbax's own failure leaves threads that complain at exit.
    grown = {name: (*start.losses.shape[:-1], newest) for name in _named_arrays(start, run) if _is_history(name)}
    wanted = {name: array.shape for name, array in _named_arrays(start, run).items()} | grown
    stored = {name: tuple(array.shape) for name, array in saved.item_metadata(newest).tree.items()}
    if wanted != stored:
        name = max(name for name in wanted | stored if wanted.get(name) != stored.get(name))
        raise ValueError(
            f"checkpoint {saved.directory} holds another run: {name} must have shape {wanted.get(name)}, "
            f"got {stored.get(name)} (None: there is no such array)."
        )
    arrays = saved.restore(newest)
    if not np.array_equal(arrays["run"], run):
        raise ValueError(f"checkpoint {saved.directory} holds another run: it began from another key or other params.")

    def restored(path: tuple[Any, ...], _: Any) -> Any:
        name = _name(path)
        return arrays[name] if _is_history(name) else jnp.asarray(arrays[name])

    return FitResult(**jax.tree_util.tree_map_with_path(restored, start._asdict()))


def _is_history(name: str) -> bool:
    """Whether an array of a checkpoint grows with the steps."""
    return name.split("/")[0] in ("losses", "terms")


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
