"""`python -m jaxfp lfads`: what lies behind spikes, by a generator and the linear system that switches with it.

Loads packaged networks that were trained on the spikes of an integrator, or trains new ones with `--train`, on those
spikes or on a user's (`--data`), and judges both branches on held-out trials (`lfads_training`).
"""

import argparse
import pathlib
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxfp import io, plotting
from jaxfp.cli import frame, lfads_training, report
from jaxfp.cli.lfads_training import Spikes
from jaxfp.models.lfads import Inferred, LfadsConfig, Recipe

N_SHOWN = 4
_KEPT = ("rates", "switching_rates", "factors", "switching_factors", "inputs", "expansion")


def add_parser(commands: Any) -> None:
    """Register the command.

    Args:
      commands: argparse subparsers.

    Example:
      >>> add_parser(argparse.ArgumentParser().add_subparsers())
    """
    parser = commands.add_parser(
        "lfads",
        help="rates, factors and inputs behind spikes, by a network and its linear system",
        description="Infer what lies behind spikes with LFADS and a switching linear system trained with its generator "
        "(Smith, Linderman & Sussillo 2021): do both explain held-out trials equally well, and what is inferred? "
        "Prints a table, and writes inferred.npz, report.json and figures (png) to the folder --out.",
        epilog="example: python -m jaxfp lfads --out results",
    )
    add = parser.add_argument
    add("--data", type=pathlib.Path, metavar="FILE",
        help="with --train: spikes of your own, counts (trials, bins, neurons), an npy or the array spikes of an npz; "
        "a tenth of the trials is held out")  # fmt: skip
    add("--trials", type=int, default=lfads_training.N_TEST, metavar="K",
        help="without --data: how many held-out trials to judge by (default: %(default)s)")  # fmt: skip
    frame.add_options(
        parser,
        run,
        out="lfads",
        trains="train new networks, some minutes, instead of loading the packaged ones; writes weights.npz, too",
        n_hidden=f"{LfadsConfig().n_generator}, of the generator",
        seed="training, and of the integrator with --train",
        checkpoint="keep there what is finished of training; a run that was killed goes on from there when the same "
        "command is run again",
    )


def run(arguments: argparse.Namespace) -> None:
    """The command.

    Args:
      arguments: as parsed.

    Raises:
      ValueError: for arguments that do not fit together and files that cannot be read or written.

    Example:
      >>> run(argparse.Namespace(train=False, n_hidden=None, data="spikes.npz", trials=1))
      Traceback (most recent call last):
      ...
      ValueError: --data goes with --train: the packaged networks know other neurons.
    """
    frame.check_size(arguments)
    if arguments.data is not None and not arguments.train:
        raise ValueError("--data goes with --train: the packaged networks know other neurons.")
    if arguments.trials < 1:
        raise ValueError(f"--trials must be at least 1, got {arguments.trials}.")
    with frame.running(arguments) as job:
        arrays, provenance, held_out = _trained(arguments)
        network = lfads_training.as_network(arrays, provenance)
        key = jax.random.fold_in(jax.random.key(arguments.seed), 3)
        found, said = lfads_training.evaluate(key, network, held_out, arrays["mean_counts"])
        _show(job.console, said, provenance)
        kept = {name: getattr(found, name).astype(np.float32) for name in _KEPT}
        io.save(arguments.out / "inferred.npz", {"spikes": held_out.spikes, **kept}, provenance)
        job.console.print("Rates, factors, inputs and expansion points of the held-out trials are in inferred.npz.")
    frame.finish(job, {"training": provenance, **said}, {}, _draw(held_out, found))


def _trained(arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any], Spikes]:
    """Weights, where they come from, and held-out trials."""
    if not arguments.train:
        arrays, provenance = io.load_packaged("lfads")
        # the held-out trials of a seed are the same however many there are to train on
        held_out = lfads_training.draw_spikes(provenance["seed"], arguments.trials, arguments.trials)[1]
        return arrays, provenance, held_out
    if arguments.data is None:
        train, held_out = lfads_training.draw_spikes(arguments.seed, n_test=arguments.trials)
    else:
        spikes = io.load_array(arguments.data, "spikes")
        train, held_out = lfads_training.split_spikes(jax.random.key(arguments.seed), spikes)
    config = LfadsConfig() if arguments.n_hidden is None else LfadsConfig(n_generator=arguments.n_hidden)
    arrays, provenance = lfads_training.train_network(
        arguments.seed, train, Recipe(config), progress=not arguments.quiet, checkpoint=arguments.checkpoint
    )
    io.save(arguments.out / "weights.npz", arrays, provenance)
    return arrays, provenance, held_out


def _show(console: Console, said: dict[str, Any], provenance: dict[str, Any]) -> None:
    console.print(f"LFADS with its switching linear system, {provenance['task']}, seed {provenance['seed']}; held-out")
    console.print("trials, with the means of what is inferred in place of samples:")
    table = Table()
    for name in ("", "generator", "linear system"):
        table.add_column(name, justify="right" if name else "left")
    nll = said["nll"]
    table.add_row("nats a bin and neuron", *(f"{nll[k]:.4f}" for k in ("rnn", "jslds")))
    table.add_row("bits a spike", *(f"{said['bits_per_spike'][k]:.4f}" for k in ("rnn", "jslds")))
    if "r2" in said:
        table.add_row("R2 against true rates", *(f"{said['r2'][k]:.4f}" for k in ("rnn", "jslds")))
    console.print(table)
    known = f", of the true rates {nll['true_rates']:.4f}" if "true_rates" in nll else ""
    console.print(f"Of mean rates {nll['mean_counts']:.4f} nats{known}; bits a spike are above mean rates.")
    kl = said["kl"]
    console.print(f"Divergence from the priors: start {kl['start']:.1f}, inputs {kl['inputs']:.1f} nats a trial.")
    if "input_correlation" in said:
        console.print(f"Inferred against true input: correlation {said['input_correlation']:.3f}, up to its sign.")
    console.print(
        f"States of the linear system, running freely, are {said['relative_error']:.4f} from those of the generator "
        f"(relative); with its expansion points in another order {said['shuffled_points']['relative_error']:.2f}. "
        f"Residual |e - G(e)| / |e|: {said['residual']:.4f}. Median |eigenvalues| there: "
        + ", ".join(f"{value:.3f}" for value in said["eigenvalues"])
        + "."
    )


def _draw(held_out: Spikes, found: Inferred) -> list[report.Drawing]:
    """The first held-out trial, of those neurons whose inferred rates change most there, and all inputs."""
    shown = np.argsort(-found.rates[0].std(axis=0))[:N_SHOWN]
    true = None if held_out.rates is None else held_out.rates[0][:, shown]
    drawings = [
        report.Drawing("rates.png", lambda ax: plotting.spike_rates(
            held_out.spikes[0][:, shown], found.rates[0][:, shown], found.switching_rates[0][:, shown], true, ax)),
        report.Drawing("factors.png", lambda ax: plotting.factor_traces(
            found.factors[0], found.switching_factors[0], ax)),
    ]  # fmt: skip
    inputs = held_out.inputs
    if inputs is None or found.inputs.shape[2] != 1:
        return drawings
    return [*drawings, report.Drawing("inputs.png", lambda ax: plotting.true_against_inferred(
        inputs, found.inputs, "input", ax))]  # fmt: skip
