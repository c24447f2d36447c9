"""The networks that are searched: trained or planted from a seed, made once and kept as npz.

    python -m benchmarks networks --networks FOLDER gru64_slow sine256 rank2_512=phase_rank2_512.npz

makes those that are not in FOLDER yet, all that need no file of somebody else's by default, and prints what each does.
NAME=FILE takes a network from its published file: rank2_512 (arrays rnn.m, rnn.n, rnn.w_inp) and fullrank_100
(rnn.w_rec, rnn.w_inp), both of their authors' equation x' = 0.9 x + 0.1 (W tanh(x) + W_in u).

FOLDER/NAME.npz holds the arrays of `jaxfp.from_arrays` (w_rec, or m and n; w_in, b, b_rec), of memories also w_out and
b_out, `candidates` (1024, n_hidden) float32, and where a network is searched at inputs `inputs` (1024, n_inputs). Kind,
alpha and form are in `SPECS`. Those that were trained come with this package, without candidates, in `networks/`, since
the same seed makes another network on another machine: on one tanh256_slow had 23 fixed points, the one kept has 5.
What is in neither place is made.

Candidates are states of trajectories plus Gaussian noise of standard deviation 0.5, drawn with the same keys for every
network; the first K of them where K <= 1024, and all drawn anew where K is larger.

  tanhN, lstm32, gru64   the 3-bit memory as `jaxfp flip-flop --train --seed 0` trains it; trajectories: 128 trials of
                         64 steps. tanh100, lstm32 and gru64 are the packaged ones. tanh256 and tanh512 have the
                         learning rate 3e-3: with 1e-2 tanh512 does not learn the task
  tanh256_slow           with 1e-2: it holds the memories in trials, but three of eight are slow points; where they
                         and the lanes around them go is hard to tell
  gru64_slow             the same task with a pulse on two lines of three in every step, trials of 25 steps and no noise
                         on the state: the update gate closes, and slow modes remain
  sine256                x' = x + dt (-x + W tanh x + W_in u + b), dt 0.5, 51 constant inputs, each its own frequency;
                         trajectories: the orbits, 40 to 200 time constants after the start; candidate i has input
                         i % 51
  plantedN               h' = tanh(W h), W = 1.5 G / sqrt(N) + 5 / N sum_k xi_k xi_k', G random, the 8 patterns of signs
                         xi_k orthogonal (rows of a Hadamard matrix, each column with a random sign): +xi_k and -xi_k
                         are memories; trajectories: 64 steps from 64 memories with noise 1 and 64 random states of
                         [-1, 1]^N
"""

import argparse
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg

import jaxfp
from jaxfp import io
from jaxfp.cli import flip_flop
from jaxfp.models import train
from jaxfp.tasks import flip_flop as task
from jaxfp.types import Params, StepFn

PACKAGED = pathlib.Path(__file__).parent / "networks"
N_CANDIDATES, NOISE = 1024, 0.5
N_SINE, DT = 51, 0.5


class Network(NamedTuple):
    """What is searched.

    Attributes:
      name: key of `SPECS`.
      step_fn: map of one state.
      params: of the step.
      candidates: (n_candidates, n_hidden) float32.
      inputs: (n_candidates, n_inputs) float32, or None.
    """

    name: str
    step_fn: StepFn
    params: Params
    candidates: np.ndarray
    inputs: np.ndarray | None


class Spec(NamedTuple):
    """How a network is made.

    Attributes:
      kind, alpha, form: of `jaxfp.from_arrays`.
      make: () -> (arrays, provenance), from the seed; None where it is somebody else's.
      draw: (step_fn, params, arrays, n_candidates) -> (candidates, inputs or None).
      check: (step_fn, params, arrays) -> what the network does, JSON-like.
    """

    kind: str
    alpha: float | None
    form: str | None
    make: Callable[[], tuple[dict[str, Any], dict[str, Any]]] | None
    draw: Callable[..., tuple[Any, Any]]
    check: Callable[..., dict[str, Any]]


def load(name: str, folder: pathlib.Path | None = None, n_candidates: int = N_CANDIDATES, dtype: Any = None) -> Network:
    """A network with its candidates; made, and kept in `folder`, if it is there in neither folder.

    Args:
      name: key of `SPECS`.
      folder: of npz files, besides the one that comes with this package.
      n_candidates: how many.
      dtype: of the candidates, in which the searches run; float32 by default.

    Returns:
      Network.

    Raises:
      ValueError: for an unknown name, or somebody else's network whose file was not taken in yet.
    """
    if name not in SPECS:
        raise ValueError(f"networks are {sorted(SPECS)}, got {name!r}.")
    arrays = _arrays(name, folder)
    candidates, inputs = arrays.pop("candidates", None), arrays.pop("inputs", None)
    step_fn, params = _step(name, arrays)
    if candidates is None or n_candidates > len(candidates):
        candidates, inputs = SPECS[name].draw(step_fn, params, arrays, n_candidates)
    candidates = np.asarray(candidates[:n_candidates], dtype or np.float32)
    return Network(name, step_fn, params, candidates, None if inputs is None else np.asarray(inputs[:n_candidates]))


