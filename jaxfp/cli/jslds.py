"""`python -m jaxfp jslds`: a network and the linear system that switches with it (Smith et al. 2021), on two tasks.

Loads a packaged network that was trained together with its switching linear system, or trains one with `--train`
(`jslds_training`), checks that both do the task and do the same, and reads the mechanism off the expansion points
(`jslds_mechanism`). Beside them: the fixed points of the same network, searched until complete and proved. Here is the
3-bit memory; context integration is in `jslds_context_report`.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxfp import io, plotting
from jaxfp.analysis import switching
from jaxfp.cli import frame, jslds_context, jslds_context_report, jslds_mechanism, jslds_training, report
from jaxfp.cli.jslds_mechanism import Points, States, Trials
from jaxfp.cli.jslds_training import Network, Problem, Recipe
from jaxfp.search import candidates
from jaxfp.tasks import three_bit_memory
from jaxfp.types import FIXED, FixedPoints

N_TRIALS = 800
N_CANDIDATES = 1024
_HOLDS = (10, 20, 50, 100, 200, 500)


class Task(NamedTuple):
    """What a network can be trained on.

    Attributes:
      packaged: name of its weights.
      problem: how it begins, and its loss.
      recipe: by default.
      paper: that of Smith et al.
      as_network: from arrays.
      look: `(job, network, provenance) -> (what report.json says, points, figures)`.
    """

    packaged: str
    problem: Problem
    recipe: Recipe
    paper: Recipe
    as_network: Callable[[dict[str, Any]], Network]
    look: Callable[[frame.Job, Network, dict[str, Any]], tuple[dict[str, Any], FixedPoints, list[report.Drawing]]]


class Finding(NamedTuple):
    """What a network and its linear system do, and how.

    Attributes:
      trials: fresh ones, without noise.
      states: see `jslds_mechanism.find_states`.
      said: numbers, JSON-like.
    """

    trials: Trials
    states: States
    said: dict[str, Any]


def add_parser(commands: Any) -> None:
    """Register the command.

    Args:
      commands: argparse subparsers.

    Example:
      >>> add_parser(argparse.ArgumentParser().add_subparsers())
    """
    parser = commands.add_parser(
        "jslds",
        help="a network trained together with a linear system that switches with its state",
        description="Take apart a network that was trained together with a switching linear system (Smith, Linderman & "
        "Sussillo 2021), a 3-bit memory or an integrator of the evidence that its context asks for: do both do the "
        "same, where are the expansion points, which inputs are taken up there, and how far are they from fixed points "
        "that are proved? "
        "Prints tables, and writes fixed_points.npz, report.json and figures (png) to the folder --out.",
        epilog="example: python -m jaxfp jslds --task context --out results",
    )
    add = parser.add_argument
    add("--task", choices=["3bit", "context"], default="3bit", help="what the network does (default: %(default)s)")
    add("--paper", action="store_true",
        help="with --train: sizes, optimizer and number of updates of the paper; hours without a GPU")  # fmt: skip
    add("--trials", type=int, default=N_TRIALS, metavar="K",
        help="how many fresh trials to judge by (default: %(default)s)")  # fmt: skip
    add("--candidates", type=int, metavar="K", help="how many states to search fixed points from "
        f"(default: {N_CANDIDATES}; {jslds_context_report.N_CANDIDATES} in each context)")  # fmt: skip
    frame.add_options(
        parser,
        run,
        out="jslds",
        trains="train a new network with its linear system, some minutes, instead of loading the packaged one; writes "
        "weights.npz, too",
        n_hidden="28; 64 for --task context",
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
      >>> run(argparse.Namespace(train=False, n_hidden=3, candidates=1, trials=16, paper=False))
      Traceback (most recent call last):
      ...
      ValueError: --n-hidden goes with --train: a packaged network has its size.
    """
    frame.check_size(arguments)
    if arguments.trials < 1 or (arguments.candidates is not None and arguments.candidates < 1):
        raise ValueError("--trials and --candidates must be at least 1.")
    if arguments.paper and not arguments.train:
        raise ValueError("--paper goes with --train: a packaged network has its size.")
    task = _TASKS[arguments.task]
    with frame.running(arguments) as job:
        arrays, provenance = _arrays(arguments, task)
        said, points, figures = task.look(job, task.as_network(arrays), provenance)
    frame.finish(job, {"training": provenance, **said}, {"fixed_points.npz": points}, figures)


