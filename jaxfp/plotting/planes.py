"""Figures of planar systems: where they are slow, where they go, and their points."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from jaxfp.analysis.branches import Family
from jaxfp.analysis.modes import Modes
from jaxfp.plotting.points import INDEX_COLORS, SLOW_COLOR, bifurcation_diagram
from jaxfp.types import FIXED, SLOW, FixedPoints


def phase_plane(
    x1: Any,
    x2: Any,
    velocity: Any,
    points: FixedPoints,
    modes: Modes,
    trajectories: Sequence[Any] = (),
    ax: Axes | None = None,
) -> Axes:
    """Half the squared speed of a planar flow as colors, its streamlines, trajectories and points.

    Args:
      x1: (n_x1,) growing evenly.
      x2: (n_x2,) likewise.
      velocity: (n_x2, n_x1, 2), dx/dt there.
      points: of a search.
      modes: `spectrum` of their Jacobians.
      trajectories: (n_time, 2) each; what is outside the grid is not drawn.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if the velocities do not fit the grid, or the points are not planar.

    Example:
      >>> from jaxfp import find_fixed_points, linearize, spectrum
      >>> decay = lambda p, h, u: -h
      >>> points = find_fixed_points(decay, None, np.ones((1, 2)), kind="flow")
      >>> modes = spectrum(linearize(decay, None, points.hidden).jacobian, kind="flow")
      >>> x = np.linspace(-1, 1, 5)
      >>> phase_plane(x, x, -np.stack(np.meshgrid(x, x), axis=-1), points, modes).get_xlabel()
      'x1'
    """
    x1, x2, velocity = np.asarray(x1), np.asarray(x2), np.asarray(velocity)
    if velocity.shape != (len(x2), len(x1), 2) or points.hidden.shape[1] != 2:
        raise ValueError(
            f"velocity must be ({len(x2)}, {len(x1)}, 2) and points planar, got {velocity.shape} and "
            f"{points.hidden.shape}."
        )
    ax = plt.subplots()[1] if ax is None else ax
    log_q = np.log10(np.maximum(np.square(velocity).sum(-1) / 2, np.finfo(float).tiny))
    low = max(-5.0, np.floor(log_q.min()))
    colors = ax.pcolormesh(x1, x2, log_q, cmap="Blues_r", vmin=low, shading="gouraud", rasterized=True)
    ax.figure.colorbar(colors, ax=ax, label=r"$\log_{10} q$", shrink=0.8)
    ax.streamplot(x1, x2, velocity[..., 0], velocity[..., 1], color="0.35", linewidth=0.5, density=1.1, arrowsize=0.7)
    for number, path in enumerate(trajectories):
        inside = (path >= [x1[0], x2[0]]).all(1) & (path <= [x1[-1], x2[-1]]).all(1)
        shown = np.where(inside[:, None], path, np.nan)
        ax.plot(*shown.T, color="#d55e00", lw=1.4, label="_" if number else "trajectories")
        ax.plot(*shown[0], marker=".", color="#d55e00", ms=5)
    fixed, here = points.status == FIXED, points.hidden
    for name, rows, marker, color in (
        ("stable", fixed & (modes.n_unstable == 0), "o", INDEX_COLORS[0]),
        ("saddle", fixed & (modes.n_unstable > 0), "D", INDEX_COLORS[3]),
        ("slow point", points.status == SLOW, "X", "white"),
    ):
        if rows.any():
            label = f"{name} ({rows.sum()})"
            ax.scatter(
                here[rows, 0],
                here[rows, 1],
                s=70,
                marker=marker,
                color=color,
                ec="black",
                lw=1.0,
                zorder=4,
                label=label,
            )
    ax.set(xlabel="x1", ylabel="x2", xlim=(x1[0], x1[-1]), ylim=(x2[0], x2[-1]), aspect="equal", title="Slow and fast")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.1), ncols=4, frameon=False)
    return ax


def saddle_node(family: Family, a: Any, slow_a: Any, slow: Any, ax: Axes | None = None) -> Axes:
    """Node and saddle along a parameter, the fold where they meet, and the slow points that stay behind it.

    Args:
      family: result of `sweep`.
      a: (n_steps,) the parameter at its samples.
      slow_a: (n_slow,) parameters.
      slow: (n_slow, n_hidden) the slow point at each.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> from jaxfp import sweep
      >>> path = np.linspace(-1.0, 1.0, 5)
      >>> family = sweep(lambda a, h, u: h + a + h**2, -1.0, (np.array([[-1.0]]), None), params_path=path)
      >>> saddle_node(family, path, [0.5], [[0.0]]).get_xlabel()
      'a'
    """
    ax = bifurcation_diagram(family, None, a, "a", ax)
    ax.scatter(slow_a, np.asarray(slow)[:, 0], marker="x", s=30, color=SLOW_COLOR, label=f"slow points ({len(slow)})")
    ax.set(ylabel="x1", title="A saddle-node and its ghost")
    ax.legend(fontsize=8)
    return ax
