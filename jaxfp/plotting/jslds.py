"""Figures of a network beside its switching linear system: outputs, expansion points, modes, selection, and holding."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from jaxfp.plotting.points import INDEX_COLORS, SLOW_COLOR

# Of the states of a memory; the gray of tab10 is for slow points.
_STATE_COLORS = tuple(color for i, color in enumerate(mpl.colormaps["tab10"](np.arange(10))) if i != 7)


def readout_space(outputs: Any, switching_outputs: Any, ax: Axes | None = None) -> Axes:
    """What both branches say in some trials, in the space of three outputs.

    Args:
      outputs: (n_trials, n_time, 3) of the network.
      switching_outputs: (n_trials, n_time, 3) of its linear system.
      ax: axes with projection="3d"; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if the shapes differ or are not those, or the axes given are flat.

    Example:
      >>> readout_space(np.zeros((2, 5, 3)), np.ones((2, 5, 3))).get_zlabel()
      'output 3'
    """
    outputs, switching_outputs = np.asarray(outputs), np.asarray(switching_outputs)
    if outputs.ndim != 3 or outputs.shape[2] != 3 or outputs.shape != switching_outputs.shape:
        raise ValueError(
            f"outputs and switching_outputs must be (n_trials, n_time, 3), got {outputs.shape} and "
            f"{switching_outputs.shape}."
        )
    low = _deep(ax)
    for row, (said, switched) in enumerate(zip(outputs, switching_outputs, strict=True)):
        network, system = ("network", "linear system") if not row else ("_", "_")
        low.plot(*said.T, "-", color="0.75", lw=3, label=network)
        low.plot(*switched.T, ".-", color=INDEX_COLORS[1], lw=0.8, ms=4, label=system)
    _name_axes(low, "output")
    low.locator_params(nbins=4)
    low.set_title("Outputs of both branches")
    low.legend(loc="upper left", fontsize=8)
    return low


def expansion_points(
    points: Any, label: Any, names: Sequence[str], fixed: Any, n_unstable: Any, projection: Any, ax: Axes | None = None
) -> Axes:
    """Expansion points, colored by the memory that they stand for, beside fixed points of the network.

    Args:
      points: (n_points, n_hidden).
      label: (n_points,) int, cluster of each.
      names: of the clusters.
      fixed: (n_fixed, n_hidden), e.g. those proved.
      n_unstable: (n_fixed,) unstable dimensions of each.
      projection: (origin (n_hidden,), axes (3, n_hidden)), e.g. mean and first three principal directions.
      ax: axes with projection="3d"; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if the projection does not have three axes, or the axes given are flat.

    Example:
      >>> expansion_points(np.eye(3), [0, 1, 1], "+-", np.zeros((1, 3)), [1], (np.zeros(3), np.eye(3))).get_zlabel()
      'PC 3'
    """
    points, fixed, index = np.asarray(points), np.asarray(fixed), np.asarray(n_unstable)
    origin, directions = np.asarray(projection[0]), np.asarray(projection[1])
    if directions.shape != (3, points.shape[1]):
        raise ValueError(f"projection must have axes (3, {points.shape[1]}), got {directions.shape}.")
    low = _deep(ax)
    shown, corners = (points - origin) @ directions.T, (fixed - origin) @ directions.T
    for cluster, name in enumerate(names):
        here = shown[np.asarray(label) == cluster]
        low.scatter(*here.T, color=_color(cluster), s=6, alpha=0.5, lw=0, depthshade=False)
        low.text(*here.mean(0), f"  {name}", fontsize=9, color=_color(cluster), fontfamily="monospace")
    for stable, marker, what in ((True, "X", "stable"), (False, "^", "saddle")):
        here = corners[(index == 0) == stable]
        if len(here):
            name, size = f"fixed point, {what} ({len(here)})", 42 if stable else 22
            color = "black" if stable else "white"
            low.scatter(
                *here.T, marker=marker, s=size, color=color, edgecolor="black", lw=0.6, depthshade=False, label=name
            )
    handles, labels = low.get_legend_handles_labels()
    cloud = Line2D([], [], ls="", marker=".", color=_color(0), label=f"expansion points ({len(points)})")
    low.legend([cloud, *handles], [cloud.get_label(), *labels], loc="upper left", fontsize=8)
    _name_axes(low, "PC")
    low.set_title("Expansion points by their code, and fixed points")
    return low


def branches(coordinates: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """One trial of the network, and what linear systems make of it, one coordinate above the other.

    Args:
      coordinates: by name, (n_time, n_coordinates); the network first. Times before a prediction begins are NaN.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> branches({"network": np.zeros((5, 3)), "linear system": np.ones((5, 3))}).get_xlabel()
      'time (steps)'
    """
    ax = plt.subplots()[1] if ax is None else ax
    shown = {name: np.asarray(values, float) for name, values in coordinates.items()}
    network = next(iter(shown.values()))
    step = 1.3 * np.ptp(network, axis=0).max() or 1.0
    bases = -step * np.arange(network.shape[1])
    styles = [
        ("0.75", "-", 5.0),
        (INDEX_COLORS[1], "-", 1.3),
        (INDEX_COLORS[2], "--", 1.3),
        (INDEX_COLORS[3], ":", 1.5),
    ]
    for (name, values), (color, line, width) in zip(shown.items(), styles, strict=False):
        for column, base in enumerate(bases):
            ax.plot(base + values[:, column], line, color=color, lw=width, label="_" if column else name)
    ax.set_yticks(bases, [f"PC {column + 1}" for column in range(len(bases))])
    ax.set(xlabel="time (steps)", title="One trial of the network and of linear systems")
    ax.set_ylim(bases[-1] - 0.8 * step, 1.3 * step)
    ax.legend(loc="upper center", fontsize=8, ncols=2, frameon=False)
    return ax


def state_eigenvalues(eigenvalues: Any, names: Sequence[str], ax: Axes | None = None) -> Axes:
    """Eigenvalues at the centers of the clusters of expansion points.

    Args:
      eigenvalues: of each cluster an array (..., n_hidden), complex.
      names: of the clusters.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> state_eigenvalues([[0.5, 0.1]], ["+++"]).get_xlabel()
      'Re eigenvalue'
    """
    ax = plt.subplots()[1] if ax is None else ax
    for cluster, (name, each) in enumerate(zip(names, eigenvalues, strict=True)):
        values = np.ravel(each)
        ax.scatter(values.real, values.imag, s=14, lw=0, alpha=0.8, color=_color(cluster), label=name)
    turn = np.linspace(0, 2 * np.pi, 721)
    ax.plot(np.cos(turn), np.sin(turn), color="black", lw=0.8)
    ax.set_aspect("equal")
    ax.set(xlabel="Re eigenvalue", ylabel="Im eigenvalue", title="Eigenvalues at the centers of the expansion points")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), prop={"family": "monospace", "size": 8})
    return ax


def selection_map(strength: Any, wanted: Any, states: Sequence[str], lines: Sequence[str],
                  ax: Axes | None = None) -> Axes:  # fmt: skip
    """What each state takes up from each input line.

    Args:
      strength: (n_states, n_lines).
      wanted: (n_states, n_lines) bool, framed: the lines that the task wants taken up there.
      states: (n_states,) names.
      lines: (n_lines,) names.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> selection_map([[1.0, 0.1]], [[True, False]], ["+"], ["1-", "1+"]).get_xlabel()
      'input line'
    """
    ax = plt.subplots()[1] if ax is None else ax
    strength = np.asarray(strength)
    image = ax.imshow(strength, cmap="viridis", vmin=0, aspect="auto")
    for row, column in np.argwhere(np.asarray(wanted)):
        frame = Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, ec=INDEX_COLORS[2], lw=2)
        ax.add_patch(frame)
    ax.set_xticks(np.arange(len(lines)), list(lines))
    ax.set_yticks(np.arange(len(states)), list(states), family="monospace")
    ax.figure.colorbar(image, ax=ax, label="taken up by the leading modes")
    ax.set(xlabel="input line", ylabel="memory", title="Selection; framed: lines that flip a bit")
    return ax


def hold_curves(steps: Any, shares: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """How long memories last.

    Args:
      steps: (n,), of silence.
      shares: by name, (n,), of trials whose every bit is right.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> hold_curves([10, 100], {"network": [1.0, 0.9]}).get_xscale()
      'log'
    """
    ax = plt.subplots()[1] if ax is None else ax
    styles = [("0.75", "o-", 5.0), (INDEX_COLORS[1], ".-", 1.3), (SLOW_COLOR, ".:", 1.3)]
    for (name, share), (color, line, width) in zip(shares.items(), styles, strict=False):
        ax.semilogx(steps, share, line, color=color, lw=width, label=name)
    ax.set_xticks(list(steps), [str(step) for step in steps])
    ax.minorticks_off()
    ax.set(xlabel="silent steps", ylabel="share of trials with all bits right", ylim=(0, 1.05), title="Hold curve")
    ax.legend(fontsize=8, loc="lower left")
    return ax


def evidence_plane(
    network: Any, switching: Any, level: Any, points: Any, names: tuple[str, str], ax: Axes | None = None
) -> Axes:
    """Trials under different evidence, in the plane of choice and evidence, with the expansion points of their context.

    Args:
      network: (n_trials, n_time, 2), coordinates of the network's states.
      switching: (n_trials, n_time, 2), of its linear system's.
      level: (n_trials,), evidence a step, which colors a trial.
      points: (n_points, 2), expansion points.
      names: of the two axes.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> evidence_plane(np.zeros((1, 3, 2)), np.ones((1, 3, 2)), [0.1], np.eye(2), ("choice", "motion")).get_ylabel()
      'motion'
    """
    ax = plt.subplots()[1] if ax is None else ax
    points, level = np.asarray(points), np.asarray(level)
    shade = mpl.cm.ScalarMappable(mpl.colors.Normalize(-np.abs(level).max(), np.abs(level).max()), "coolwarm")
    for row, (states, switched) in enumerate(zip(np.asarray(network), np.asarray(switching), strict=True)):
        ax.plot(*states.T, "-", color="0.8", lw=4, label="_" if row else "network")
        ax.plot(*switched.T, "-", color=shade.to_rgba(level[row]), lw=1.2, label="_" if row else "linear system")
    ax.plot(*points.T, "o", color="black", ms=2.5, lw=0, label=f"expansion points ({len(points)})")
    ax.figure.colorbar(shade, ax=ax, label=f"{names[1]}, a step")
    ax.set(xlabel=names[0], ylabel=names[1], title="Trials by their evidence")
    ax.legend(fontsize=8)
    return ax


def selection_vectors(
    points: Any,
    label: Any,
    names: Sequence[str],
    starts: Any,
    vectors: Any,
    vector_label: Any,
    axes: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Expansion points on three axes, colored by context, and along which direction a state is taken up there.

    Args:
      points: (n_points, 3).
      label: (n_points,) int, context of each.
      names: of the contexts.
      starts: (n_vectors, 3), where arrows begin.
      vectors: (n_vectors, 3), selection vectors: leading left eigenvectors, as long as they are to be drawn.
      vector_label: (n_vectors,) int, context of each.
      axes: names of the three axes.
      ax: axes with projection="3d"; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if the axes given are flat.

    Example:
      >>> selection_vectors(np.eye(3), [0, 0, 1], "ab", np.eye(3)[:1], np.eye(3)[1:2], [0], "xyz").get_zlabel()
      'z'
    """
    points, starts, vectors = np.asarray(points), np.asarray(starts), np.asarray(vectors)
    low = _deep(ax)
    for context, name in enumerate(names):
        here, arrows = np.asarray(label) == context, np.asarray(vector_label) == context
        color, what = _color(context), f"{name}: expansion points ({here.sum()}), selection vectors"
        low.scatter(*points[here].T, color=color, s=6, lw=0, depthshade=False, label=what)
        low.quiver(*starts[arrows].T, *vectors[arrows].T, color=color, lw=1.2, arrow_length_ratio=0.2)
    low.set_box_aspect((1, 1, 1), zoom=0.92)
    low.set_xlabel(axes[0])
    low.set_ylabel(axes[1])
    low.set_zlabel(axes[2])
    low.tick_params(labelsize=8, pad=0)
    low.locator_params(nbins=5)
    low.set_title("Selection vectors on both lines")
    low.legend(loc="upper left", fontsize=8)
    return low


def _color(cluster: int) -> Any:
    return _STATE_COLORS[cluster % len(_STATE_COLORS)]


def _deep(ax: Axes | None) -> Any:
    """Axes in three dimensions; their methods take one coordinate more than Axes declares."""
    ax = plt.figure().add_subplot(projection="3d") if ax is None else ax
    if ax.name != "3d":
        raise ValueError(f'ax must be made with projection="3d", got {ax.name!r}.')
    return ax


def _name_axes(low: Any, name: str) -> None:
    for number, axis in enumerate((low.xaxis, low.yaxis, low.zaxis), start=1):
        axis.set_tick_params(labelsize=8, pad=0)
        axis.set_label_text(f"{name} {number}")
        axis.labelpad = 2
    low.set_box_aspect((1, 1, 1), zoom=0.92)
