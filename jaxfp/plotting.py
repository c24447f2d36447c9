"""Figures of results. Each function draws result tuples into the axes given and returns them; none computes.

One color for each number of unstable dimensions everywhere: 0 (stable), 1, 2, 3 and more; gray for slow points.
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from jaxfp.analysis.completeness import Audit
from jaxfp.analysis.modes import Modes
from jaxfp.types import FIXED, SLOW, FixedPoints

INDEX_COLORS = ("#1b7837", "#2166ac", "#d6604d", "#762a83")
SLOW_COLOR = "#7f7f7f"


def trial(inputs: Any, targets: Any, outputs: Any, ax: Axes | None = None) -> Axes:
    """One trial of a memory task, line by line: pulses, target, output.

    Args:
      inputs: (n_time, n_bits) pulses.
      targets: (n_time, n_bits).
      outputs: (n_time, n_bits) of the network.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> trial(np.eye(3), np.ones((3, 3)), np.ones((3, 3))).get_xlabel()
      'time (steps)'
    """
    ax = plt.subplots()[1] if ax is None else ax
    n_time, n_bits = np.shape(inputs)
    for bit in range(n_bits):
        base = -3.0 * bit
        ax.plot(
            base + np.asarray(targets)[:, bit], color="black", lw=2.5, alpha=0.3, label="target" if not bit else None
        )
        ax.plot(base + np.asarray(outputs)[:, bit], color=INDEX_COLORS[1], lw=1.2, label="output" if not bit else None)
        when = np.flatnonzero(np.asarray(inputs)[:, bit])
        height = np.asarray(inputs)[when, bit]
        ax.vlines(when, base, base + height, color=INDEX_COLORS[2], lw=1.5, label="" if bit else "input pulse")
    ax.set(xlabel="time (steps)", xlim=(0, n_time - 1), title="an example trial")
    ax.set_yticks([-3.0 * bit for bit in range(n_bits)], [f"bit {bit + 1}" for bit in range(n_bits)])
    ax.legend(loc="upper right", fontsize=8, ncols=3, framealpha=0.9)
    return ax


def state_space(
    points: FixedPoints, modes: Modes, projection: Any, trajectories: Any = None, ax: Axes | None = None
) -> Axes:
    """Points in three dimensions with the unstable directions of the saddles, over trajectories.

    Args:
      points: fixed and slow points.
      modes: `spectrum` of their Jacobians, with vectors.
      projection: (origin (n_hidden,), axes (3, n_hidden)), e.g. mean and first three principal directions.
      trajectories: (n_trials, n_time, n_hidden), or None.
      ax: axes with projection="3d"; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if the projection does not have three axes.

    Example:
      >>> from jaxfp import find_fixed_points, linearize, spectrum
      >>> step = lambda p, h, u: np.float32(0.5) * h
      >>> points = find_fixed_points(step, None, np.ones((1, 3)))
      >>> modes = spectrum(linearize(step, None, points.hidden).jacobian)
      >>> state_space(points, modes, (np.zeros(3), np.eye(3))).get_xlabel()
      'PC 1'
    """
    origin, directions = np.asarray(projection[0]), np.asarray(projection[1])
    if directions.shape != (3, points.hidden.shape[1]):
        raise ValueError(f"projection must have axes (3, {points.hidden.shape[1]}), got {directions.shape}.")
    ax = plt.figure().add_subplot(projection="3d") if ax is None else ax
    low: Any = ax  # a 3-D axes; its methods take one coordinate more than Axes declares
    if trajectories is not None:
        for path in (np.asarray(trajectories) - origin) @ directions.T:
            low.plot(*path.T, color="black", lw=0.5, alpha=0.15)
    shown = (points.hidden - origin) @ directions.T
    arm = 0.12 * np.linalg.norm(np.ptp(shown, axis=0)) if len(shown) > 1 else 1.0
    for p in np.flatnonzero((points.status == FIXED) & (modes.n_unstable > 0)):
        for mode in range(modes.n_unstable[p]):
            way = directions @ _plane(modes.right[p], modes.eigenvalues[p], mode)
            low.plot(*(shown[p] + arm * np.outer((-1, 1), way)).T, color=_color(modes.n_unstable[p]), lw=1.5)
    slow = points.status == SLOW
    if slow.any():
        low.scatter(*shown[slow].T, color=SLOW_COLOR, marker="x", s=25, label=f"slow points ({slow.sum()})")
    for index in np.unique(modes.n_unstable[~slow]):
        chosen = ~slow & (modes.n_unstable == index)
        name = "stable" if index == 0 else f"{index} unstable"
        low.scatter(*shown[chosen].T, color=_color(index), s=35, depthshade=False, label=f"{name} ({chosen.sum()})")
    low.set(xlabel="PC 1", ylabel="PC 2", zlabel="PC 3", title="fixed points and unstable directions")
    low.legend(loc="upper left", fontsize=8)
    return ax


def eigenvalues(modes: Modes, *, kind: str = "map", ax: Axes | None = None) -> Axes:
    """Eigenvalues in the complex plane, colored by the number of unstable dimensions of their point.

    Args:
      modes: `spectrum` of the Jacobians, (n_points, n_hidden).
      kind: "map" draws the unit circle, "flow" the imaginary axis.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> from jaxfp import spectrum
      >>> eigenvalues(spectrum(np.diag([0.5, 1.25])[None])).get_xlabel()
      'Re eigenvalue'
    """
    ax = plt.subplots()[1] if ax is None else ax
    if kind == "map":
        turn = np.linspace(0, 2 * np.pi, 200)
        ax.plot(np.cos(turn), np.sin(turn), color="black", lw=0.8, label="border of stability")
        ax.set_aspect("equal")
    else:
        ax.axvline(0, color="black", lw=0.8, label="border of stability")
    for index in np.unique(modes.n_unstable):
        values = modes.eigenvalues[modes.n_unstable == index].ravel()
        name = "stable" if index == 0 else f"{index} unstable"
        ax.scatter(values.real, values.imag, s=8, color=_color(index), alpha=0.6, label=name)
    ax.set(xlabel="Re eigenvalue", ylabel="Im eigenvalue", title="spectra at the points")
    ax.legend(fontsize=8, loc="upper left")
    return ax


def q_distribution(points: FixedPoints, candidate_q: Any, ax: Axes | None = None) -> Axes:
    """How slow the candidates were, and how slow the points are: log10 q.

    Args:
      points: fixed and slow points.
      candidate_q: (n_candidates,) q where the searches began.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> from jaxfp import find_fixed_points
      >>> points = find_fixed_points(lambda p, h, u: p * h, 0.5, np.ones((1, 2)))
      >>> q_distribution(points, np.ones(4)).get_xlabel()
      'log10 q'
    """
    ax = plt.subplots()[1] if ax is None else ax
    floor = 1e-40  # q of 0 has no logarithm; shown at the left end
    columns = {
        "candidates": (candidate_q, "black"),
        "slow points": (points.q[points.status == SLOW], SLOW_COLOR),
        "fixed points": (points.q[points.status == FIXED], INDEX_COLORS[0]),
    }
    shown = {name: np.log10(np.maximum(values, floor)) for name, (values, _) in columns.items() if len(values)}
    bins = np.linspace(
        *(np.floor(min(map(np.min, shown.values()))), np.ceil(max(map(np.max, shown.values())) + 0.1), 60)
    )
    for name, values in shown.items():
        weights = np.full(len(values), 1 / len(values))
        ax.hist(
            values, bins.tolist(), weights=weights, color=columns[name][1], alpha=0.6, label=f"{name} ({len(values)})"
        )
    ax.set(xlabel="log10 q", ylabel="share", title="q where searches began and ended")
    ax.legend(fontsize=8)
    return ax


def discovery(audit: Audit, ax: Axes | None = None) -> Axes:
    """Distinct fixed points found against candidates searched.

    Args:
      audit: of points that come from a search.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if the audit is of plain arrays, which no candidates led to.

    Example:
      >>> from jaxfp import audit, find_fixed_points, linearize
      >>> step = lambda p, h, u: np.float32(0.5) * h
      >>> points = find_fixed_points(step, None, np.ones((4, 2)))
      >>> discovery(audit(points, linearize(step, None, points.hidden))).get_ylabel()
      'distinct fixed points'
    """
    if audit.discovery is None:
        raise ValueError("audit must be of points that come from find_fixed_points, got one of plain arrays.")
    ax = plt.subplots()[1] if ax is None else ax
    drawn, found = audit.discovery.T
    ax.plot(drawn, found, color=INDEX_COLORS[1], label="mean over all orders of the candidates")
    ax.axhline(audit.n_fixed, color="black", lw=0.8, ls=":", label=f"known at the end ({audit.n_fixed})")
    title = f"discovery curve (unseen mass {100 * audit.unseen_mass:.2g} %)"
    ax.set(xlabel="candidates searched", ylabel="distinct fixed points", title=title, ylim=(0, None))
    ax.legend(fontsize=8, loc="lower right")
    return ax


def _color(index: int) -> str:
    return INDEX_COLORS[min(int(index), len(INDEX_COLORS) - 1)]


def _plane(right: np.ndarray, values: np.ndarray, mode: int) -> np.ndarray:
    """Real direction of an unstable mode; of a complex pair the first shows Re and the second Im of the vector."""
    vector = right[:, mode]
    if abs(values[mode].imag) > 0 and values[mode].imag < 0:
        return -vector.imag / max(np.linalg.norm(vector.imag), np.finfo(float).tiny)
    return vector.real / max(np.linalg.norm(vector.real), np.finfo(float).tiny)
