"""Figures of slow lines: where they run, what drifts along them, how slow their modes are."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from jaxfp.analysis.lines import Line
from jaxfp.plotting.points import INDEX_COLORS, SLOW_COLOR

_ALONG, _OTHER = "#d55e00", "#0072b2"
_N_ARROWS = 13


def slow_line(line: Line, projection: Any, points: Any = None, ax: Axes | None = None) -> Axes:
    """A slow line in two dimensions, its color the drift, with its tangents and the fixed points along it.

    Args:
      line: see `trace_line`.
      projection: (origin (n_hidden,), axes (2, n_hidden)), e.g. mean and first two principal directions.
      points: (n_given, n_hidden) slow points it was traced from, or None.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if the projection does not have two axes, or the line is empty.

    Example:
      >>> from jaxfp import trace_line
      >>> line = trace_line(lambda p, h, u: p * h, np.array([1.0, 0.5]), np.array([[-1.0, 0.0], [1.0, 0.0]]))
      >>> slow_line(line, (np.zeros(2), np.eye(2))).get_xlabel()
      'PC 1'
    """
    origin, directions = np.asarray(projection[0]), np.asarray(projection[1])
    if directions.shape != (2, line.hidden.shape[1]) or not len(line.hidden):
        raise ValueError(
            f"projection must have axes (2, {line.hidden.shape[1]}) and the line a point or more, got "
            f"{directions.shape} and {len(line.hidden)} points."
        )
    ax = plt.subplots()[1] if ax is None else ax
    if points is not None:
        low = (np.asarray(points) - origin) @ directions.T
        ax.scatter(low[:, 0], low[:, 1], s=9, lw=0, color=SLOW_COLOR, alpha=0.5, label=f"slow points ({len(low)})")
    shown, tangents = (line.hidden - origin) @ directions.T, line.tangent @ directions.T
    path = np.r_[shown, shown[:1]] if line.closed else shown
    drift = np.append(line.drift, line.drift[0]) if line.closed else line.drift
    largest = max(np.abs(line.drift).max(), line.rounding.max())
    pieces = LineCollection(
        list(np.stack([path[:-1], path[1:]], 1)), cmap="coolwarm", norm=Normalize(-largest, largest), lw=3
    )
    pieces.set_array((drift[:-1] + drift[1:]) / 2)
    ax.add_collection(pieces)
    ax.figure.colorbar(pieces, ax=ax, label="drift along the line", shrink=0.8)
    some = np.linspace(0, len(shown) - 1, min(_N_ARROWS, len(shown))).round().astype(int)
    ax.quiver(*shown[some].T, *tangents[some].T, color="black", width=0.004, scale=14, scale_units="width", zorder=3)
    zeros, stable = (line.zeros.hidden - origin) @ directions.T, line.zeros.rate < 0
    for name, rows, face in (("stable along it", stable, INDEX_COLORS[0]), ("unstable along it", ~stable, "white")):
        if rows.any():
            ax.scatter(
                zeros[rows, 0], zeros[rows, 1], s=42, color=face, ec="black", zorder=4, label=f"{name} ({rows.sum()})"
            )
    ax.set(xlabel="PC 1", ylabel="PC 2")
    ax.set_title(line.summary().replace(": ", ":\n").replace(", ", ",\n"), fontsize=9)
    ax.set_aspect("equal", adjustable="datalim")
    ax.autoscale_view()
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8)
    return ax


def line_drift(line: Line, ax: Axes | None = None) -> Axes:
    """The drift along a slow line, its fixed points, and what rounding leaves.

    Args:
      line: see `trace_line`.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> from jaxfp import trace_line
      >>> line = trace_line(lambda p, h, u: p * h, np.array([1.0, 0.5]), np.array([[-1.0, 0.0], [1.0, 0.0]]))
      >>> line_drift(line).get_xlabel()
      'arc length'
    """
    ax = plt.subplots()[1] if ax is None else ax
    ax.fill_between(line.arc_length, -line.rounding, line.rounding, color="0.85", label="rounding")
    ax.axhline(0, color="black", lw=0.8)
    ax.plot(line.arc_length, line.drift, color=_ALONG, marker=".", ms=3, label="drift")
    stable = line.zeros.rate < 0
    for name, rows, face in (("stable along it", stable, INDEX_COLORS[0]), ("unstable along it", ~stable, "white")):
        if rows.any():
            ax.scatter(
                line.zeros.arc_length[rows], np.zeros(rows.sum()), s=42, color=face, ec="black", zorder=4, label=name
            )
    ax.set(xlabel="arc length", ylabel="residual along the tangent", title="Drift along the line")
    ax.legend(fontsize=8)
    return ax


def line_timescales(line: Line, ax: Axes | None = None) -> Axes:
    """Timescales along a slow line, of the mode along it and of the slowest other one; crosses where they grow.

    Args:
      line: see `trace_line`.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> from jaxfp import trace_line
      >>> line = trace_line(lambda p, h, u: p * h, np.array([0.99, 0.5]), np.array([[-1.0, 0.0], [1.0, 0.0]]))
      >>> line_timescales(line).get_ylabel()
      'timescale'
    """
    ax = plt.subplots()[1] if ax is None else ax
    columns = (
        ("along the line", line.timescale, _ALONG),
        ("slowest other mode", line.transverse_timescale, _OTHER),
    )
    for name, times, color in columns:
        there = np.isfinite(times) & (times != 0)
        size = np.where(there, np.abs(times), np.nan)
        endless = "" if there.any() else ", none finite"
        ax.plot(line.theta, size, color=color, label=name + endless)
        grows = there & (times < 0)
        if grows.any():
            ax.plot(line.theta[grows], size[grows], "x", color=color, ms=4, label="grows")
    ax.set(xlabel=r"$\theta$", ylabel="timescale", yscale="log", title="Timescales along the line")
    ax.legend(fontsize=8)
    return ax
