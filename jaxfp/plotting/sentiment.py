"""Figures of networks that read sentiment: eight panels after Maheswaranathan et al. (2019), and what is beside them.

Positive is blue, negative orange and neutral gray everywhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from jaxfp.plotting.points import INDEX_COLORS, SLOW_COLOR

_KINDS = {"positive": INDEX_COLORS[1], "negative": INDEX_COLORS[2], "neutral": SLOW_COLOR}
_THETA = mpl.colormaps["viridis"]
_STYLES = (("-", INDEX_COLORS[1]), ("--", SLOW_COLOR), (":", "black"), ("-.", INDEX_COLORS[2]))


def cumulative_variance(shares: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """How many directions states fill.

    Args:
      shares: by name, (n_directions,) cumulative shares of the variance.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> cumulative_variance({"trained": [0.9, 1.0]}).get_xlabel()
      'principal directions'
    """
    ax = plt.subplots()[1] if ax is None else ax
    for (name, share), (line, color) in zip(shares.items(), _STYLES, strict=False):
        ax.plot(np.arange(1, len(share) + 1), 100 * np.asarray(share), line, marker=".", color=color, label=name)
    ax.set(xlabel="principal directions", ylabel="variance (%)", ylim=(0, 104), title="Variance of the states")
    ax.legend(fontsize=8, loc="lower right")
    return ax


def text_states(
    states: Any, labels: Any, readout: Any, points: Any = None, paths: Sequence[Any] = (), ax: Axes | None = None
) -> Axes:
    """Last states of texts by their label, with the direction that the readout looks along.

    Args:
      states: (n_texts, 2), projected.
      labels: (n_texts,), 0 or 1.
      readout: (2,), its direction, projected; drawn at a length of its own.
      points: (n_points, 2) slow points, projected, or None.
      paths: (n_time, 2) each, states of some texts from their first on.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> text_states([[0.0, 1.0], [1.0, 0.0]], [0, 1], [1.0, 0.0]).get_xlabel()
      'PC 1'
    """
    ax = plt.subplots()[1] if ax is None else ax
    states, labels, readout = np.asarray(states), np.asarray(labels) > 0, np.asarray(readout, float)
    for name, rows in (("negative", ~labels), ("positive", labels)):
        ax.scatter(states[rows, 0], states[rows, 1], s=5, lw=0, alpha=0.4, color=_KINDS[name], label=name)
    for path in paths:
        ax.plot(*np.asarray(path).T, color="0.35", lw=0.7, alpha=0.8)
    if points is not None:
        ax.scatter(np.asarray(points)[:, 0], np.asarray(points)[:, 1], s=4, lw=0, color="black", label="slow points")
    # from edge to edge: an arrow whose tip is outside the axes is not drawn at all
    reach = 0.45 * (np.ptp(states, axis=0) / np.maximum(np.abs(readout), 1e-12)).min()
    ends = (states.max(0) + states.min(0)) / 2 + np.outer((-1, 1), reach * readout)
    ax.annotate("", ends[1], ends[0], arrowprops={"arrowstyle": "->", "lw": 1.4, "color": INDEX_COLORS[0]})
    ax.plot([], [], color=INDEX_COLORS[0], lw=1.4, label="readout")
    ax.set(xlabel="PC 1", ylabel="PC 2", title="Last states of texts")
    ax.legend(fontsize=7, loc="best", markerscale=2)
    return ax


def slow_points_on_line(points: Any, theta: Any, line: Any = None, arrows: Any = None, ax: Axes | None = None) -> Axes:
    """Slow points on the line traced through them, both colored by where they lie along it.

    Args:
      points: (n_points, 2), projected.
      theta: (n_points,), from -1 to 1.
      line: (places (n_line, 2), theta (n_line,)), or None.
      arrows: (at (n, 2), direction (n, 2)), slowest modes at some points, or None.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> slow_points_on_line([[0.0, 0.0], [1.0, 0.0]], [-1, 1]).get_ylabel()
      'PC 2'
    """
    ax = plt.subplots()[1] if ax is None else ax
    points = np.asarray(points)
    seen = points if line is None else np.concatenate([points, np.asarray(line[0])])
    reach = np.ptp(seen, axis=0).max()
    if line is not None:
        places = np.asarray(line[0])
        ax.scatter(places[:, 0], places[:, 1], c=line[1], cmap=_THETA, vmin=-1, vmax=1, s=5, lw=0, label="line traced")
    ax.scatter(
        points[:, 0], points[:, 1], c=theta, cmap=_THETA, vmin=-1, vmax=1, s=16, lw=0.3, ec="black", label="slow points"
    )
    if arrows is not None:
        for place, way in zip(np.asarray(arrows[0]), np.asarray(arrows[1]), strict=True):
            ax.plot(*(place + np.outer((-1, 1), 0.08 * reach * way)).T, color=INDEX_COLORS[2], lw=1.2, zorder=3)
        if np.isfinite(np.asarray(arrows[1], float)).any():  # a pair has no direction
            ax.plot([], [], color=INDEX_COLORS[2], lw=1.2, label="slowest mode")
    middle = (seen.max(0) + seen.min(0)) / 2  # both axes at one scale: PC 2 is not stretched into view
    ax.set_xlim(middle[0] - 0.6 * reach, middle[0] + 0.6 * reach)
    ax.set_ylim(middle[1] - 0.6 * reach, middle[1] + 0.6 * reach)
    ax.set(xlabel="PC 1", ylabel="PC 2", title="Slow points (dark: negative)")
    ax.legend(fontsize=7)
    return ax


def theta_eigenvalues(eigenvalues: Any, theta: Any, ax: Axes | None = None) -> Axes:
    """Eigenvalues at some points of the line, with the unit circle.

    Args:
      eigenvalues: (n_points, n_hidden) complex.
      theta: (n_points,).
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> theta_eigenvalues([[0.5, 0.1]], [0.0]).get_xlabel()
      'Re eigenvalue'
    """
    ax = plt.subplots()[1] if ax is None else ax
    turn = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(turn), np.sin(turn), color="black", lw=0.7)
    for values, place, marker in zip(np.asarray(eigenvalues), np.asarray(theta), "ov^sd", strict=False):
        color = _THETA((float(place) + 1) / 2)
        ax.scatter(values.real, values.imag, s=12, lw=0, marker=marker, alpha=0.8, color=color,
                   label=f"θ = {place:.2f}")  # fmt: skip
    ax.set_aspect("equal")
    ax.set(xlabel="Re eigenvalue", ylabel="Im eigenvalue", title="Eigenvalues")
    ax.legend(fontsize=7, loc="lower left")
    return ax


def token_timescales(theta: Any, timescales: Any, length: float, line: Any = None, ax: Axes | None = None) -> Axes:
    """The three slowest timescales at slow points.

    Args:
      theta: (n_points,), where they lie along their line.
      timescales: (n_points, 3), tokens.
      length: of a text, tokens, for comparison.
      line: (theta (n_line,), timescale (n_line,)) of the mode along the line between and beyond them, or None.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> token_timescales([0.0], [[900.0, 20.0, 3.0]], 173).get_yscale()
      'log'
    """
    ax = plt.subplots()[1] if ax is None else ax
    for mode, (values, color) in enumerate(zip(np.asarray(timescales).T, INDEX_COLORS[1:], strict=False)):
        size = (9, 5, 4)[mode]  # where modes 1 and 2 are a pair, one is seen behind the other
        ax.semilogy(theta, values, ".", ms=size, mew=0, color=color, label=f"mode {mode + 1}")
    if line is not None:
        ax.semilogy(*line, color="0.6", lw=1.0, zorder=0, label="along the line")
    ax.axhline(length, color="black", lw=0.8, ls="--", label=f"median text, {length:.0f}")
    ax.set(xlabel="θ", ylabel="timescale (tokens)", title="Slowest timescales")
    ax.legend(fontsize=7)
    return ax


def valence_histograms(valences: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """What words of each kind add along the slowest mode.

    Args:
      valences: by kind, "positive", "negative", "neutral" of a bag of words: (n_words,).
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> valence_histograms({"positive": [1.0], "negative": [-1.0], "neutral": [0.0]}).get_ylabel()
      'words'
    """
    ax = plt.subplots()[1] if ax is None else ax
    together = np.concatenate([np.asarray(values, float) for values in valences.values()])
    if not np.isfinite(together).all():
        ax.set(title="No slowest mode to read words by")
        return ax
    bins = np.linspace(together.min(), together.max(), 41).tolist()
    for name, values in valences.items():
        ax.hist(values, bins, color=_KINDS[name], alpha=0.6, label=f"{name} in a bag of words")
    ax.set(xlabel="valence $l_1 J_{in} x$", ylabel="words", title="Words along the slowest mode")
    ax.locator_params(axis="x", nbins=5)
    ax.set_ylim(top=1.25 * ax.get_ylim()[1])
    ax.legend(fontsize=7, loc="upper left")
    return ax


def alignment_histogram(aligned: Any, null: Any, ax: Axes | None = None) -> Axes:
    """How well the slowest mode points along the line, beside directions at random.

    Args:
      aligned: (n_points,), |cos|; NaN is left out.
      null: (n_random,), |cos|.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> alignment_histogram([0.9], [0.1]).get_xlabel()
      '|cos| with the line of slow points'
    """
    ax = plt.subplots()[1] if ax is None else ax
    aligned, bins = np.asarray(aligned, float), np.linspace(0, 1, 41).tolist()
    for name, values, color in (
        ("random directions", np.asarray(null, float), SLOW_COLOR),
        ("slowest modes", aligned[np.isfinite(aligned)], INDEX_COLORS[1]),
    ):
        if len(values):
            weights = np.full(len(values), 1 / len(values)).tolist()
            ax.hist(values, bins, weights=weights, color=color, alpha=0.7, label=name)
        else:
            ax.plot([], [], color=color, label=f"{name}: none is real")
    ax.set(xlabel="|cos| with the line of slow points", ylabel="share", title="Slowest modes and the line")
    ax.legend(fontsize=7, loc="upper center")
    return ax


def error_histogram(errors: Any, no_change: float, ax: Axes | None = None) -> Axes:
    """Relative errors of one linear step.

    Args:
      errors: any shape, shares.
      no_change: mean error of the guess that nothing changes.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> error_histogram([0.1, 0.2], 0.4).get_xlabel()
      'relative error of one step'
    """
    ax = plt.subplots()[1] if ax is None else ax
    errors = np.asarray(errors, float).ravel()
    end = max(float(np.quantile(errors, 0.99)), 1.2 * no_change)
    ax.hist(np.minimum(errors, end), np.linspace(0, end, 41).tolist(), color=INDEX_COLORS[1], alpha=0.7)
    ax.axvline(float(errors.mean()), color="black", lw=1, label=f"mean {errors.mean():.2f}")
    ax.axvline(no_change, color=SLOW_COLOR, lw=1, ls="--", label=f"no change {no_change:.2f}")
    ax.set(xlabel="relative error of one step", ylabel="steps", title="One linear step")
    ax.legend(fontsize=7)
    return ax


def error_growth(steps: Any, errors: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """How linear steps go wrong when they run by themselves.

    Args:
      steps: (n_steps,).
      errors: by name, (n_steps,) shares.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> error_growth([1, 2], {"linear": [0.1, 0.3]}).get_xlabel()
      'steps'
    """
    ax = plt.subplots()[1] if ax is None else ax
    for (name, values), (line, color) in zip(errors.items(), _STYLES, strict=False):
        ax.plot(steps, values, line, marker=".", color=color, label=name)
    ax.set(xlabel="steps", ylabel="median relative error", title="Linear steps that run by themselves")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    ax.legend(fontsize=8)
    return ax


def modifier_shares(shares: Mapping[str, Mapping[str, float]], null: Any, ax: Axes | None = None) -> Axes:
    """What modifier words do to the push of the words after them.

    Args:
      shares: by kind, by word, the change as a share.
      null: (low, high), between which most neutral words are.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> modifier_shares({"negators": {"not": -0.5}}, (-0.1, 0.1)).get_xlabel()
      'change of the push of the next word (%)'
    """
    ax = plt.subplots()[1] if ax is None else ax
    names: list[str] = []
    for kind, color in zip(shares, (INDEX_COLORS[2], INDEX_COLORS[1]), strict=False):
        ranked = sorted(shares[kind].items(), key=lambda entry: entry[1])
        rows = len(names) + np.arange(len(ranked))
        ax.barh(rows, [100 * value for _, value in ranked], color=color, label=kind)
        names += [name for name, _ in ranked]
    low, high = (100 * float(bound) for bound in null)
    ax.axvspan(low, high, color="0.85", zorder=0, label="nine tenths of neutral words")
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="change of the push of the next word (%)", title="Modifier words")
    if names:
        ax.legend(fontsize=7)
    return ax
