"""`python -m jaxfp flip-flop`: all fixed points of a trained 3-bit memory (Sussillo & Barak 2013, example 1).

Loads a packaged network, or trains one with `--train`, checks that it does the task, and finds its fixed points at
zero input. Recipe of all packaged networks, seed 0 each: trials of 40 steps, pulse probability 0.1 per line and step,
a quarter of the trials with only 15 % of their pulses; Gaussian noise on the state after every step, which turns slow
memories into attractors; squared error on every step; Adam with cosine decay, global norm clipped to 1. The learning
rate begins at 1e-2, for a GRU at 3e-3, where its memories are learned as faster modes.
"""

import argparse
import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from jaxfp import dynamics, io, plotting
from jaxfp.cli import flip_flop_mechanism, report
from jaxfp.models import adapters, equations, train
from jaxfp.search import candidates
from jaxfp.tasks import flip_flop
from jaxfp.types import Params, StepFn

CELLS: dict[equations.CellKind, int] = {"tanh": 100, "gru": 64, "lstm": 32}  # and their default number of units


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; the same for every seed.

    Attributes:
      n_bits: lines of the task.
      n_time: steps of a training trial.
      pulse_probability, sparse_fraction, sparse_keep: see `flip_flop.sample_batch`.
      noise: standard deviation of the noise on the state, activation units.
      gain: of the recurrent weights at the start.
      learning_rate: first one of the cosine decay, which ends at a hundredth of it.
      clip: global norm of the gradient.
      batch_size: trials a step.
      n_steps: training steps.
    """

    n_bits: int = 3
    n_time: int = 40
    pulse_probability: float = 0.1
    sparse_fraction: float = 0.25
    sparse_keep: float = 0.15
    noise: float = 0.1
    gain: float = 0.8
    learning_rate: float = 1e-2
    clip: float = 1.0
    batch_size: int = 64
    n_steps: int = 1000


def recipe_of(cell: equations.CellKind) -> Recipe:
    """The recipe of the packaged network of a cell.

    Args:
      cell: "tanh", "gru" or "lstm".

    Returns:
      Recipe.

    Raises:
      ValueError: for an unknown cell.

    Example:
      >>> recipe_of("gru").learning_rate
      0.003
    """
    if cell not in CELLS:
        raise ValueError(f"cell must be one of {sorted(CELLS)}, got {cell!r}.")
    return Recipe(learning_rate=3e-3 if cell == "gru" else 1e-2)


class Network(NamedTuple):
    """A trained memory.

    Attributes:
      step_fn: its step.
      params: of the step.
      readout: (w_out (n_bits, n_units), b_out (n_bits,)); reads the first n_units of the state, h of an LSTM's (h, c).
    """

    step_fn: StepFn
    params: Params
    readout: tuple[Any, Any]


def read_out(readout: tuple[Any, Any], hidden: Any) -> Any:
    """Outputs of the network at given states.

    Args:
      readout: (w_out (n_bits, n_units), b_out (n_bits,)).
      hidden: (..., n_hidden), n_hidden >= n_units.

    Returns:
      (..., n_bits).

    Example:
      >>> read_out((jnp.ones((1, 2)), jnp.zeros(1)), jnp.ones(4)).tolist()
      [2.0]
    """
    w_out, b_out = readout
    return jnp.einsum("bn,...n->...b", w_out, hidden[..., : w_out.shape[1]]) + jnp.broadcast_to(
        b_out, (*hidden.shape[:-1], len(b_out))
    )


def as_network(cell: equations.CellKind, arrays: dict[str, Any]) -> Network:
    """Arrays of a file as a network.

    Args:
      cell: "tanh", "gru" or "lstm".
      arrays: those of `from_arrays`, and w_out (n_bits, n_units), b_out (n_bits,).

    Returns:
      Network.

    Raises:
      ValueError: if arrays are missing or have the wrong shape.

    Example:
      >>> arrays, _ = io.load_packaged("flip_flop_tanh")
      >>> as_network("tanh", arrays).params["w_rec"].shape
      (100, 100)
    """
    if not {"w_out", "b_out"} <= set(arrays):
        raise ValueError(f"a flip-flop network needs w_out and b_out, got {sorted(arrays)}.")
    step_fn, params = adapters.from_arrays(
        cell, {name: a for name, a in arrays.items() if name not in ("w_out", "b_out")}
    )
    return Network(step_fn, params, (arrays["w_out"], arrays["b_out"]))


@functools.lru_cache
def _loss_fn(step_fn: StepFn, n_hidden: int, recipe: Recipe) -> train.LossFn:
    """One function for each recipe, so that training a second seed compiles nothing."""
    config = flip_flop.FlipFlopConfig(n_bits=recipe.n_bits, n_time=recipe.n_time)

    def loss(trained: dict[str, Any], key: jax.Array) -> jax.Array:
        key_trials, key_noise = jax.random.split(key)
        batch = flip_flop.sample_batch(
            key_trials,
            config,
            recipe.batch_size,
            pulse_probability=recipe.pulse_probability,
            sparse_fraction=recipe.sparse_fraction,
            sparse_keep=recipe.sparse_keep,
        )
        noise = recipe.noise * jax.random.normal(key_noise, (recipe.n_time, recipe.batch_size, n_hidden))

        def step(hidden: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            pulses, blur = now
            hidden = jax.vmap(step_fn, (None, 0, 0))(trained["cell"], hidden, pulses) + blur
            return hidden, hidden

        start = jnp.zeros((recipe.batch_size, n_hidden))
        states = jax.lax.scan(step, start, (batch.inputs.swapaxes(0, 1), noise))[1]
        return flip_flop.loss(read_out(trained["readout"], states), batch.targets.swapaxes(0, 1))

    return loss


@functools.lru_cache
def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.n_steps, alpha=0.01)
    return optax.chain(optax.clip_by_global_norm(recipe.clip), optax.adam(schedule))


def train_network(
    seed: int, cell: equations.CellKind = "tanh", n_units: int | None = None, recipe: Recipe | None = None, **fit: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train a memory from scratch.

    Args:
      seed: of weights, data and noise.
      cell: "tanh", "gru" or "lstm".
      n_units: number of units; 100, 64 or 32 by default. An LSTM's state is twice as long.
      recipe: how; `recipe_of(cell)` by default.
      **fit: passed to `train.fit`: progress, checkpoint.

    Returns:
      Arrays in the layout of `from_arrays` with w_out and b_out, float32; and their provenance.

    Raises:
      ValueError: for an unknown cell.

    Example:
      >>> arrays, provenance = train_network(0, "tanh", 4, Recipe(n_steps=2, batch_size=2))
      >>> arrays["w_rec"].shape, provenance["seed"]
      ((4, 4), 0)
    """
    recipe = recipe or recipe_of(cell)
    n_units = CELLS[cell] if n_units is None else n_units
    seconds = report.stopwatch()
    key_cell, key_readout, key_train = jax.random.split(jax.random.key(seed), 3)
    arrays = equations.init_arrays(key_cell, cell, n_units, recipe.n_bits, gain=recipe.gain)
    step_fn, params = adapters.from_arrays(cell, arrays)
    w_out = jax.random.normal(key_readout, (recipe.n_bits, n_units)) / n_units**0.5
    start = {"cell": params, "readout": (w_out, jnp.zeros(recipe.n_bits))}
    n_hidden = 2 * n_units if cell == "lstm" else n_units
    result = train.fit(key_train, _loss_fn(step_fn, n_hidden, recipe), start, _optimizer(recipe), recipe.n_steps, **fit)
    w_out, b_out = result.params["readout"]
    provenance = {
        "task": "flip-flop",
        "cell": cell,
        "n_units": n_units,
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "final_loss": float(np.mean(result.losses[-50:])),
        "seconds": seconds(),
        "made_by": f"python -m jaxfp flip-flop --train --cell {cell} --n-hidden {n_units} --seed {seed}",
        **io.environment(),
    }
    trained = {**result.params["cell"], "w_out": w_out, "b_out": b_out}
    return {name: np.asarray(array) for name, array in trained.items()}, provenance