def _look(
    job: frame.Job, network: Network, provenance: dict[str, Any]
) -> tuple[dict[str, Any], FixedPoints, list[report.Drawing]]:
    """The 3-bit memory."""
    arguments = job.arguments
    finding = _examine(arguments.seed, network, arguments.trials)
    trials = finding.trials
    key_starts, key_waves = jax.random.split(jax.random.fold_in(jax.random.key(arguments.seed), 1))
    starts = candidates.sample_candidates(key_starts, trials.both.hidden, arguments.candidates or N_CANDIDATES, 0.5)
    analysis = report.analyze(
        network.model.step_fn, network.params.cell, starts, jnp.zeros(trials.inputs.shape[2]), key=key_waves,
        progress=not arguments.quiet, checkpoint=arguments.checkpoint and arguments.checkpoint / "search",
    )  # fmt: skip
    points = _points(analysis)
    said = {
        **finding.said,
        "nearest_fixed_point": jslds_mechanism.baseline_error(network, trials, points.found),
        "expansion_points": jslds_mechanism.explain(finding.states, points),
    }
    _show(job.console, said, provenance)
    codes = _codes(network, points.found.hidden)
    report.show(job.console, analysis, codes)
    figures = report.figures(analysis, trials.both.hidden[:32]) + _draw(network, finding, points, analysis)
    return {**said, **report.summary(analysis, codes)}, points.found, figures


def _examine(seed: int, network: Network, n_trials: int) -> Finding:
    """Everything that needs no fixed points."""
    key_trials, key_order, key_hold = jax.random.split(jax.random.key(seed), 3)
    batch = three_bit_memory.sample_batch(key_trials, three_bit_memory.ThreeBitMemoryConfig(), n_trials)
    trials = jslds_mechanism.run_trials(network, batch)
    said = {
        "behaviour": jslds_mechanism.behaviour(trials),
        "shuffled_relative_error": jslds_mechanism.shuffled_error(key_order, network, batch, trials.both),
        "hold": {"steps": list(_HOLDS), **jslds_mechanism.hold_curve(key_hold, network, holds=_HOLDS)},
    }
    return Finding(trials, jslds_mechanism.find_states(network, trials), said)