def take_in(name: str, path: pathlib.Path, folder: pathlib.Path) -> None:
    """Keep somebody else's network in our layout.

    Args:
      name: "rank2_512" or "fullrank_100".
      path: of the published file.
      folder: where ours go.

    Raises:
      ValueError: for another name, or a file that is not as published.
    """
    if name not in SPECS or SPECS[name].make:
        raise ValueError(
            f"networks in files of others are {[n for n, s in SPECS.items() if not s.make]}, got {name!r}."
        )
    wanted = {"m": "rnn.m", "n": "rnn.n"} if SPECS[name].kind == "low_rank" else {"w_rec": "rnn.w_rec"}
    arrays = {ours: io.load_array(path, theirs) for ours, theirs in {**wanted, "w_in": "rnn.w_inp"}.items()}
    arrays = {ours: array.T if ours in ("n", "w_in") else array for ours, array in arrays.items()}
    _keep(name, arrays, {"file": path.name}, folder)


def _arrays(name: str, folder: pathlib.Path | None) -> dict[str, Any]:
    """From `folder`, from the package, or made anew."""
    packaged = {"tanh100": "flip_flop_tanh", "lstm32": "flip_flop_lstm", "gru64": "flip_flop_gru"}
    for place in (folder, PACKAGED):
        if place is not None and (place / f"{name}.npz").exists():
            return io.load(place / f"{name}.npz")[0]
    make = SPECS[name].make
    if name in packaged:
        arrays, provenance = io.load_packaged(packaged[name])
    elif make is None:
        raise ValueError(f"{name} is somebody else's: take it in with `networks --networks FOLDER {name}=FILE`.")
    else:
        arrays, provenance = make()
    return arrays if folder is None else _keep(name, arrays, provenance, folder)


