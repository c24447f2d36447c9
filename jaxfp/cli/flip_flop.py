"""`python -m jaxfp flip-flop`: all fixed points of a trained 3-bit memory (Sussillo & Barak 2013, example 1).

Loads a packaged network, or trains one with `--train` (`flip_flop_training`; by FORCE `flip_flop_force`), checks that
it does the task, finds its fixed points at zero input, and says which of them are joined (`flip_flop_mechanism`).
"""

import argparse
import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import dynamics, io, plotting
from jaxfp.cli import flip_flop_force, flip_flop_mechanism, frame, report
from jaxfp.cli.flip_flop_training import CELLS, Network, Recipe, as_network, read_out, recipe_of, train_network
from jaxfp.search import candidates
from jaxfp.tasks import flip_flop

N_CANDIDATES = 1024


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
    n_candidates: int = N_CANDIDATES,
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
    add = parser.add_argument
    add("--cell", choices=[*sorted(CELLS), "force"], default="tanh", help="kind of network; force: in continuous time, "
        "its readout trained by FORCE and fed back (default: %(default)s)")  # fmt: skip
    add("--n-bits", type=int, default=3, choices=(2, 3, 4), help="with --train: lines to remember (default: "
        "%(default)s)")  # fmt: skip
    add("--candidates", type=int, metavar="K", help="how many states to search from, taken from trials (default: "
        f"{N_CANDIDATES}; with --cell force {flip_flop_force.N_CANDIDATES}, and more by its symmetry)")  # fmt: skip
    add("--noise", type=float, default=0.5, help="s.d. of the noise added to those states (default: %(default)s)")
    frame.add_options(
        parser,
        run,
        out="flip_flop",
        trains="train a new network, one to ten minutes, instead of loading the packaged one; writes weights.npz, too",
        n_hidden="tanh 100, gru 64, lstm 32, force 250",
        seed="training, trials and search",
        checkpoint="keep there what is finished of training and search; a run that was killed goes on from there when "
        "the same command is run again",
    )


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
      ValueError: --n-hidden goes with --train: a packaged network has its size.
    """
    frame.check_size(arguments)
    if arguments.n_bits != 3 and not arguments.train:
        raise ValueError("--n-bits goes with --train: the packaged networks have 3.")
    by_force = arguments.cell == "force"
    if arguments.candidates is None:
        arguments.candidates = flip_flop_force.N_CANDIDATES if by_force else N_CANDIDATES
    if arguments.candidates < 1:
        raise ValueError(f"--candidates must be at least 1, got {arguments.candidates}.")
    if not 0 <= arguments.noise < np.inf:
        raise ValueError(f"--noise must be a finite number, 0 or more, got {arguments.noise}.")
    recipe: Any = dataclasses.replace(
        flip_flop_force.Recipe() if by_force else recipe_of(arguments.cell), n_bits=arguments.n_bits
    )
    with frame.running(arguments) as job:
        arrays, provenance = _weights(arguments, recipe)
        network = flip_flop_force.as_network(arrays, recipe) if by_force else as_network(arguments.cell, arrays)
        judge = flip_flop_force.behaviour if by_force else behaviour
        does = judge(jax.random.key(arguments.seed), network, recipe)
        job.console.print(
            f"{arguments.cell} network of {len(arrays['w_out'][0])} units, trained with seed {provenance.get('seed')}: "
            f"sign accuracy {100 * does['sign_accuracy']:.2f} % with gaps twice those of training, "
            f"{does['memories_held']} of {does['memories']} memories held through 1,000 silent steps."
        )
        search = flip_flop_force.explore if by_force else explore
        analysis, batch, states = search(
            arguments.seed, network, recipe, n_candidates=arguments.candidates, noise=arguments.noise,
            progress=not arguments.quiet, checkpoint=arguments.checkpoint and arguments.checkpoint / "search",
        )  # fmt: skip
        rates = np.tanh if by_force else np.asarray  # what the readout reads
        codes = sign_codes(network, rates(analysis.points.hidden))
        report.show(job.console, analysis, codes)
        mechanism = flip_flop_mechanism.explain(
            network.step_fn, network.params, analysis, codes, recipe.n_bits, flip_flop_force.N_PULSE if by_force else 1
        )
        flip_flop_mechanism.show(job.console, mechanism.summary)
    summary = report.summary(analysis, codes)
    contents = {"network": provenance, "behaviour": does, **summary, "topology": mechanism.summary}
    if by_force:
        odd = contents["oddness"] = flip_flop_force.oddness(network, analysis.points)
        if odd["mirror_images_not_found"]:
            n = odd["mirror_images_not_found"]
            job.console.print(
                f"The network is odd, yet the mirror images of {n} points were not found: these are missing."
            )
    outputs, shown = read_out(network.readout, rates(states[0])), np.asarray(states[:32])
    trial = report.Drawing("trial.png", lambda ax: plotting.trial(batch.inputs[0], batch.targets[0], outputs, ax))
    figures = [*report.figures(analysis, shown), trial]
    figures += flip_flop_mechanism.figures(*network[:2], mechanism, analysis, codes, shown)
    frame.finish(job, contents, {"fixed_points.npz": analysis.points}, figures)


def _weights(arguments: argparse.Namespace, recipe: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Weights trained now, or packaged, and where they come from."""
    if not arguments.train:
        return io.load_packaged(f"flip_flop_{arguments.cell}")
    if arguments.cell == "force":
        arrays, provenance = flip_flop_force.train_network(arguments.seed, arguments.n_hidden, recipe)
    else:
        arrays, provenance = train_network(
            arguments.seed, arguments.cell, arguments.n_hidden, recipe, progress=not arguments.quiet,
            checkpoint=arguments.checkpoint and arguments.checkpoint / "training",
        )  # fmt: skip
    io.save(arguments.out / "weights.npz", arrays, provenance)
    return arrays, provenance