def behaviour(key: jax.Array, network: Network, recipe: Recipe, n_trials: int = 256) -> dict[str, float]:
    """Does it do the task? On fresh trials with every gap twice as long as in training, then 1,000 silent steps.

    Args:
      key: of the trials.
      network: see `Network`.
      recipe: what it was trained on.
      n_trials: number of trials.

    Returns:
      Dict: sign accuracy over the pulsed steps and over the silence, share of trials whose every bit is right at the
      end, number of different memories among those, and how many there are.

    Example:
      >>> network = as_network("tanh", io.load_packaged("flip_flop_tanh")[0])
      >>> behaviour(jax.random.key(0), network, Recipe(), 32)["sign_accuracy"]
      1.0
    """
    n_pulsed, n_hold = 2 * recipe.n_time, 1000
    config = flip_flop.FlipFlopConfig(n_bits=recipe.n_bits, n_time=n_pulsed + n_hold, spacing=2, n_hold=n_hold)
    batch = _sample(key, config, n_trials, pulse_probability=recipe.pulse_probability)
    outputs = read_out(network.readout, _states(network, batch.inputs))
    right = np.asarray((outputs[:, -1] * batch.targets[:, -1] > 0).all(-1))
    held = {tuple(code) for code in np.asarray(batch.targets[:, -1])[right].tolist()}
    lost = {tuple(code) for code in np.asarray(batch.targets[:, -1])[~right].tolist()}
    return {
        "sign_accuracy": float(flip_flop.sign_accuracy(outputs[:, :n_pulsed], batch.targets[:, :n_pulsed])),
        "sign_accuracy_in_silence": float(flip_flop.sign_accuracy(outputs[:, n_pulsed:], batch.targets[:, n_pulsed:])),
        "trials_right_after_silence": float(right.mean()),
        "memories_held": len(held - lost),
        "memories": 2**recipe.n_bits,
    }