def _keep(name: str, arrays: dict[str, Any], provenance: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    step_fn, params = _step(name, arrays)
    candidates, inputs = SPECS[name].draw(step_fn, params, arrays, N_CANDIDATES)
    kept = {**arrays, "candidates": np.asarray(candidates, np.float32)}
    if inputs is not None:
        kept["inputs"] = np.asarray(inputs, np.float32)
    io.save(folder / f"{name}.npz", kept, {**provenance, "does": SPECS[name].check(step_fn, params, arrays)})
    return kept


def _step(name: str, arrays: dict[str, Any]) -> tuple[StepFn, Params]:
    spec = SPECS[name]
    weights = {key: array for key, array in arrays.items() if key in ("w_rec", "w_in", "b", "b_rec", "m", "n")}
    return jaxfp.from_arrays(spec.kind, weights, alpha=spec.alpha, form=spec.form)


def _train_memory(cell: Any, n_units: int, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return flip_flop.train_network(0, cell, n_units, dataclasses.replace(flip_flop.recipe_of(cell), **changes))


def _draw_memory(step_fn: StepFn, params: Params, arrays: Any, n_candidates: int) -> tuple[Any, None]:
    config = task.FlipFlopConfig(n_bits=3, n_time=64)
    pulses = task.sample_batch(jax.random.key(1), config, 128, pulse_probability=0.1).inputs
    n_units = arrays["w_out"].shape[1]
    hidden0 = jnp.zeros(2 * n_units if step_fn.kind == "lstm" else n_units)
    return jaxfp.sample_candidates(
        jax.random.key(2), _simulate(step_fn, params, hidden0, pulses), n_candidates, NOISE
    ), None


def _check_memory(step_fn: StepFn, params: Params, arrays: Any) -> dict[str, Any]:
    network = flip_flop.Network(step_fn, params, (arrays["w_out"], arrays["b_out"]))
    return flip_flop.behaviour(jax.random.key(0), network, flip_flop.Recipe())


_simulate = jax.jit(jaxfp.simulate, static_argnums=0, static_argnames="n_time")


def _sine_drives() -> tuple[jax.Array, jax.Array]:
    """Inputs (51, 1) and angular frequencies (51,), radians per time constant."""
    which = jnp.arange(N_SINE)
    return (which / N_SINE + 0.25)[:, None], 0.1 + 0.5 * which / (N_SINE - 1)


@functools.lru_cache
def _sine_loss(step_fn: StepFn, n_time: int, n_units: int) -> train.LossFn:
    def loss(trained: dict[str, Any], key: jax.Array) -> jax.Array:
        drives, omega = _sine_drives()

        def step(hidden: jax.Array, blur: jax.Array) -> tuple[jax.Array, jax.Array]:
            hidden = jax.vmap(step_fn, (None, 0, 0))(trained["cell"], hidden, drives) + blur
            return hidden, jnp.tanh(hidden)

        blur = 0.02 * DT**0.5 * jax.random.normal(key, (n_time, N_SINE, n_units))
        rates = jax.lax.scan(step, jnp.tile(trained["hidden0"], (N_SINE, 1)), blur)[1]
        time = DT * jnp.arange(1, n_time + 1)
        wrong = rates @ trained["w_out"] + trained["b_out"] - jnp.sin(omega[None, :] * time[:, None])
        weight = omega**-0.5 / jnp.mean(omega**-0.5)  # slow inputs are the hard ones
        return jnp.mean(jnp.where(time > 2, (wrong**2 @ weight) / N_SINE, 0.0)) + 0.1 * jnp.mean(rates**2)

    return loss


def _train_sine(
    n_units: int,
    stages: Sequence[tuple[float, float, int]] = ((15, 5e-3, 600), (30, 4e-3, 600), (63, 3e-3, 800), (126, 2e-3, 700)),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Longer and longer runs; a stage is (time constants, learning rate, updates)."""
    keys = jax.random.split(jax.random.key(0), 6)
    step_fn, cell = jaxfp.from_arrays(
        "euler",
        {
            "w_rec": 0.8 / n_units**0.5 * jax.random.normal(keys[0], (n_units, n_units)),
            "w_in": 0.3 * jax.random.normal(keys[1], (n_units, 1)),
            "b": 0.1 * jax.random.normal(keys[2], (n_units,)),
        },
        alpha=DT,
        form="current",
    )
    trained = {
        "cell": cell,
        "hidden0": 0.5 * jax.random.normal(keys[3], (n_units,)),
        "w_out": jax.random.normal(keys[4], (n_units,)) / n_units**0.5,
        "b_out": jnp.zeros(()),
    }
    losses = []
    for stage, (length, rate, n_steps) in enumerate(stages):
        optimizer = optax.chain(
            optax.clip_by_global_norm(0.5), optax.adam(optax.cosine_decay_schedule(rate, n_steps, alpha=0.1))
        )
        loss = _sine_loss(step_fn, round(length / DT), n_units)
        result = train.fit(jax.random.fold_in(keys[5], stage), loss, trained, optimizer, n_steps, chunk_size=50)
        trained = result.params
        losses.append(float(np.mean(result.losses[-50:])))
    arrays = {**trained.pop("cell"), **trained}
    return {k: np.asarray(v) for k, v in arrays.items()}, {
        "seed": 0,
        "stages": stages,
        "losses": losses,
        **io.environment(),
    }


def _sine_orbits(step_fn: StepFn, params: Params, arrays: Any, n_time: int) -> jax.Array:
    """States (51, n_time, n_hidden) from the trained start."""
    drives = jnp.broadcast_to(_sine_drives()[0][:, None], (N_SINE, n_time, 1))
    return _simulate(step_fn, params, jnp.asarray(arrays["hidden0"]), drives)


def _draw_sine(step_fn: StepFn, params: Params, arrays: Any, n_candidates: int) -> tuple[Any, Any]:
    orbits = _sine_orbits(step_fn, params, arrays, round(200 / DT))[:, round(40 / DT) :]
    which = np.arange(n_candidates) % N_SINE
    key_when, key_noise = jax.random.split(jax.random.key(2))
    when = jax.random.randint(key_when, (n_candidates,), 0, orbits.shape[1])
    blur = NOISE * jax.random.normal(key_noise, (n_candidates, orbits.shape[-1]))
    return orbits[which, when] + blur, np.asarray(_sine_drives()[0])[which]


def _check_sine(step_fn: StepFn, params: Params, arrays: Any) -> dict[str, Any]:
    """Frequency of the free run, by upward zero crossings of the second half of 600 time constants."""
    rates = np.tanh(np.asarray(_sine_orbits(step_fn, params, arrays, round(600 / DT))))
    outputs = (rates @ np.asarray(arrays["w_out"]) + np.asarray(arrays["b_out"]))[:, round(300 / DT) :]
    off = []
    for output, omega in zip(outputs, np.asarray(_sine_drives()[1]), strict=True):
        at = np.flatnonzero((output[:-1] < 0) & (output[1:] >= 0))
        at = at + output[at] / (output[at] - output[at + 1])
        off.append(abs(2 * np.pi * (len(at) - 1) / (DT * (at[-1] - at[0])) / omega - 1) if len(at) > 2 else np.inf)
    off = np.array(off)
    oscillates = int((outputs.max(1) - outputs.min(1) > 0.5).sum())
    return {
        "oscillates": oscillates,
        "within_2_percent": int((off < 0.02).sum()),
        "within_10_percent": int((off < 0.1).sum()),
        "median_off": float(np.median(off)),
    }


def _plant(n_units: int, n_memories: int = 8, strength: float = 5.0) -> tuple[dict[str, Any], dict[str, Any]]:
    key_random, key_signs = jax.random.split(jax.random.key(0))
    flips = jax.random.rademacher(key_signs, (n_units,), dtype=float)
    signs = scipy.linalg.hadamard(n_units)[1 : n_memories + 1] * flips
    w_rec = (
        1.5 / n_units**0.5 * jax.random.normal(key_random, (n_units, n_units)) + strength / n_units * signs.T @ signs
    )
    arrays = {"w_rec": np.asarray(w_rec), "signs": np.asarray(signs, np.int8)}
    return arrays, {"seed": 0, "gain": 1.5, "strength": strength, **io.environment()}


def _draw_planted(step_fn: StepFn, params: Params, arrays: Any, n_candidates: int) -> tuple[Any, None]:
    n_units = params["w_rec"].shape[1]
    key_which, key_noise, key_random = jax.random.split(jax.random.key(1), 3)
    memories = jnp.concatenate([arrays["signs"], -arrays["signs"]]).astype(float)
    near = memories[jax.random.randint(key_which, (64,), 0, len(memories))] + jax.random.normal(
        key_noise, (64, n_units)
    )
    anywhere = jax.random.uniform(key_random, (64, n_units), minval=-1.0)
    states = _simulate(step_fn, params, jnp.concatenate([near, anywhere]), n_time=64)
    return jaxfp.sample_candidates(jax.random.key(2), states, n_candidates, NOISE), None


def _check_planted(step_fn: StepFn, params: Params, arrays: Any) -> dict[str, Any]:
    """Overlap of each memory with where it settles, and how far that still moves in a step."""
    signs = np.asarray(arrays["signs"], np.float32)
    states = np.asarray(_simulate(step_fn, params, jnp.asarray(signs), n_time=300))
    overlap = (states[:, -1] * signs).mean(1)
    still = np.abs(states[:, -1] - states[:, -2]).max()
    return {"smallest_overlap": float(overlap.min()), "largest_speed": float(still)}


def _draw_random_starts(step_fn: StepFn, params: Params, arrays: Any, n_candidates: int) -> tuple[Any, None]:
    hidden0 = jax.random.normal(jax.random.key(1), (128, params["b"].shape[0]))
    states = _simulate(step_fn, params, hidden0, n_time=64)
    return jaxfp.sample_candidates(jax.random.key(2), states, n_candidates, NOISE), None


def _memory(cell: str, n_units: int, **changes: Any) -> Spec:
    make = functools.partial(_train_memory, cell, n_units, **changes)
    return Spec(cell, None, None, make, _draw_memory, _check_memory)


SPECS: dict[str, Spec] = {
    **{f"tanh{n}": _memory("tanh", n) for n in (16, 64, 100)},
    **{f"tanh{n}": _memory("tanh", n, learning_rate=3e-3) for n in (256, 512)},
    "tanh256_slow": _memory("tanh", 256),
    "lstm32": _memory("lstm", 32),
    "gru64": _memory("gru", 64),
    "gru64_slow": _memory("gru", 64, noise=0.0, n_time=25, pulse_probability=2 / 3, sparse_fraction=0.0),
    "sine256": Spec("euler", DT, "current", functools.partial(_train_sine, 256), _draw_sine, _check_sine),
    **{
        f"planted{n}": Spec("tanh", None, None, functools.partial(_plant, n), _draw_planted, _check_planted)
        for n in (128, 256, 512, 1024, 2048)
    },
    "rank2_512": Spec("low_rank", 0.1, None, None, _draw_random_starts, lambda *_: {}),
    "fullrank_100": Spec("euler", 0.1, "current", None, _draw_random_starts, lambda *_: {}),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Make networks.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[name for name, spec in SPECS.items() if spec.make])
    parser.add_argument("--networks", type=pathlib.Path, default=pathlib.Path("networks"), metavar="FOLDER")
    arguments = parser.parse_args(argv)
    for entry in arguments.names:
        name, _, file = entry.partition("=")
        if file:
            take_in(name, pathlib.Path(file), arguments.networks)
        network = load(name, arguments.networks)
        path = arguments.networks / f"{name}.npz"
        does = io.load(path)[1].get("does") if path.exists() else None
        print(json.dumps({"network": name, "candidates": network.candidates.shape, "does": does}), flush=True)


if __name__ == "__main__":
    main()