def _arrays(arguments: argparse.Namespace, task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights of the network, and where they come from."""
    if not arguments.train:
        return io.load_packaged(task.packaged)
    recipe = task.paper if arguments.paper else task.recipe
    if arguments.n_hidden is not None:
        recipe = dataclasses.replace(recipe, n_units=arguments.n_hidden)
    checkpoint = arguments.checkpoint and arguments.checkpoint / "training"
    ((arrays, provenance),) = jslds_training.train_seeds(
        task.problem, (arguments.seed,), recipe, progress=not arguments.quiet, checkpoint=checkpoint
    )
    io.save(arguments.out / "weights.npz", arrays, provenance)
    return arrays, provenance


def _points(analysis: report.Analysis) -> Points:
    found = analysis.points
    return Points(found, np.zeros(len(found.hidden), bool) if analysis.proof is None else analysis.proof.exists)


def _codes(network: Network, hidden: np.ndarray) -> list[str]:
    said = hidden @ np.asarray(network.params.readout[0], np.float64).T + np.asarray(network.params.readout[1])
    return ["".join("+" if bit > 0 else "-" for bit in row) for row in said]


def _show(console: Console, said: dict[str, Any], provenance: dict[str, Any]) -> None:
    does, states = said["behaviour"], said["expansion_points"]
    console.print(f"GRU trained with its switching linear system, seed {provenance['seed']}; fresh trials, no noise:")
    table = Table()
    for name in ("", "network", "linear system"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("signs right", *(f"{100 * does['sign_accuracy'][k]:.2f} %" for k in ("rnn", "jslds")))
    table.add_row("squared error", *(f"{does['mse'][k]:.1e}" for k in ("rnn", "jslds")))
    hold = said["hold"]
    for steps, *shares in zip(hold["steps"], hold["rnn"], hold["jslds"], strict=True):
        if steps >= 100:
            table.add_row(f"all bits after {steps} silent steps", *(f"{100 * share:.1f} %" for share in shares))
    console.print(table)
    near = said["nearest_fixed_point"]
    console.print(
        f"States of the linear system, running freely, are {does['relative_error']:.4f} from those of the network "
        f"(relative); with its expansion points in another order {said['shuffled_relative_error']:.2f}. Linearization "
        f"of the same network about its nearest fixed point: {near['one_step']:.2f} one step ahead, "
        f"{near['free_run']:.2f} running freely."
    )
    console.print(f"\n[bold]Expansion points[/bold]: {states['n_clusters']} clusters, {states['n_codes']} codes.")
    table = Table()
    for name in ("code", "points", "spread", "|eigenvalue|", "selection", "to the nearest proved fixed point"):
        table.add_column(name, justify="right")
    columns = (states["codes"], states["sizes"], states["spread"], states["eigenvalues"], states["selection"],
               states["distance_to_proved"]["of_centers"])  # fmt: skip
    for code, size, spread, values, ratio, distance in zip(*columns, strict=True):
        table.add_row(code, str(size), f"{spread:.3f}", f"{values[0]:.3f}", f"{ratio:.1f}", f"{distance:.2f}")
    console.print(table)
    console.print(
        "Selection: the weakest line that flips a bit over the strongest that does not, as the leading modes take them "
        f"up. Residual |e - F(e)| / |e| of the expansion points: {does['residual']:.4f}. They are not the fixed points "
        f"of the network: {states['distance_to_proved']['median']:.2f} from the nearest proved one in the median.\n"
    )


def _draw(network: Network, finding: Finding, points: Points, analysis: report.Analysis) -> list[report.Drawing]:
    """The paper's figure 2, the selection map of its appendix, and the hold curve."""
    trials, states, said = finding.trials, finding.states, finding.said
    n_bits = trials.targets.shape[2]
    projection = report.principal_directions(states.points)
    proved = points.found.hidden[points.proved]
    n_unstable = analysis.modes.n_unstable[points.proved]
    lines = [f"{bit + 1}{sign}" for bit in range(n_bits) for sign in "-+"]
    order = np.argsort(states.names)  # as people read them
    strength = np.linalg.norm(states.taken_up[:, : jslds_mechanism.N_MODES], axis=1)
    hold = {"network": said["hold"]["rnn"], "linear system": said["hold"]["jslds"]}
    outputs, switching_outputs = trials.outputs, trials.switching_outputs
    return [
        report.Drawing("trial.png", lambda ax: plotting.trial(
            _pulses(trials.inputs[0]), trials.targets[0], switching_outputs[0], ax).set_title("The linear system")),
        report.Drawing("outputs.png", lambda ax: plotting.readout_space(
            outputs[:12], switching_outputs[:12], ax), "3d"),
        report.Drawing("expansion_points.png", lambda ax: plotting.expansion_points(
            states.points, states.clusters.label, states.names, proved, n_unstable, projection, ax), "3d"),
        report.Drawing("branches.png", lambda ax: plotting.branches(_one_trial(network, trials, points), ax)),
        report.Drawing("expansion_eigenvalues.png", lambda ax: plotting.state_eigenvalues(
            states.eigenvalues, states.names, ax)),
        report.Drawing("selection.png", lambda ax: plotting.selection_map(
            strength[order], states.flips[order], [states.names[row] for row in order], lines, ax)),
        report.Drawing("hold.png", lambda ax: plotting.hold_curves(said["hold"]["steps"], hold, ax)),
    ]  # fmt: skip


def _pulses(inputs: np.ndarray) -> np.ndarray:
    """-1, 0 or +1 a channel, from its two lines."""
    return inputs[:, 1::2] - inputs[:, ::2]


def _one_trial(network: Network, trials: Trials, points: Points) -> dict[str, np.ndarray]:
    """The first trial in its principal directions: the network, its linear system, the nearest fixed point's."""
    origin, directions = report.principal_directions(trials.both.hidden.reshape(-1, trials.both.hidden.shape[2]))
    shown = {"network": trials.both.hidden[0], "linear system": trials.both.switching[0]}
    fixed = points.found.hidden[points.found.status == FIXED]
    if len(fixed):
        made = switching.predict_by_nearest(
            network.model.step_fn, network.params.cell, fixed, trials.both.hidden[:1], trials.inputs[:1]
        )
        nothing = np.full((1, len(origin)), np.nan)
        for name, states in (("one step ahead", made.one_step[0]), ("freely", made.free_run[0])):
            shown[f"nearest fixed point, {name}"] = np.concatenate([nothing, states])
    return {name: (states - origin) @ directions.T for name, states in shown.items()}


_TASKS = {
    "3bit": Task(
        "three_bit_memory",
        jslds_training.THREE_BIT,
        Recipe(),
        jslds_training.PAPER,
        functools.partial(jslds_training.as_network, "gru"),
        _look,
    ),
    "context": Task(
        "jslds_context",
        jslds_context.CONTEXT,
        jslds_context.RECIPE,
        jslds_context.PAPER,
        jslds_context.as_network,
        jslds_context_report.look,
    ),
}