_sample = jax.jit(flip_flop.sample_batch, static_argnames=("config", "n_trials"))


def _states(network: Network, inputs: jax.Array) -> jax.Array:
    """States (n_trials, n_time, n_hidden) from rest."""
    n_units = network.readout[0].shape[1]
    n_hidden = 2 * n_units if getattr(network.step_fn, "kind", None) == "lstm" else n_units
    return jax.jit(dynamics.simulate, static_argnums=0)(network.step_fn, network.params, jnp.zeros(n_hidden), inputs)


def sign_codes(network: Network, hidden: np.ndarray) -> list[str]:
    """The memory that the readout says at each state, as a string of signs.

    Args:
      network: see `Network`.
      hidden: (n_points, n_hidden).

    Returns:
      n_points strings such as "+-+".

    Example:
      >>> network = as_network("tanh", io.load_packaged("flip_flop_tanh")[0])
      >>> len(sign_codes(network, np.zeros((1, 100)))[0])
      3
    """
    w_out, b_out = (np.asarray(x, np.float64) for x in network.readout)
    outputs = hidden[:, : w_out.shape[1]] @ w_out.T + b_out[None]
    return ["".join("+" if bit > 0 else "-" for bit in row) for row in outputs]


def explore(
    seed: int,
    network: Network,
    recipe: Recipe,
    *,
    n_candidates: int = 1024,
    noise: float = 0.5,
    progress: bool = False,
    checkpoint: pathlib.Path | None = None,
) -> tuple[report.Analysis, flip_flop.Batch, jax.Array]:
    """Candidates from fresh trials, then the search at zero input.

    Args:
      seed: of trials, candidates and seeded waves.
      network: see `Network`.
      recipe: what it was trained on.
      n_candidates: states to start from.
      noise: standard deviation added to them, activation units.
      progress: show a bar.
      checkpoint: of the search, see `find_fixed_points`.

    Returns:
      Analysis; the trials (128 of 64 steps); their states (n_trials, n_time, n_hidden).

    Example:
      >>> eye = np.eye(3)
      >>> network = as_network("tanh", {"w_rec": eye / 2, "w_in": eye, "w_out": eye, "b_out": np.zeros(3)})
      >>> explore(0, network, Recipe(), n_candidates=32)[0].audit.index_sum
      1
    """
    key_trials, key_candidates, key_waves = jax.random.split(jax.random.key(seed), 3)
    config = flip_flop.FlipFlopConfig(n_bits=recipe.n_bits, n_time=64)
    batch = _sample(key_trials, config, 128, pulse_probability=recipe.pulse_probability)
    states = _states(network, batch.inputs)
    starts = candidates.sample_candidates(key_candidates, states, n_candidates, noise)
    analysis = report.analyze(
        network.step_fn, network.params, starts, None, key=key_waves, progress=progress, checkpoint=checkpoint
    )
    return analysis, batch, states


