"""`python -m jaxfp moving-average`: where a network keeps two numbers at once (Sussillo & Barak 2013, example 3).

Loads a packaged GRU, or trains one with `--train` (`average_training`), checks that it does the task, and looks at what
it holds its memories with: a sheet of slow points (`average_mechanism`), beside a control that had to remember one
number, whose slow points are a line. Then it finds what is truly fixed.
"""

import argparse
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxfp import io, plotting
from jaxfp.cli import average_mechanism, average_training, frame, report
from jaxfp.cli.average_mechanism import DELAY, SLOW_TOLERANCE, Sheet
from jaxfp.cli.average_training import CONTROL, Network, Recipe
from jaxfp.search import candidates
from jaxfp.tasks import moving_average

N_STATES = 256  # that hold, to search slow points from


class Finding(NamedTuple):
    """What one network does, and with what.

    Attributes:
      does: see `average_mechanism.behaviour`.
      sheets: by tolerance.
      said: see `average_mechanism.summarize`.
    """

    does: dict[str, float]
    sheets: dict[float, Sheet]
    said: dict[str, Any]


def examine(seed: int, network: Network, n_values: int, n_states: int = N_STATES) -> Finding:
    """Behaviour, sheets and what a pulse does on them.

    Args:
      seed: of trials and pulses.
      network: see `Network`.
      n_values: pulses that it averages over.
      n_states: to search from.

    Returns:
      Finding.

    Example:
      >>> network = average_training.as_network("gru", io.load_packaged("moving_average_gru")[0])
      >>> examine(0, network, 2, 32).said["decoded_last"] > 0.9
      True
    """
    key_trials, key_states, key_pulses = jax.random.split(jax.random.key(seed), 3)
    does = average_mechanism.behaviour(key_trials, network, n_values)
    states, values = average_mechanism.draw_holding(key_states, network, n_states)
    sheets = average_mechanism.find_sheets(network, states, values)
    chosen = sheets.get(SLOW_TOLERANCE)
    pulses = {} if chosen is None else average_mechanism.pulse_map(key_pulses, network, chosen)
    return Finding(does, sheets, average_mechanism.summarize(sheets, pulses, network.readout))


