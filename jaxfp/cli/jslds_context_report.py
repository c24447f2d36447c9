"""`python -m jaxfp jslds --task context`: two lines of expansion points, and what is taken up along each.

Figures are those of Smith et al. (2021), figure 3, on their axes: choice is the mean right eigenvector of the mode that
integrates, over expansion points of both contexts; then the lines of both kinds of evidence, each made orthogonal to
the axes before it. Trials shown there have no noise: evidence is a bias in either channel.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxfp import plotting
from jaxfp.analysis import linearization, modes, switching
from jaxfp.cli import frame, jslds_context_mechanism, report
from jaxfp.cli.jslds_context_mechanism import CONTEXTS, EVIDENCE_LINES, N_SKIPPED, SLOW_SPEED, ContextTrials
from jaxfp.cli.jslds_training import Network
from jaxfp.tasks import context_integration
from jaxfp.tasks.context_integration import CONTEXT_LINES

NAMES = ("context 0", "context 1")
AXES = ("choice", "evidence 0", "evidence 1")
LEVELS = (-0.04, -0.02, -0.009, 0.009, 0.02, 0.04)  # evidence a step in either channel, 36 conditions
N_SHOWN = 100  # expansion points of a context in a figure
N_ARROWS = 9
N_CANDIDATES = 256  # of each context


class Lines(NamedTuple):
    """Expansion points of both contexts, evenly drawn and in the order of what the readout says there.

    Attributes:
      points: (n_points, n_hidden).
      context: (n_points,) int.
      eigenvalues: (n_points, n_hidden) complex, leading ones first.
      right: (n_points, n_hidden), leading right eigenvectors, length 1, oriented to larger outputs.
      left: (n_points, n_hidden), leading left eigenvectors, length 1, likewise.
    """

    points: np.ndarray
    context: np.ndarray
    eigenvalues: np.ndarray
    right: np.ndarray
    left: np.ndarray


def look(job: frame.Job, network: Network, provenance: dict[str, Any]) -> tuple[Any, Any, list[report.Drawing]]:
    """Examine, search, print.

    Args:
      job: with trials, candidates and seed.
      network: trained.
      provenance: of it.

    Returns:
      What report.json says of it; points; figures.

    Raises:
      ValueError: if there are no trials.

    Example:
      >>> import argparse
      >>> look(frame.Job(argparse.Namespace(seed=0, trials=0), None, None, None), None, {})
      Traceback (most recent call last):
      ...
      ValueError: n_trials must be at least 1, got 0.
    """
    arguments = job.arguments
    key_trials, key_order, key_search = jax.random.split(jax.random.fold_in(jax.random.key(arguments.seed), 1), 3)
    config = context_integration.ContextIntegrationConfig()
    batch = context_integration.sample_batch(key_trials, config, arguments.trials)
    trials = jslds_context_mechanism.run_context_trials(network, batch)
    n_candidates = arguments.candidates or N_CANDIDATES
    key_points, key_spread = jax.random.split(key_search)
    starts, inputs = jslds_context_mechanism.sample_starts(key_points, trials, n_candidates)
    analysis = report.analyze(
        network.model.step_fn, network.params.cell, starts, inputs, key=key_points,
        progress=not arguments.quiet, checkpoint=arguments.checkpoint and arguments.checkpoint / "search",
    )  # fmt: skip
    found = analysis.points
    proved = np.zeros(len(found.hidden), bool) if analysis.proof is None else analysis.proof.exists
    spread = jslds_context_mechanism.find_line_points(key_spread, network, trials, n_candidates, SLOW_SPEED)
    lines = find_lines(network, trials)
    everywhere = np.ones(len(spread.proved), bool)
    said = {
        "behaviour": jslds_context_mechanism.context_behaviour(key_order, network, batch),
        "contexts": jslds_context_mechanism.explain_context(network, trials),
        "own_points": {
            "points": jslds_context_mechanism.point_counts(jslds_context_mechanism.LinePoints(found, proved)),
            "proved": jslds_context_mechanism.nearest_point_error(network, trials, found, proved),
            "spread": jslds_context_mechanism.nearest_point_error(network, trials, spread.found, everywhere),
        },
        "distance_to_proved": _distances(lines, found, proved),
    }
    _show(job.console, said, provenance)
    report.show(job.console, analysis)
    drawings = report.figures(analysis, trials.does.both.hidden[:32])
    drawings += _draw(network, trials, lines, found.hidden[proved], analysis.modes.n_unstable[proved])
    return {**said, **report.summary(analysis)}, found, drawings


def find_lines(network: Network, trials: ContextTrials) -> Lines:
    """Expansion points along the line of each context, and the mode that integrates there.

    Args:
      network: trained.
      trials: at least some of either context.

    Returns:
      Lines, at most `N_SHOWN` points of each context.

    Example:
      >>> from jaxfp.cli import jslds_context
      >>> network = jslds_context.init_network(jax.random.key(0), jslds_context.Recipe("tanh", n_units=4))
      >>> config = context_integration.ContextIntegrationConfig(n_time=6)
      >>> batch = context_integration.sample_batch(jax.random.key(0), config, 8)
      >>> find_lines(network, jslds_context_mechanism.run_context_trials(network, batch)).points.shape
      (32, 4)
    """
    w_out, drawn = np.asarray(network.params.readout[0][0], np.float64), []
    for which in CONTEXTS:
        expansion = trials.does.both.expansion[trials.context == which, N_SKIPPED:]
        expansion = expansion.reshape(-1, expansion.shape[-1])
        order = np.argsort(expansion @ w_out)
        drawn.append(expansion[_evenly(order, N_SHOWN)])
    points = np.concatenate(drawn)
    context = np.repeat(CONTEXTS, [len(each) for each in drawn])
    inputs = np.eye(trials.does.inputs.shape[2])[np.array(CONTEXT_LINES)[context]]
    linear = linearization.linearize(network.model.step_fn, network.params.cell, points, inputs)
    spectra = modes.spectrum(linear.jacobian)
    right, left = np.asarray(spectra.right)[:, :, 0].real, np.asarray(spectra.left)[:, 0].real
    outward = np.where(right @ w_out < 0, -1.0, 1.0)[:, None]
    unit = left / np.linalg.norm(left, axis=1, keepdims=True)
    return Lines(points, context, np.asarray(spectra.eigenvalues), outward * right, outward * unit)


def choice_axes(network: Network, lines: Lines) -> np.ndarray:
    """Axes of choice and of both kinds of evidence, orthonormal, each oriented as what it is made of.

    Args:
      network: trained.
      lines: of it.

    Returns:
      (3, n_hidden).

    Example:
      >>> from jaxfp.cli import jslds_context
      >>> network = jslds_context.init_network(jax.random.key(0), jslds_context.Recipe("tanh", n_units=4))
      >>> axes = choice_axes(network, Lines(None, None, None, np.eye(4)[:1], None))
      >>> bool(np.allclose(axes @ axes.T, np.eye(3))), axes[0].tolist()
      (True, [1.0, 0.0, 0.0, 0.0])
    """
    w_in = np.asarray(network.params.cell["w_in"], np.float64)
    made_of = np.column_stack([lines.right.mean(0), w_in[:, EVIDENCE_LINES]])
    axes, upper = np.linalg.qr(made_of)
    return (axes * np.sign(np.diag(upper))).T + 0.0  # no -0


def _evenly(rows: np.ndarray, n_drawn: int) -> np.ndarray:
    """So many of them, or all."""
    return rows[np.linspace(0, len(rows) - 1, min(n_drawn, len(rows))).astype(int)]


def _distances(lines: Lines, found: Any, proved: np.ndarray) -> list[dict[str, float]]:
    """From expansion points to the nearest proved fixed point of the same context."""
    said = []
    for context in CONTEXTS:
        here = lines.points[lines.context == context]
        fixed = found.hidden[proved & (found.inputs[:, CONTEXT_LINES[context]] > 0)]
        distance, _ = switching.nearest_distance(here, fixed)
        relative = distance / np.linalg.norm(here, axis=1)
        said.append({"median": float(np.median(distance)), "median_relative": float(np.median(relative))})
    return said


def _show(console: Console, said: dict[str, Any], provenance: dict[str, Any]) -> None:
    does, own = said["behaviour"], said["own_points"]
    console.print(f"tanh network trained with its linear system, seed {provenance['seed']}; fresh trials, no noise:")
    console.print(
        f"R2 of the network {does['r_squared']['rnn']:.4f}, of the linear system {does['r_squared']['jslds']:.4f}. "
        f"States of the linear system, running freely, are {does['relative_error']:.4f} from those of the network "
        f"(relative); with its expansion points in another order {does['shuffled_relative_error']:.3f}. Linearization "
        f"of the same network one step ahead: about its nearest proved fixed point {own['proved']['one_step']:.3f}, "
        f"about slow points spread over the line {own['spread']['one_step']:.3f}."
    )
    console.print("\n[bold]Expansion points[/bold], least, median and largest:")
    table = Table()
    for name in ("context", "|eigenvalue|", "the next", "selection", "to the nearest proved fixed point"):
        table.add_column(name, justify="right")
    for context, distance in zip(CONTEXTS, said["distance_to_proved"], strict=True):
        at = said["contexts"][str(context)]
        spreads = [" ".join(f"{at[name][part]:{form}}" for part in ("least", "median", "largest"))
                   for name, form in (("leading", ".3f"), ("second", ".3f"), ("selection", ".0f"))]  # fmt: skip
        table.add_row(str(context), *spreads, f"{distance['median']:.2f}")
    console.print(table)
    console.print(
        "Selection: how many times more the leading mode takes up of the evidence that the context asks for than of "
        f"the other. Residual |e - F(e)| / |e| of the expansion points: {does['residual']:.4f}.\n"
    )


def draw_selection(network: Network, lines: Lines) -> report.Drawing:
    """Both lines on the axes of choice and evidence, with what is taken up along them.

    Args:
      network: trained.
      lines: of it.

    Returns:
      What to draw, into axes with projection="3d".

    Example:
      >>> from jaxfp.cli import jslds_context
      >>> network = jslds_context.init_network(jax.random.key(0), jslds_context.Recipe("tanh", n_units=4))
      >>> draw_selection(network, Lines(np.eye(4)[:2], np.arange(2), None, np.eye(4)[:2], np.eye(4)[:2])).projection
      '3d'
    """
    axes = choice_axes(network, lines)
    each = [np.flatnonzero(lines.context == context) for context in CONTEXTS]
    arrows = np.concatenate([_evenly(rows, N_ARROWS) for rows in each])
    shown = lines.points @ axes.T
    vectors = np.ptp(shown[:, 1:], axis=0).max() / 2 * lines.left[arrows] @ axes.T

    def draw(ax: Any) -> Any:
        return plotting.selection_vectors(
            shown, lines.context, NAMES, shown[arrows], vectors, lines.context[arrows], AXES, ax
        )

    return report.Drawing("selection_vectors.png", draw, "3d")


def draw_evidence(network: Network, lines: Lines, context: int, channel: int) -> report.Drawing:
    """Trials of one context by the evidence in one channel, asked for or not.

    Args:
      network: trained.
      lines: of it.
      context: 0 or 1.
      channel: 0 or 1.

    Returns:
      What to draw.

    Example:
      >>> from jaxfp.cli import jslds_context
      >>> network = jslds_context.init_network(jax.random.key(0), jslds_context.Recipe("tanh", n_units=4))
      >>> draw_evidence(network, Lines(np.eye(4)[:1], np.zeros(1, int), None, np.eye(4)[:1], None), 0, 1).name
      'context_0_evidence_1.png'
    """
    n_time = context_integration.ContextIntegrationConfig().n_time
    level = np.stack([each.ravel() for each in np.meshgrid(LEVELS, LEVELS)], 1)
    evidence = jnp.asarray(np.repeat(level[:, None], n_time, axis=1))
    batch = context_integration.as_batch(evidence, jnp.full(len(level), context))
    both = jslds_context_mechanism.run_context_trials(network, batch).does.both
    axes = choice_axes(network, lines)[[0, 1 + channel]]
    network_states, switching_states = (branch[:, N_SKIPPED:] @ axes.T for branch in (both.hidden, both.switching))
    points = lines.points[lines.context == context] @ axes.T
    asked = "asked for" if channel == context else "not asked for"

    def draw(ax: Any) -> Any:
        names = AXES[0], AXES[1 + channel]
        low = plotting.evidence_plane(network_states, switching_states, level[:, channel], points, names, ax)
        low.set_title(f"{NAMES[context]}, by evidence {channel}, which is {asked}")
        return low

    return report.Drawing(f"context_{context}_evidence_{channel}.png", draw)


def _draw(
    network: Network, trials: ContextTrials, lines: Lines, proved: np.ndarray, n_unstable: np.ndarray
) -> list[report.Drawing]:
    """The paper's figure 3."""
    origin, directions = report.principal_directions(lines.points)
    both = trials.does.both
    first = {"network": both.hidden[0], "linear system": both.switching[0]}
    one_trial = {name: (states - origin) @ directions.T for name, states in first.items()}
    eigenvalues = [lines.eigenvalues[lines.context == context] for context in CONTEXTS]
    return [
        report.Drawing("expansion_points.png", lambda ax: plotting.expansion_points(
            lines.points, lines.context, NAMES, proved, n_unstable, (origin, directions), ax
        ).set_title("Expansion points by context, and fixed points"), "3d"),
        report.Drawing("branches.png", lambda ax: plotting.branches(one_trial, ax)),
        report.Drawing("expansion_eigenvalues.png", lambda ax: plotting.state_eigenvalues(
            eigenvalues, NAMES, ax).set_title("Eigenvalues at expansion points")),
        draw_selection(network, lines),
        *(draw_evidence(network, lines, context, channel) for context in CONTEXTS for channel in EVIDENCE_LINES),
    ]  # fmt: skip