def add_parser(commands: Any) -> None:
    """Register the command.

    Args:
      commands: argparse subparsers.

    Example:
      >>> add_parser(argparse.ArgumentParser().add_subparsers())
    """
    parser = commands.add_parser(
        "flip-flop",
        help="all fixed points of a trained 3-bit memory: a demonstration that needs no files",
        description="Find all fixed points of a recurrent network that remembers the sign of the last pulse on each of "
        "three input lines (Sussillo & Barak 2013). Prints tables and an audit of completeness, and writes "
        "fixed_points.npz, report.json and figures (png) to the folder --out.",
        epilog="example: python -m jaxfp flip-flop --cell gru --out results",
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("flip_flop"), metavar="FOLDER",
        help="where results go (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--cell", choices=sorted(CELLS), default="tanh", help="kind of network (default: %(default)s)")
    parser.add_argument(
        "--train", action="store_true", help="train a new network, one to ten minutes, instead of loading the packaged "
        "one; writes weights.npz, too",
    )  # fmt: skip
    parser.add_argument("--n-hidden", type=int, metavar="N", help="with --train: number of units (default: tanh 100, "
                        "gru 64, lstm 32)")  # fmt: skip
    parser.add_argument(
        "--seed", type=report.seed, default=0, help="random seed of training, trials and search (default: 0)"
    )
    parser.add_argument(
        "--candidates", type=int, default=1024, metavar="K",
        help="how many states to search from, taken from trials (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--noise", type=float, default=0.5, help="s.d. of the noise added to those states (default: %(default)s)"
    )
    parser.add_argument(
        "--checkpoint", type=pathlib.Path, metavar="FOLDER", help="keep there what is finished of training and search; "
        "a run that was killed goes on from there when the same command is run again",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """The command.

    Args:
      arguments: as parsed.

    Raises:
      ValueError: for arguments that do not fit together and files that cannot be written.

    Example:
      >>> run(argparse.Namespace(train=False, n_hidden=3, candidates=1))
      Traceback (most recent call last):
      ...
      ValueError: --n-hidden goes with --train: the packaged networks have their size.
    """
    if arguments.n_hidden is not None and not arguments.train:
        raise ValueError("--n-hidden goes with --train: the packaged networks have their size.")
    if arguments.candidates < 1 or (arguments.n_hidden is not None and arguments.n_hidden < 1):
        raise ValueError("--candidates and --n-hidden must be at least 1.")
    if not 0 <= arguments.noise < np.inf:
        raise ValueError(f"--noise must be a finite number, 0 or more, got {arguments.noise}.")
    for folder in filter(None, (arguments.out, arguments.checkpoint)):
        io.check_folder(folder)
    console = Console()
    seconds = report.stopwatch()
    recipe = recipe_of(arguments.cell)
    with report.compile_seconds() as compiling:
        if arguments.train:
            arrays, provenance = train_network(
                arguments.seed, arguments.cell, arguments.n_hidden, recipe, progress=not arguments.quiet,
                checkpoint=arguments.checkpoint and arguments.checkpoint / "training",
            )  # fmt: skip
            io.save(arguments.out / "weights.npz", arrays, provenance)
        else:
            arrays, provenance = io.load_packaged(f"flip_flop_{arguments.cell}")
        network = as_network(arguments.cell, arrays)
        does = behaviour(jax.random.key(arguments.seed), network, recipe)
        console.print(
            f"{arguments.cell} network of {len(arrays['w_out'][0])} units, trained with seed {provenance.get('seed')}: "
            f"sign accuracy {100 * does['sign_accuracy']:.2f} % with gaps twice those of training, "
            f"{does['memories_held']} of {does['memories']} memories held through 1,000 silent steps."
        )
        analysis, batch, states = explore(
            arguments.seed, network, recipe, n_candidates=arguments.candidates, noise=arguments.noise,
            progress=not arguments.quiet, checkpoint=arguments.checkpoint and arguments.checkpoint / "search",
        )  # fmt: skip
        codes = sign_codes(network, analysis.points.hidden)
        report.show(console, analysis, codes)
        mechanism = flip_flop_mechanism.explain(network.step_fn, network.params, analysis, codes, recipe.n_bits)
        flip_flop_mechanism.show(console, mechanism.summary)
    took = {"total": seconds(), "compile": compiling()}
    took["run"] = took["total"] - took["compile"]
    contents = {
        "command": "flip-flop",
        "arguments": {k: str(v) for k, v in vars(arguments).items() if k != "run"},
        "seconds": took,
        **io.environment(),
        "network": provenance,
        "behaviour": does,
        **report.summary(analysis, codes),
        "topology": mechanism.summary,
    }
    shown = np.asarray(states[:32])
    files = report.write(arguments.out, analysis, contents, shown)
    outputs = read_out(network.readout, states[0])
    files += flip_flop_mechanism.draw(arguments.out, *network[:2], mechanism, analysis, codes, shown)
    figure = arguments.out / "trial.png"
    files.append(report.save_figure(figure, lambda ax: plotting.trial(batch.inputs[0], batch.targets[0], outputs, ax)))
    console.print(
        f"{took['total']:.1f} s, of them {took['compile']:.1f} s compiling. Wrote {', '.join(f.name for f in files)}"
    )
    console.print(f"to {arguments.out}", soft_wrap=True)