def add_parser(commands: Any) -> None:
    """Register the command.

    Args:
      commands: argparse subparsers.

    Example:
      >>> add_parser(argparse.ArgumentParser().add_subparsers())
    """
    parser = commands.add_parser(
        "moving-average",
        help="where a network keeps two numbers: a sheet of slow points",
        description="Find the slow points with which a recurrent network remembers the last two of a series of pulses "
        "(Sussillo & Barak 2013), and decode what is remembered there, beside a network that had to remember one. "
        "Prints tables, and writes fixed_points.npz, report.json and figures (png) to the folder --out.",
        epilog="example: python -m jaxfp moving-average --out results",
    )
    add = parser.add_argument
    add("--cell", choices=("gru", "tanh"), default="gru", help="with --train: kind of network (default: %(default)s); "
        "tanh networks often miss the task or have no sheet")  # fmt: skip
    add("--states", type=int, default=N_STATES, metavar="K",
        help="how many states that hold to search slow points from (default: %(default)s)")  # fmt: skip
    add("--candidates", type=int, default=N_STATES, metavar="K",
        help="how many states to search fixed points from (default: %(default)s)")  # fmt: skip
    frame.add_options(
        parser,
        run,
        out="moving_average",
        trains="train a new network and its control, two to ten minutes, instead of loading the packaged ones; writes "
        "weights.npz and control.npz, too",
        n_hidden="64",
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
      >>> run(argparse.Namespace(train=False, n_hidden=3, candidates=1, states=16))
      Traceback (most recent call last):
      ...
      ValueError: --n-hidden goes with --train: a packaged network has its size.
    """
    frame.check_size(arguments)
    if arguments.cell != "gru" and not arguments.train:
        raise ValueError(f"--cell {arguments.cell} goes with --train: the packaged networks are GRUs.")
    if arguments.states < 16 or arguments.candidates < 1:
        raise ValueError("--states must be at least 16, --candidates at least 1.")
    with frame.running(arguments) as job:
        networks, provenance = {}, {}
        for name, recipe in (("network", Recipe()), ("control", CONTROL)):
            arrays, provenance[name] = _arrays(arguments, name, recipe)
            networks[name] = average_training.as_network(arguments.cell, arrays)
        found = {
            name: examine(arguments.seed, network, 2 if name == "network" else 1, arguments.states)
            for name, network in networks.items()
        }
        _show(job.console, found, provenance)
        network = networks["network"]
        key_trials, key_starts, key_waves = jax.random.split(jax.random.key(arguments.seed), 3)
        batch = moving_average.sample_batch(key_trials, moving_average.MovingAverageConfig(), 64)
        states = average_mechanism.states_of(network, batch.inputs)
        starts = candidates.sample_candidates(key_starts, states, arguments.candidates, 0.1)
        analysis = report.analyze(
            network.step_fn, network.params, starts, jnp.zeros(2), key=key_waves, progress=not arguments.quiet,
            checkpoint=arguments.checkpoint and arguments.checkpoint / "search",
        )  # fmt: skip
        report.show(job.console, analysis)
    contents = {
        **{name: {"training": provenance[name], "behaviour": f.does, "sheet": f.said} for name, f in found.items()},
        **report.summary(analysis),
    }
    figures = report.figures(analysis, np.asarray(states[:32])) + _draw(found, network, batch, states)
    frame.finish(job, contents, {"fixed_points.npz": analysis.points}, figures)


def _arrays(arguments: argparse.Namespace, name: str, recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights of the network or of its control, and where they come from."""
    if not arguments.train:
        return io.load_packaged("moving_average_gru" if name == "network" else "moving_average_control")
    size = 64 if arguments.n_hidden is None else arguments.n_hidden
    checkpoint = arguments.checkpoint and arguments.checkpoint / f"training_{name}"
    arrays, provenance = average_training.train_network(
        arguments.seed, arguments.cell, size, recipe, progress=not arguments.quiet, checkpoint=checkpoint
    )
    io.save(arguments.out / ("weights.npz" if name == "network" else "control.npz"), arrays, provenance)
    return arrays, provenance


def _show(console: Console, found: dict[str, Finding], provenance: dict[str, Any]) -> None:
    for name, finding in found.items():
        said, does = finding.said, finding.does
        cell = {"gru": "GRU", "tanh": "tanh network"}[provenance[name].get("cell", "gru")]
        mean = "mean of the last two pulses" if name == "network" else "last pulse alone (control)"
        console.print(
            f"{cell} trained with seed {provenance[name].get('seed')} to say the {mean}: R2 {does['r2']:.5f} held out, "
            f"{does['r2_gap_60']:.4f} with gaps of 60 steps."
        )
        shares = f"{100 * said['variance_pc1']:.1f} % and {100 * said['variance_pc12']:.1f} %"
        console.print(
            f"  {said['n_points']} slow points (q < {said['slow_tolerance']:.0e}): {shares} of their variance along "
            f"one and two directions; R2 of the last pulse decoded from these two {said['decoded_last']:.3f}, of the "
            f"one before {said['decoded_second']:.3f}."
        )
        scales = ", ".join(f"{scale:.3g}" for scale in said["timescales_median"][:4])
        console.print(f"  Slowest timescales, medians: {scales} steps.")
    shift = found["network"].said["pulse_map"][DELAY]
    console.print(
        f"{DELAY} steps after a pulse the sheet says: last = pulse (R2 {shift['r2'][0]:.3f}), second = last before (R2 "
        f"{shift['r2'][1]:.3f}).\n"
    )


def _draw(
    found: dict[str, Finding], network: Network, batch: moving_average.Batch, states: Any
) -> list[report.Drawing]:
    """The paper's figures 6 and 7, the sweep of the tolerance, and timescales."""
    finding = found["network"]
    sheet = finding.sheets[SLOW_TOLERANCE]
    origin, directions = report.principal_directions(sheet.hidden)
    outputs = average_training.read_out(network.readout, states[0])
    paths = [average_mechanism.project(np.asarray(path), origin, directions) for path in states[:3]]
    shares = {k: v for k, v in finding.said["sweep"].items() if k not in ("n_points", "tau_2 / tau_3")}
    scales = {"two values": sheet.timescales, "one value (control)": found["control"].sheets[SLOW_TOLERANCE].timescales}
    decoded = np.column_stack([sheet.coordinates, np.ones(len(sheet.coordinates))]) @ sheet.decode
    draw: list[tuple[str, Any]] = [
        ("trial.png", lambda ax: plotting.average(batch.inputs[0], batch.targets[0, :, 0], outputs[:, 0], ax)),
        ("sheet_last.png", lambda ax: plotting.sheet(sheet.coordinates, sheet.values[:, 0], "last pulse", paths, ax)),
        ("sheet_second.png", lambda ax: plotting.sheet(sheet.coordinates, sheet.values[:, 1], "pulse before", ax=ax)),
        ("decoded.png", lambda ax: plotting.decoded(decoded, sheet.values, ("last pulse", "pulse before"), ax)),
        ("tolerances.png", lambda ax: plotting.tolerances(shares, SLOW_TOLERANCE, ax)),
        ("timescales.png", lambda ax: plotting.timescales(scales, ax)),
    ]
    return [report.Drawing(name, function) for name, function in draw]
