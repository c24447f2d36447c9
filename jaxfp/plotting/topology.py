"""Figures of connections: unstable manifolds between the points, what pulses do, and pulses that almost do it."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from jaxfp.plotting.points import INDEX_COLORS, SLOW_COLOR


def unstable_manifolds(
    hidden: Any, n_unstable: Any, paths: Sequence[Any], projection: Any, names: Any = None, ax: Axes | None = None
) -> Axes:
    """Points in three dimensions, joined by the trajectories that leave the saddles.

    Args:
      hidden: (n_points, n_hidden).
      n_unstable: (n_points,) unstable dimensions of each.
      paths: trajectories (n_time, n_hidden), each from a saddle to where it ends.
      projection: (origin (n_hidden,), axes (3, n_hidden)), e.g. mean and first three principal directions.
      names: n_points strings, of which those of the stable points are written beside them; or None.
      ax: axes with projection="3d"; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if the projection does not have three axes, or the axes given are flat.

    Example:
      >>> path = np.linspace([0.0, 0.0, 0.0], [1.0, 1.0, 0.0], 5)
      >>> unstable_manifolds(path[[0, -1]], [1, 0], [path], (np.zeros(3), np.eye(3))).get_xlabel()
      'PC 1'
    """
    hidden, index = np.asarray(hidden), np.asarray(n_unstable)
    origin, directions = np.asarray(projection[0]), np.asarray(projection[1])
    if directions.shape != (3, hidden.shape[1]):
        raise ValueError(f"projection must have axes (3, {hidden.shape[1]}), got {directions.shape}.")
    ax = plt.figure().add_subplot(projection="3d") if ax is None else ax
    if ax.name != "3d":
        raise ValueError(f'ax must be made with projection="3d", got {ax.name!r}.')
    low: Any = ax  # a 3-D axes; its methods take one coordinate more than Axes declares
    for path in paths:
        low.plot(*((np.asarray(path) - origin) @ directions.T).T, color=INDEX_COLORS[1], lw=1.2, alpha=0.8)
    shown, many = (hidden - origin) @ directions.T, len(INDEX_COLORS) - 1
    for number in np.unique(np.minimum(index, many)):
        rows = np.flatnonzero(np.minimum(index, many) == number)
        name = "stable" if number == 0 else f"{number}{' or more' if number == many else ''} unstable"
        label = f"{name} ({len(rows)})"
        low.scatter(
            *shown[rows].T, color=INDEX_COLORS[number], s=60 if number == 0 else 24, depthshade=False, label=label
        )
    if names is not None:
        for row in np.flatnonzero(index == 0):
            low.text(*shown[row], f"  {names[row]}", fontsize=9)
    for number, axis in enumerate((low.xaxis, low.yaxis, low.zaxis), start=1):
        axis.set_tick_params(labelsize=8, pad=0)
        axis.set_label_text(f"PC {number}")
        axis.labelpad = 2
    low.set_box_aspect((1, 1, 1), zoom=0.92)
    low.set_title("Unstable manifolds of the saddles with one unstable dimension")
    low.legend(loc="upper left", fontsize=8)
    return ax


def edge_distances(distance: Any, ax: Axes | None = None) -> Axes:
    """How many saddles join two memories, by the number of bits in which the memories differ.

    Args:
      distance: (n_edges,) Hamming distances.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> edge_distances([1, 1, 2]).get_ylabel()
      'saddles'
    """
    ax = plt.subplots()[1] if ax is None else ax
    counts = np.bincount(np.asarray(distance, int), minlength=4)
    bars = ax.bar(np.arange(len(counts)), counts, color=INDEX_COLORS[1], width=0.6)
    ax.bar_label(bars)
    ax.set_xticks(np.arange(len(counts)))
    ax.set(xlabel="bits in which the two memories differ", ylabel="saddles", title="Memories joined by a saddle")
    return ax


def truth_table(reached: Any, right: Any, memories: Any, pulses: Any, ax: Axes | None = None) -> Axes:
    """Which memory each pulse leads to from each memory.

    Args:
      reached: (n_memories, n_pulses) strings.
      right: (n_memories, n_pulses) bool, is it what the task asks for?
      memories: n_memories strings.
      pulses: n_pulses strings.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> truth_table([["+", "-"]], [[True, True]], ["+"], ["up", "down"]).get_xlabel()
      'pulse'
    """
    ax = plt.subplots()[1] if ax is None else ax
    right = np.asarray(right, bool)
    colors = mpl.colors.ListedColormap([INDEX_COLORS[2], "#d9efe6"])
    ax.imshow(right, cmap=colors, vmin=0, vmax=1, aspect="auto")
    for row, names in enumerate(reached):
        for column, name in enumerate(names):
            ax.text(column, row, name, ha="center", va="center", fontsize=10)
    ax.set_xticks(np.arange(len(pulses)), pulses)
    ax.set_yticks(np.arange(len(memories)), memories)
    ax.set(xlabel="pulse", ylabel="memory", title=f"Memory after the pulse: {right.sum()} of {right.size} right")
    return ax


def amplitude_sweep(
    along: Any, amplitudes: Any, saddle: float, critical: float, names: tuple[str, str], ax: Axes | None = None
) -> Axes:
    """Trajectories after pulses of one shape whose amplitudes lie on either side of the critical one.

    Args:
      along: (n_amplitudes, n_time) coordinate of the states, -1 at the first memory, +1 at the second.
      amplitudes: (n_amplitudes,).
      saddle: coordinate of the saddle.
      critical: the critical amplitude.
      names: of the two memories.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> amplitude_sweep(np.zeros((1, 5)), [0.5], 0.0, 0.6, ("-", "+")).get_xlabel()
      'time (steps)'
    """
    ax = plt.subplots()[1] if ax is None else ax
    for path, amplitude in zip(along, np.asarray(amplitudes), strict=True):
        below = amplitude <= critical
        ax.plot(path, color=INDEX_COLORS[1] if below else INDEX_COLORS[2], lw=1.2, alpha=0.8)
    ax.axhline(saddle, color=SLOW_COLOR, lw=0.8, ls=":")
    ax.text(0.99, saddle, "saddle", transform=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize=9)
    ax.plot([], color=INDEX_COLORS[1], label=f"amplitude at or below {critical:.6f}")
    ax.plot([], color=INDEX_COLORS[2], label="above")
    ax.set_yticks([-1, 1], list(names))
    ax.set(xlabel="time (steps)", ylabel="memory", title="Pulses just too weak and just strong enough")
    ax.legend(fontsize=8, loc="center right", bbox_to_anchor=(1, 0.3))
    return ax


def approach(offset: Any, distance: Any, ax: Axes | None = None) -> Axes:
    """How near trajectories come to the saddle, against how far their pulse is from the critical amplitude.

    Args:
      offset: (n_sweeps, n_depth) distance of the amplitude from the critical one.
      distance: (n_sweeps, n_depth) least distance of the trajectory from the saddle, activation units.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> approach([[0.1, 0.01]], [[1.0, 0.3]]).get_xscale()
      'log'
    """
    ax = plt.subplots()[1] if ax is None else ax
    for x, y in zip(np.asarray(offset), np.asarray(distance), strict=True):
        shown = x > 0  # false for NaN, too
        order = np.argsort(x[shown])
        ax.plot(x[shown][order], y[shown][order], ".-", color=INDEX_COLORS[1], lw=0.5, ms=3, alpha=0.5)
    ax.set(xscale="log", yscale="log", xlabel="distance from the critical amplitude")
    ax.set(ylabel="least distance from the saddle", title="Bisection of the amplitude leads to the saddle")
    return ax
