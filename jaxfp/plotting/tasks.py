"""Figures of the tasks: what a network was asked, what it said, and the mechanism behind it."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from jaxfp.analysis.branches import Family
from jaxfp.plotting.points import INDEX_COLORS, SLOW_COLOR, bifurcation_diagram

_SPREAD = mpl.colormaps["viridis"]  # of a quantity over many lines


def trial(inputs: Any, targets: Any, outputs: Any, ax: Axes | None = None) -> Axes:
    """One trial of a memory task, line by line: pulses, target, output.

    Args:
      inputs: (n_time, n_bits) pulses.
      targets: (n_time, n_bits).
      outputs: (n_time, n_bits) of the network.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if the three do not have one shape.

    Example:
      >>> trial(np.eye(3), np.ones((3, 3)), np.ones((3, 3))).get_xlabel()
      'time (steps)'
    """
    inputs, targets, outputs = (np.asarray(x) for x in (inputs, targets, outputs))
    if inputs.ndim != 2 or not inputs.shape == targets.shape == outputs.shape:
        shapes = f"{inputs.shape}, {targets.shape} and {outputs.shape}"
        raise ValueError(f"inputs, targets and outputs must all be (n_time, n_bits), got {shapes}.")
    ax = plt.subplots()[1] if ax is None else ax
    n_time, n_bits = inputs.shape
    bases = -3.0 * np.arange(n_bits)
    for bit, base in enumerate(bases):
        target, output, pulse = ("target", "output", "input pulse") if not bit else ("_", "_", "_")
        ax.plot(base + targets[:, bit], drawstyle="steps-post", color="0.8", lw=5, label=target)
        ax.plot(base + outputs[:, bit], drawstyle="steps-post", color=INDEX_COLORS[1], lw=1.2, label=output)
        when = np.flatnonzero(inputs[:, bit])
        ax.vlines(when, base, base + inputs[when, bit], color=INDEX_COLORS[2], lw=1.5, label=pulse)
    ax.set(xlabel="time (steps)", xlim=(-0.5, n_time - 1), ylim=(bases[-1] - 1.5, 2.6), title="An example trial")
    ax.set_yticks(bases, [f"bit {bit + 1}" for bit in range(n_bits)])
    ax.legend(loc="upper center", fontsize=8, ncols=3, frameon=False)
    return ax


def oscillations(outputs: Any, inputs: Any, omega: Any, dt: float, ax: Axes | None = None) -> Axes:
    """What a sine generator says at some of its inputs, with ticks one wanted period apart.

    Args:
      outputs: (n_shown, n_time).
      inputs: (n_shown,) of each line.
      omega: (n_shown,) wanted angular frequencies.
      dt: duration of a step, time constants.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> oscillations(np.zeros((2, 5)), [0.25, 1.0], [0.1, 0.6], 0.5).get_xlabel()
      'time (time constants)'
    """
    ax = plt.subplots()[1] if ax is None else ax
    outputs = np.asarray(outputs)
    time, bases = dt * np.arange(outputs.shape[1]), -3.0 * np.arange(len(outputs))
    for row, base in enumerate(bases):
        ax.plot(time, base + outputs[row], color=_color_of(omega, row), lw=1.4)
        up = np.flatnonzero((outputs[row, :-1] < 0) & (outputs[row, 1:] >= 0))
        if len(up):
            due = np.arange(time[up[0]], time[-1], 2 * np.pi / float(omega[row]))
            ax.vlines(due, base - 1.3, base + 1.3, color="0.6", lw=0.8, label="_" if row else "a wanted period")
    ax.set_yticks(bases, [f"u = {float(u):.2f}" for u in inputs])
    ax.set(xlabel="time (time constants)", title="Outputs at constant inputs", xlim=(0, time[-1]))
    ax.set_ylim(bases[-1] - 1.6, 2.6)
    if len(outputs) and ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper right", fontsize=8, frameon=False)
    return ax


def orbits(paths: Sequence[Any], points: Any, planes: Any, omega: Any, projection: Any, ax: Axes | None = None) -> Axes:
    """Orbits at several inputs, each with the point in its middle and the plane in which that is unstable.

    Args:
      paths: n_orbits arrays (n_time, n_hidden).
      points: (n_orbits, n_hidden).
      planes: (n_orbits, 2, n_hidden), two vectors that span each plane, drawn as they project.
      omega: (n_orbits,), what colors them.
      projection: (origin (n_hidden,), axes (3, n_hidden)).
      ax: axes with projection="3d"; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if the axes given are flat.

    Example:
      >>> orbits([np.eye(3)], np.zeros((1, 3)), np.eye(3)[None, :2], [0.1], (np.zeros(3), np.eye(3))).get_zlabel()
      'PC 3'
    """
    ax = plt.figure().add_subplot(projection="3d") if ax is None else ax
    if ax.name != "3d":
        raise ValueError(f'ax must be made with projection="3d", got {ax.name!r}.')
    low: Any = ax
    origin, directions = (np.asarray(x) for x in projection)
    shown = (np.asarray(points) - origin) @ directions.T
    flat = [(np.asarray(path) - origin) @ directions.T for path in paths]
    arm = 0.06 * np.linalg.norm(np.ptp(np.concatenate(flat), axis=0)) if flat else 1.0
    for row, path in enumerate(flat):
        color = _color_of(omega, row)
        low.plot(*path.T, color=color, lw=1.0, alpha=0.8)
        low.scatter(*shown[row], color=color, s=18, depthshade=False)
        for way in np.asarray(planes)[row] @ directions.T:
            way = way / max(np.linalg.norm(way), 1e-12)
            low.plot(*(shown[row] + arm * np.outer((-1, 1), way)).T, color=INDEX_COLORS[2], lw=1.2)
    if len(shown):
        low.plot(*shown.T, color="black", lw=0.7, ls=":")
    for number, axis in enumerate((low.xaxis, low.yaxis, low.zaxis), start=1):
        axis.set_tick_params(labelsize=8, pad=0)
        axis.set_label_text(f"PC {number}")
    low.set_title("Orbits (dark: slow), points in their middle, unstable planes (orange)", fontsize=10)
    return ax


def frequencies(target: Any, orbit: Any, leading: Any, ax: Axes | None = None) -> Axes:
    """Frequencies of orbits and of the leading modes at the points in their middle, against the targets.

    Args:
      target: (n_conditions,) angular frequencies, radians per time constant.
      orbit: (n_conditions,), NaN where there is none.
      leading: (n_conditions,), NaN where there is no point.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> frequencies([0.1, 0.6], [0.1, 0.6], [0.11, 0.62]).get_ylabel()
      'angular frequency'
    """
    ax = plt.subplots()[1] if ax is None else ax
    ax.plot(target, target, color="0.8", lw=5, label="target")
    ax.plot(target, orbit, ".", color="black", ms=4, label="orbit")
    ax.plot(target, leading, "o", color=INDEX_COLORS[2], ms=4, mfc="none", label="leading pair, |arg| / dt")
    ax.set(xlabel="target angular frequency (rad per time constant)", ylabel="angular frequency", ylim=(0, None))
    ax.set_title("What turns the state, and how fast it turns")
    ax.legend(fontsize=8)
    return ax


def taylor(norms: Mapping[str, Any], target: Any, ax: Axes | None = None) -> Axes:
    """Mean sizes of the terms of the dynamics along each orbit, seen from the point in its middle.

    Args:
      norms: constant, first, second, each (n_conditions,).
      target: (n_conditions,) angular frequencies.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> taylor({"constant": [1e-16], "first": [1.0], "second": [0.1]}, [0.1]).get_yscale()
      'log'
    """
    ax = plt.subplots()[1] if ax is None else ax
    labels = {"first": "linear", "second": "quadratic", "constant": "constant (speed of the point)"}
    for color, (name, label) in zip(INDEX_COLORS, labels.items(), strict=False):
        ax.semilogy(target, np.maximum(np.asarray(norms[name], float), 1e-18), ".-", color=color, label=label)
    ax.set(xlabel="target angular frequency", ylabel="mean norm along the orbit, per step", title="Taylor terms")
    ax.legend(fontsize=8, loc="center right")
    return ax


def family_inside_orbits(
    family: Family, direction: Any, inputs: Any, low: Any, high: Any, ax: Axes | None = None
) -> Axes:
    """Points followed along inputs, and what the orbits around them sweep over.

    Args:
      family: result of `sweep` along the inputs.
      direction: (n_hidden,) what of the state is shown.
      inputs: (n_steps,).
      low: (n_steps,) least value of the orbit at each input along the direction.
      high: (n_steps,) largest.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> from jaxfp import sweep
      >>> path = np.linspace(0.0, 1.0, 3)[:, None]
      >>> family = sweep(lambda p, h, u: p * h + u, 0.5, (np.zeros((1, 1)), None), inputs_path=path)
      >>> family_inside_orbits(family, [1.0], path[:, 0], -np.ones(3), 3 * np.ones(3)).get_xlabel()
      'input'
    """
    ax = plt.subplots()[1] if ax is None else ax
    ax.fill_between(inputs, low, high, color="0.9", label="the orbit runs through")
    bifurcation_diagram(family, direction, inputs, "input", ax)
    ax.set(ylabel="state along the first PC of the points", title="One family of points inside the orbits")
    return ax


def multipliers(target: Any, values: Any, ax: Axes | None = None) -> Axes:
    """Floquet multipliers of cycles: what one turn does to distances along and across them.

    Args:
      target: (n_cycles,) angular frequencies.
      values: (n_cycles, n_hidden) complex, the one along the cycle first, then largest modulus first.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> multipliers([0.1, 0.6], [[1.0, 0.2, 0.1], [1.0, 0.3, 0.1]]).get_yscale()
      'log'
    """
    ax = plt.subplots()[1] if ax is None else ax
    sizes = np.maximum(np.abs(np.asarray(values)), 1e-18)
    ax.semilogy(target, sizes[:, 0], ".-", color="black", label="along the cycle")
    for number, color in zip(range(1, min(4, sizes.shape[1])), INDEX_COLORS, strict=False):
        ax.semilogy(target, sizes[:, number], ".-", color=color, label=f"across it, number {number}")
    ax.set(xlabel="target angular frequency", ylabel="modulus", title="Floquet multipliers of one turn")
    ax.legend(fontsize=8)
    return ax


def distances(target: Any, radius: Any, distance: Any, ax: Axes | None = None) -> Axes:
    """How far cycles run from the point inside them.

    Args:
      target: (n_cycles,) angular frequencies.
      radius: (n_cycles,) root mean square distance of each from its own mean.
      distance: (n_cycles, 2) its mean and smallest distance from the point.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> distances([0.1, 0.6], [1.0, 1.0], np.ones((2, 2))).get_ylabel()
      'distance'
    """
    ax = plt.subplots()[1] if ax is None else ax
    ax.plot(target, radius, color="0.8", lw=5, label="radius of the cycle about its mean")
    for column, name in enumerate(("mean", "smallest")):
        ax.plot(
            target, np.asarray(distance)[:, column], ".-", color=INDEX_COLORS[column], label=f"{name}, from the point"
        )
    ax.set(
        xlabel="target angular frequency", ylabel="distance", ylim=(0, None), title="Cycles are far from their point"
    )
    ax.legend(fontsize=8)
    return ax


def average(inputs: Any, targets: Any, outputs: Any, ax: Axes | None = None) -> Axes:
    """One trial of the moving average.

    Args:
      inputs: (n_time, 2), pulses and their indicator.
      targets: (n_time,).
      outputs: (n_time,).
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> average(np.ones((3, 2)), np.ones(3), np.ones(3)).get_xlabel()
      'time (steps)'
    """
    ax = plt.subplots()[1] if ax is None else ax
    inputs = np.asarray(inputs)
    when = np.flatnonzero(inputs[:, 1])
    ax.plot(targets, drawstyle="steps-post", color="0.8", lw=5, label="target")
    ax.plot(outputs, drawstyle="steps-post", color=INDEX_COLORS[1], lw=1.2, label="output")
    ax.vlines(when, 0, inputs[when, 0], color=INDEX_COLORS[2], lw=1.5, label="pulse")
    ax.set(xlabel="time (steps)", ylim=(-1.1, 1.35), title="An example trial")
    ax.legend(loc="upper center", fontsize=8, ncols=3, frameon=False)
    return ax


def sheet(coordinates: Any, values: Any, name: str, paths: Sequence[Any] = (), ax: Axes | None = None) -> Axes:
    """Slow points in their plane, colored by what the network remembers there, with trajectories through pulses.

    Args:
      coordinates: (n_points, 2).
      values: (n_points,), in [-1, 1].
      name: of the values.
      paths: arrays (n_time, 2), the same coordinates.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> sheet(np.zeros((2, 2)), [0.5, -0.5], "last pulse").get_xlabel()
      'PC 1 of the slow points'
    """
    ax = plt.subplots()[1] if ax is None else ax
    coordinates = np.asarray(coordinates)
    dots = ax.scatter(
        coordinates[:, 0], coordinates[:, 1], c=np.asarray(values), cmap="coolwarm", vmin=-1, vmax=1, s=12
    )
    for path in paths:
        ax.plot(*np.asarray(path).T, color="black", lw=0.6, alpha=0.6)
        ax.plot(*np.asarray(path)[-1], "o", color="black", ms=3)
    ax.figure.colorbar(dots, ax=ax, label=name)
    ax.set(xlabel="PC 1 of the slow points", ylabel="PC 2", title=f"Slow points and their {name}")
    ax.set_aspect("equal", adjustable="datalim")
    return ax


def decoded(said: Any, wanted: Any, names: Sequence[str], ax: Axes | None = None) -> Axes:
    """Values decoded from coordinates against the true ones.

    Args:
      said: (n_points, n_values).
      wanted: (n_points, n_values).
      names: of the values.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> decoded(np.eye(2), np.eye(2), ("last", "second")).get_xlabel()
      'value'
    """
    ax = plt.subplots()[1] if ax is None else ax
    ax.plot([-1, 1], [-1, 1], color="0.8", lw=4)
    for column, name in enumerate(names):
        ax.plot(
            np.asarray(wanted)[:, column], np.asarray(said)[:, column], ".", color=INDEX_COLORS[column + 1], label=name
        )
    ax.set(xlabel="value", ylabel="decoded from two coordinates", title="What the slow points remember")
    ax.legend(fontsize=8)
    return ax


def tolerances(sweep: Mapping[str, Any], chosen: float, ax: Axes | None = None) -> Axes:
    """What comes out at different slow tolerances.

    Args:
      sweep: "tolerance" (n,) and, by their names, shares or coefficients of determination (n,).
      chosen: the tolerance used elsewhere.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> tolerances({"tolerance": [1e-5, 1e-4], "decoded": [0.9, 0.8]}, 1e-5).get_xscale()
      'log'
    """
    ax = plt.subplots()[1] if ax is None else ax
    lines = [(name, values) for name, values in sweep.items() if name != "tolerance"]
    for color, (name, values) in zip(INDEX_COLORS, lines, strict=False):
        ax.semilogx(sweep["tolerance"], np.maximum(np.asarray(values, float), 0), ".-", color=color, label=name)
    ax.axvline(chosen, color="black", lw=0.8, ls=":", label="chosen beforehand")
    ax.set(xlabel="slow tolerance (q at which a search stops)", ylim=(0, 1.02), title="What depends on the tolerance")
    ax.legend(fontsize=8, loc="lower right")
    return ax


def timescales(values: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Slowest timescales at slow points: median and middle 80 % over the points.

    Args:
      values: by the name of a network, (n_points, n_modes) 1 / |ln |lambda||, slowest first.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> timescales({"gru": [[100.0, 50.0, 5.0]]}).get_yscale()
      'log'
    """
    ax = plt.subplots()[1] if ax is None else ax
    for shift, (color, (name, scales)) in enumerate(
        zip((INDEX_COLORS[1], SLOW_COLOR, INDEX_COLORS[2]), values.items(), strict=False)
    ):
        low, middle, high = np.quantile(np.asarray(scales, float), (0.1, 0.5, 0.9), axis=0)
        which = np.arange(1, len(middle) + 1) + 0.12 * shift
        ax.errorbar(which, middle, (middle - low, high - middle), fmt="o", ms=4, color=color, label=name)
    ax.set_yscale("log")
    ax.set(xlabel="mode, slowest first", ylabel="timescale (steps)", title="Timescales at the slow points")
    ax.legend(fontsize=8)
    return ax


def _color_of(values: Any, row: int) -> Any:
    """From dark to light with the value."""
    values = np.asarray(values, float)
    return _SPREAD(0.85 * (values[row] - values.min()) / max(np.ptp(values), 1e-12))
