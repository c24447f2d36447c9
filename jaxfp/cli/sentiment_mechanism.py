"""How a network reads sentiment: slow points on a line, one slow mode along it, and what each word adds to it.

A text moves the state along a line of slow points; the readout looks along that line. At each slow point h* the network
is linearized at no input, x* = 0 (`analysis.integration`): its slowest mode (r_1, l_1) lies along the line and
remembers for tau_1 = |1 / ln |lambda_1|| tokens, and a word x pushes along it by its valence l_1 J_in x.

Slow points are states with (1/N) |F(h) - h|^2 < 1e-8, N the length of the state (of an LSTM (h, c), twice its units),
searched from states that texts lead to; each search stops as soon as it is there, so that they spread over the line.
The search for what is truly fixed stands beside it. The central points are the third of the slow points at which the
readout is nearest to undecided. The line is traced through them and on, as far as texts get along it, unless the drift
there would cross it within a text: theta is the arc length along it, -1 where the readout is least, 1 where it is most.

Maheswaranathan, Williams, Golub, Ganguli & Sussillo (2019), NeurIPS, arXiv:1906.10720, here "the paper". S4 to S12 are
our names for what it reports, with thresholds of our own, since it gives few numbers.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import pipeline
from jaxfp.analysis import coordinates, integration, linearization, manifolds, modes, switching
from jaxfp.cli.sentiment_networks import Network
from jaxfp.models import classifier
from jaxfp.search.dedupe import take
from jaxfp.search.solvers.levenberg_marquardt import levenberg_marquardt
from jaxfp.tasks import sentiment
from jaxfp.types import FIXED, SLOW, FixedPoints

MEAN_SQUARE = 1e-8  # (1/N) |F(h) - h|^2 of a slow point
N_STARTS = 400
N_MODES = 120  # slow points whose modes are taken, evenly along the line
_CHUNK = 128  # texts at once


class SlowPoints(NamedTuple):
    """Slow points, the line traced through them, and modes at some of them.

    Attributes:
      points: slow and fixed points of the search that stops early.
      components: their principal directions.
      line: traced through them and on; empty where there is none.
      core: traced through them alone: whose verdict is reported.
      theta: (n_points,) from -1 to 1 along the line, growing with the logit; where there is no line, along the first
        principal direction.
      logits: (n_points,) of the readout there.
      rows: (n_modes,) int, points whose modes are taken, in order of theta.
      modes: `spectrum` there, with vectors.
      leading: slowest mode there.
      input_jacobian: (n_modes, n_hidden, n_embedding) there.
      timescales: (n_modes, 3) tau, tokens, slowest first.
      central: (n_modes,) bool, the third where the readout is nearest to undecided.
    """

    points: FixedPoints
    components: integration.Components
    line: manifolds.Line
    core: manifolds.Line
    theta: np.ndarray
    logits: np.ndarray
    rows: np.ndarray
    modes: modes.Modes
    leading: integration.Leading
    input_jacobian: np.ndarray
    timescales: np.ndarray
    central: np.ndarray


def read(network: Network, texts: sentiment.Texts) -> np.ndarray:
    """The state after each token.

    Args:
      network: of any cell.
      texts: encoded with its vocabulary.

    Returns:
      (n_texts, n_time, n_hidden) float32; what stands behind the end of a text has seen pads.

    Example:
      >>> tiny = Network(*classifier.init(jax.random.key(0), "gru", 10, 4, 8), ())
      >>> read(tiny, sentiment.Texts(np.ones((3, 5), int), np.array([5, 2, 1]), np.zeros(3))).shape
      (3, 5, 8)
    """
    chunks = [texts.tokens[start : start + _CHUNK] for start in range(0, len(texts.tokens), _CHUNK)]
    return np.concatenate([np.asarray(_states(network.step_fn, network.params, chunk)) for chunk in chunks])


def inside(texts: sentiment.Texts) -> np.ndarray:
    """Which tokens belong to their text.

    Args:
      texts: encoded with its vocabulary.

    Returns:
      (n_texts, n_time) bool.

    Example:
      >>> inside(sentiment.Texts(np.ones((2, 3), int), np.array([3, 1]), np.zeros(2))).tolist()
      [[True, True, True], [True, False, False]]
    """
    return np.arange(texts.tokens.shape[1]) < np.asarray(texts.lengths)[:, None]


def find_points(network: Network, starts: np.ndarray) -> tuple[FixedPoints, FixedPoints]:
    """What is slow, and what is fixed, without input.

    Args:
      network: of any cell.
      starts: (n_starts, n_hidden) states.

    Returns:
      Points of the search that stops at the paper's tolerance, those slower than it alone; points of the strict search.

    Example:
      >>> tiny = Network(*classifier.init(jax.random.key(0), "gru", 10, 4, 8), ())
      >>> slow, strict = find_points(tiny, np.zeros((4, 8)))
      >>> bool((slow.q <= 0.5 * 8 * MEAN_SQUARE).all())
      True
    """
    starts = np.asarray(starts, np.float64)
    rest = np.zeros(network.params.embedding.shape[1])
    tolerance = 0.5 * MEAN_SQUARE * starts.shape[1]  # our q is half the sum of squares
    # Newton leaps along a line on which I - J is nearly singular; damped steps stay near where they began.
    slow = pipeline.find_fixed_points(
        network.step_fn, network.params.cell, starts, rest, slow_tolerance=tolerance,
        solver=levenberg_marquardt(damping=0.1),
    )  # fmt: skip
    strict = pipeline.find_fixed_points(network.step_fn, network.params.cell, starts, rest)
    return take(slow, slow.q <= tolerance), strict


def describe_points(network: Network, points: FixedPoints, states: np.ndarray, length: float) -> SlowPoints:
    """Slow points in order, with the modes of some.

    Args:
      network: of any cell.
      points: slow points, at least 2.
      states: (n_states, n_hidden), of texts: how far the line is traced.
      length: of a text, tokens: how slow it has to be.

    Returns:
      SlowPoints.

    Raises:
      ValueError: for less than 2 points.

    Example:
      >>> tiny = Network(*classifier.init(jax.random.key(0), "gru", 10, 4, 8), ())
      >>> points = find_points(tiny, np.zeros((4, 8)))[1]
      >>> describe_points(tiny, points, np.zeros((1, 8)), 20.0)
      Traceback (most recent call last):
      ...
      ValueError: a line needs 2 slow points or more, got 1.
    """
    if len(points.hidden) < 2:
        raise ValueError(f"a line needs 2 slow points or more, got {len(points.hidden)}.")
    weight, bias = (np.asarray(x, np.float64) for x in network.params.readout)
    rest = np.zeros(network.params.embedding.shape[1])
    components = integration.principal_components(points.hidden)
    along = (np.asarray(states, np.float64) - components.origin) @ components.directions[0]
    ends = np.quantile(along, [0.02, 0.98])
    core = manifolds.trace_line(network.step_fn, network.params.cell, points.hidden, rest, toward=weight)
    line = manifolds.trace_line(
        network.step_fn, network.params.cell, points.hidden, rest, toward=weight, beyond=float(np.abs(ends).max()),
        max_speed=float(np.ptp(ends)) / length,
    )  # fmt: skip
    logits = points.hidden @ weight + bias
    if len(line.hidden) and not line.closed:
        theta = coordinates.project(line, points.hidden).theta
    else:
        along = (points.hidden - components.origin) @ components.directions[0]
        theta = 2 * (along - along.min()) / np.ptp(along) - 1
        theta = theta if np.sum((logits - logits.mean()) * theta) >= 0 else -theta
    order = np.argsort(theta, kind="stable")
    rows = order[np.unique(np.linspace(0, len(order) - 1, min(N_MODES, len(order))).round().astype(int))]
    linear = linearization.linearize(network.step_fn, network.params.cell, points.hidden[rows], rest)
    spectra = modes.spectrum(linear.jacobian)
    size = np.abs(logits[rows])
    return SlowPoints(
        points, components, line, core, theta, logits, rows, spectra, integration.leading_modes(spectra, weight),
        np.asarray(linear.input_jacobian), np.abs(spectra.timescale[:, :3]), size <= np.quantile(size, 1 / 3),
    )  # fmt: skip


def dimensions(trained: np.ndarray, untrained: np.ndarray) -> dict[str, Any]:
    """S4: how many directions the states of the same texts fill before and after training.

    Args:
      trained: (n_states, n_hidden).
      untrained: (n_states, n_hidden).

    Returns:
      Dict: cumulative shares of the first ten principal directions, and participation ratios.

    Example:
      >>> dimensions(np.diag([1.0, 0.0]), np.eye(2))["participation_ratio"]
      {'trained': 1.0, 'untrained': 1.0}
    """
    found = {"trained": trained, "untrained": untrained}
    parts = {name: integration.principal_components(states) for name, states in found.items()}
    return {
        "cumulative": {name: part.cumulative[:10].tolist() for name, part in parts.items()},
        "participation_ratio": {name: part.participation_ratio for name, part in parts.items()},
    }


def describe(
    key: jax.Array, network: Network, slow: SlowPoints, strict: FixedPoints, median_length: float
) -> dict[str, Any]:
    """S5, S6 and S11: the slow points, their modes, and what does not fit.

    Args:
      key: of the random directions that alignments are held against.
      network: of any cell.
      slow: see `SlowPoints`.
      strict: points of the strict search.
      median_length: of the texts, tokens.

    Returns:
      Dict.

    Example:
      >>> describe.__name__
      'describe'
    """
    weight = np.asarray(network.params.readout[0], np.float64)
    direction, n_hidden = slow.components.directions[0], len(weight)
    on_line = aligned(slow)
    null = integration.cosines(integration.random_directions(key, 1000, n_hidden), direction)
    on_tangent = np.full(len(slow.rows), np.nan)
    if len(slow.line.hidden):
        near = switching.nearest_distance(slow.points.hidden[slow.rows], slow.line.hidden)[1]
        on_tangent = np.abs(np.sum(slow.leading.right * slow.line.tangent[near], axis=1))
    pair, turns = slow.leading.oscillatory, integration.oscillates(slow.modes)
    with np.errstate(divide="ignore"):
        period = 1 / np.abs(slow.modes.frequency[:, 0])
    adds_up = integration.leading_modes(slow.modes, weight, nearest_one=True)
    with np.errstate(divide="ignore"):
        keeps = 1 / np.abs(np.log(np.abs(adds_up.eigenvalue)))
    scales, central = slow.timescales, slow.central
    size = np.abs(slow.modes.eigenvalues)
    residual = slow.points.speed**2 / n_hidden
    return {
        "n_starts": slow.points.report.n_candidates,
        "n_slow_points": len(slow.points.hidden),
        "mean_square_residual": {"median": float(np.median(residual)), "max": float(residual.max())},
        "logit_range": [float(slow.logits.min()), float(slow.logits.max())],
        "pc1": float(slow.components.cumulative[0]),
        "pc12": float(slow.components.cumulative[1]),
        "cos_line_readout": float(integration.cosines(weight[None], direction)[0]),
        "strict": {
            "n_fixed": int(np.sum(strict.status == FIXED)),
            "n_not_isolated": int(np.sum((strict.status == FIXED) & ~strict.isolated)),
            "n_slow": int(np.sum(strict.status == SLOW)),
            "counts": strict.report.counts,
        },
        "timescales": {
            "central_median": np.median(scales[central], axis=0).tolist(),
            "all_median": np.median(scales, axis=0).tolist(),
            "all_least": scales.min(0).tolist(),
            "all_largest": scales.max(0).tolist(),
        },
        "median_length": float(median_length),
        "gap": float(np.median(scales[central, 0] / scales[central, 1])),
        "line": {
            "verdict": slow.core.verdict,
            "summary": slow.core.summary(),
            "length": slow.core.length,
            "closed": slow.core.closed,
            "ends": list(slow.core.ends),
            "crossing_time": slow.core.crossing_time,
            "separation": slow.core.separation,
            "n_zeros": len(slow.core.zeros.arc_length),
            "length_with_what_texts_reach": slow.line.length,
            "theta_of_slow_points": [float(slow.theta.min()), float(slow.theta.max())],
            "largest_curvature": float(slow.line.curvature.max()) if len(slow.line.hidden) else None,
        },
        "real_mode_nearest_one": {
            "eigenvalue": _median(adds_up.eigenvalue.real[slow.central]),
            "timescale": _median(keeps[slow.central]),
            "on_line": _median(integration.cosines(adds_up.right, direction)[slow.central]),
        },
        "right_on_line": {
            "median": _median(on_line),
            "central_median": _median(on_line[central]),
            "tangent_median": _median(on_tangent),
            "null_mean": float(null.mean()),
            "null_largest": float(null.max()),
            "null_bound": 3 / np.sqrt(n_hidden),
        },
        "flags": {
            "n_modes_taken": len(slow.rows),
            "n_points_growing": int(np.sum(size[:, 0] > 1)),
            "largest_eigenvalue": float(size.max()),
            "n_growing_modes_most": int(np.sum(size > 1, axis=1).max()),
            "n_points_complex": int(pair.sum()),
            "period": _median(period[pair]),
            "timescale_of_pairs": _median(scales[pair, 0]),
            "n_points_oscillating": int(turns.sum()),
            "n_central_oscillating": int(turns[central].sum()),
            "n_defective": int(np.sum(np.isnan(slow.leading.right[:, 0]) & ~pair)),
            "verdicts": {str(v): int(np.sum(slow.modes.verdict == v)) for v in np.unique(slow.modes.verdict)},
        },
    }


def aligned(slow: SlowPoints) -> np.ndarray:
    """|r_1 . m|, m the first principal direction of the slow points.

    Args:
      slow: see `SlowPoints`.

    Returns:
      (n_modes,), NaN where the slowest mode oscillates.

    Example:
      >>> aligned.__name__
      'aligned'
    """
    return integration.cosines(slow.leading.right, slow.components.directions[0])


def _median(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


@functools.partial(jax.jit, static_argnums=0)
def _states(step_fn: Any, params: Any, tokens: Any) -> jax.Array:
    return jax.vmap(lambda text: classifier.states(step_fn, params, text))(jnp.asarray(tokens))
