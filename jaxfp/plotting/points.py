"""Figures of points and of their search.

One color for each number of unstable dimensions everywhere: 0 (stable), 1, 2, 3, 4 and more; gray for slow points. The
colors are told apart by color-blind readers, too (Okabe & Ito).
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jaxfp.analysis.branches import Family
from jaxfp.analysis.completeness import Audit
from jaxfp.analysis.modes import Modes
from jaxfp.types import FIXED, SLOW, FixedPoints

INDEX_COLORS = ("#009e73", "#0072b2", "#d55e00", "#cc79a7", "#8c6d1f")
SLOW_COLOR = "#7f7f7f"
Q_FLOOR = 1e-34  # far below the rounding of float64; a smaller q, 0 too, is drawn here


def state_space(
    points: FixedPoints, modes: Modes, projection: Any, trajectories: Any = None, ax: Axes | None = None
) -> Axes:
    """Points in three dimensions with the unstable directions of the saddles, over trajectories.

    Unstable directions are unit vectors of the state space, drawn as they project: a short one points out of the
    three dimensions shown.

    Args:
      points: fixed and slow points.
      modes: `spectrum` of their Jacobians, with vectors.
      projection: (origin (n_hidden,), axes (3, n_hidden)), e.g. mean and first three principal directions.
      trajectories: (n_trials, n_time, n_hidden), or None.
      ax: axes with projection="3d"; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if the projection does not have three axes, or the axes given are flat.

    Example:
      >>> from jaxfp import find_fixed_points, linearize, spectrum
      >>> step = lambda p, h, u: 0.5 * h
      >>> points = find_fixed_points(step, None, np.ones((1, 3)))
      >>> modes = spectrum(linearize(step, None, points.hidden).jacobian)
      >>> state_space(points, modes, (np.zeros(3), np.eye(3))).get_xlabel()
      'PC 1'
    """
    origin, directions = np.asarray(projection[0]), np.asarray(projection[1])
    if directions.shape != (3, points.hidden.shape[1]):
        raise ValueError(f"projection must have axes (3, {points.hidden.shape[1]}), got {directions.shape}.")
    ax = plt.figure().add_subplot(projection="3d") if ax is None else ax
    if ax.name != "3d":
        raise ValueError(f'ax must be made with projection="3d", got {ax.name!r}.')
    low: Any = ax  # a 3-D axes; its methods take one coordinate more than Axes declares
    shown = (points.hidden - origin) @ directions.T
    paths = [] if trajectories is None else (np.asarray(trajectories) - origin) @ directions.T
    for path in paths:
        low.plot(*path.T, color="black", lw=0.5, alpha=0.18)
    extent = np.ptp(np.concatenate([shown, *paths]), axis=0) if len(shown) or len(paths) else np.ones(3)
    arm = 0.06 * np.linalg.norm(extent) if extent.any() else 1.0
    for p in np.flatnonzero((points.status == FIXED) & (modes.n_unstable > 0)):
        for mode in range(modes.n_unstable[p]):
            way = directions @ _plane(modes.right[p], modes.eigenvalues[p], mode)
            low.plot(*(shown[p] + arm * np.outer((-1, 1), way)).T, color=_color(modes.n_unstable[p]), lw=1.5)
    for name, color, rows in _groups(modes.n_unstable, points.status):
        marker: Any = {"marker": "x" if color == SLOW_COLOR else "o", "s": 30, "depthshade": False}
        low.scatter(*shown[rows].T, color=color, label=f"{name} ({len(rows)})", **marker)
    for number, axis in enumerate((low.xaxis, low.yaxis, low.zaxis), start=1):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_tick_params(labelsize=8, pad=0)
        axis.set_label_text(f"PC {number}")
        axis.labelpad = 2
    low.set_box_aspect(np.maximum(extent / extent.max(), 0.5) if extent.any() else (1, 1, 1), zoom=0.92)
    low.set_title("Fixed points and unstable directions")
    if len(points.hidden):
        low.legend(loc="upper left", fontsize=8)
    return ax


def eigenvalues(modes: Modes, *, status: Any = None, kind: str = "map", ax: Axes | None = None) -> Axes:
    """Eigenvalues in the complex plane, colored by the number of unstable dimensions of their point.

    Args:
      modes: `spectrum` of the Jacobians, (n_points, n_hidden).
      status: (n_points,) FIXED or SLOW; all FIXED by default. Slow points are gray: I - J is singular at each of them.
      kind: "map" draws the unit circle, "flow" the imaginary axis.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if kind is neither.

    Example:
      >>> from jaxfp import spectrum
      >>> eigenvalues(spectrum(np.diag([0.5, 1.25])[None])).get_xlabel()
      'Re eigenvalue'
    """
    if kind not in ("map", "flow"):
        raise ValueError(f'kind must be "map" or "flow", got {kind!r}.')
    ax = plt.subplots()[1] if ax is None else ax
    status = np.full(len(modes.n_unstable), FIXED) if status is None else np.asarray(status)
    for name, color, rows in _groups(modes.n_unstable, status):
        here = modes.eigenvalues[rows].ravel()
        ax.scatter(here.real, here.imag, s=12, lw=0, color=color, alpha=0.7, label=f"{name} ({len(rows)})")
    # the points and the border next to them decide the limits: slow dynamics live in a corner of the circle
    whole = kind == "map" and (modes.eigenvalues.real < 0).any()
    reach = np.array([1, -1, 1j, -1j]) if whole else np.array([1.0 if kind == "map" else 0.0])
    ax.plot(reach.real, reach.imag, alpha=0.0)
    if kind == "map":
        turn = np.linspace(0, 2 * np.pi, 721)
        # an artist, unlike a plot, leaves the limits alone
        ax.add_artist(Line2D(np.cos(turn), np.sin(turn), color="black", lw=0.8, label="border of stability"))
    else:
        ax.axvline(0, color="black", lw=0.8, label="border of stability")
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel="Re eigenvalue", ylabel="Im eigenvalue", title="Eigenvalues at the points, by unstable dimensions")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.12), ncols=3, frameon=False)
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
      >>> q_distribution(points, np.ones(4)).get_ylabel()
      'share of each kind'
    """
    ax = plt.subplots()[1] if ax is None else ax
    columns = {
        "candidates": (candidate_q, "#404040"),
        "slow points": (points.q[points.status == SLOW], SLOW_COLOR),
        "fixed points": (points.q[points.status == FIXED], INDEX_COLORS[0]),
    }
    shown = {name: np.asarray(values, float) for name, (values, _) in columns.items()}
    shown = {name: np.log10(np.maximum(values[np.isfinite(values)], Q_FLOOR)) for name, values in shown.items()}
    shown = {name: values for name, values in shown.items() if len(values)}
    highest = max((values.max() for values in shown.values()), default=0.0)
    bins = np.arange(np.floor(np.log10(Q_FLOOR)), np.ceil(highest) + 1.5)
    for name, values in shown.items():
        share, color = np.full(len(values), 1 / len(values)), columns[name][1]
        ax.hist(values, bins.tolist(), weights=share, color=color, alpha=0.7, label=f"{name} ({len(values)})")
    # ||r|| at a fixed point is some eps times the size of the state: q up to about 100 eps^2
    rounding = np.log10(100 * points.report.precision_floor**2)
    ax.axvspan(bins[0], rounding, color="0.93", zorder=0, label="rounding")
    ax.set(xlabel=r"$\log_{10} q$", ylabel="share of each kind", title="q where searches began and where they ended")
    ax.set(xlim=(bins[0], bins[-1]), ylim=(0, 1.05))
    ax.legend(fontsize=8, loc="upper center")
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
      >>> step = lambda p, h, u: 0.5 * h
      >>> points = find_fixed_points(step, None, np.ones((4, 2)))
      >>> discovery(audit(points, linearize(step, None, points.hidden))).get_ylabel()
      'distinct fixed points'
    """
    if audit.discovery is None:
        raise ValueError("audit must be of points that come from find_fixed_points, got one of plain arrays.")
    ax = plt.subplots()[1] if ax is None else ax
    drawn, found = audit.discovery.T
    ax.plot(drawn, found, color=INDEX_COLORS[1], label="among the candidates, mean over all orders")
    ax.axhline(audit.n_fixed, color="black", lw=0.8, ls=":", label=f"all fixed points known ({audit.n_fixed})")
    title = f"Discovery curve (unseen mass {100 * audit.unseen_mass:.2g} %)"
    ax.set(xlabel="candidates searched", ylabel="distinct fixed points", title=title, ylim=(0, None))
    ax.legend(fontsize=8, loc="lower right")
    return ax


def bifurcation_diagram(
    family: Family,
    direction: Any = None,
    parameter: Any = None,
    name: str = "s (samples of the path)",
    ax: Axes | None = None,
) -> Axes:
    """Points along a path, colored by their unstable dimensions, with the events among them.

    Args:
      family: result of `sweep`.
      direction: (n_hidden,) what of the state is shown; the first unit by default.
      parameter: (n_steps,) what varies along the path, at its samples; s by default.
      name: of the parameter.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if direction or parameter do not fit the family.

    Example:
      >>> from jaxfp import sweep
      >>> path = np.linspace(-1.0, 1.0, 5)
      >>> family = sweep(lambda a, h, u: h + a + h**2, -1.0, (np.array([[-1.0]]), None), params_path=path)
      >>> bifurcation_diagram(family, parameter=path, name="a").get_xlabel()
      'a'
    """
    n_steps, n_hidden = family.at_path.shape[1:]
    way = np.eye(n_hidden)[0] if direction is None else np.asarray(direction)
    values = np.arange(float(n_steps)) if parameter is None else np.asarray(parameter)
    if way.shape != (n_hidden,) or values.shape != (n_steps,):
        raise ValueError(
            f"direction must be ({n_hidden},) and parameter ({n_steps},), got {way.shape} and {values.shape}."
        )
    ax = plt.subplots()[1] if ax is None else ax
    named: dict[str, str] = {}
    for s, hidden, there, unstable in zip(family.s, family.hidden, family.exists, family.n_unstable, strict=True):
        x, y, unstable = np.interp(s[there], np.arange(n_steps), values), hidden[there] @ way, unstable[there]
        # An event belongs to the piece before it and to the piece after it.
        cuts = np.flatnonzero(np.diff(unstable)) + 1
        for first, last in zip([0, *cuts], [*cuts, len(x)], strict=True):
            n = int(unstable[first])
            color, label = (SLOW_COLOR, "not counted") if n < 0 else (_color(n), f"{n} unstable" if n else "stable")
            piece = slice(max(first - 1, 0), last)
            ax.plot(
                x[piece],
                y[piece],
                color=color,
                ls="--" if n else "-",
                lw=1.4,
                label=label if label not in named else "_",
            )
            named[label] = color
    events = family.events
    for kind, marker in (("fold", "s"), ("branch", "D"), ("flip", "^"), ("neimark-sacker", "o"), ("hopf", "o")):
        rows = np.flatnonzero(events.kind == kind)
        if len(rows):
            x = np.interp(events.s[rows], np.arange(n_steps), values)
            label = f"{kind} ({len(rows)})"
            ax.scatter(x, events.hidden[rows] @ way, marker=marker, s=28, c="white", ec="black", zorder=3, label=label)
    ax.set(
        xlabel=name,
        ylabel="first unit" if direction is None else "along the direction",
        title="Fixed points along a path",
    )
    if len(family.s):
        drawn = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
        labels = sorted(drawn, key=lambda label: (label not in ("stable", "not counted"), label))  # 1 unstable, 2, fold
        ax.legend([drawn[label] for label in labels], labels, fontsize=8)
    return ax


def _groups(n_unstable: np.ndarray, status: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    """(name, color, rows) of slow points, then of fixed points by their number of unstable dimensions."""
    slow, many = status == SLOW, len(INDEX_COLORS) - 1
    index = np.minimum(n_unstable, many)
    groups = [("slow points", SLOW_COLOR, np.flatnonzero(slow))]
    for i in range(many + 1):
        name = "stable" if i == 0 else f"{i} or more unstable" if i == many else f"{i} unstable"
        groups.append((name, INDEX_COLORS[i], np.flatnonzero(~slow & (index == i))))
    return [group for group in groups if len(group[2])]


def _color(n_unstable: int) -> str:
    return INDEX_COLORS[min(int(n_unstable), len(INDEX_COLORS) - 1)]


def _plane(right: np.ndarray, values: np.ndarray, mode: int) -> np.ndarray:
    """Real direction of an unstable mode; of a complex pair the first shows Re and the second Im of the vector."""
    vector = right[:, mode]
    if abs(values[mode].imag) > 0 and values[mode].imag < 0:
        return -vector.imag / max(np.linalg.norm(vector.imag), np.finfo(float).tiny)
    return vector.real / max(np.linalg.norm(vector.real), np.finfo(float).tiny)
