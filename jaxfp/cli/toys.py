"""`python -m jaxfp toys`: the two planar systems of figure 1 of Sussillo & Barak (2013), whose points are known.

The first has two nodes and a saddle. The second has a node and a saddle for a < 0; at a = 0 they meet, and for a > 0
there is a slow point instead, the ghost. Searches begin at a grid of 15 x 15 states. In the plane more can be proved
than that points exist: the square that is drawn is cut into smaller ones until each is shown to hold no fixed point, or
lies where a certified one is alone. What is left then are exactly the points found.
"""

import argparse
import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from jaxfp import dynamics, pipeline, plotting
from jaxfp.analysis import continuation, cycles, linearization
from jaxfp.analysis.branches import Family
from jaxfp.cli import frame, report
from jaxfp.proof import certificates
from jaxfp.tasks import toys
from jaxfp.types import FIXED, SLOW, StepFn

SIDE = 2.0  # of the square, half
GHOSTS = (1e-3, 1e-2, 0.1, 0.2)  # a > 0 at which the slow point is measured
_N_GRID = 15  # candidates a side
_N_DRAWN = 101  # grid of the figure
PATH = np.linspace(-0.2, 0.2, 9)  # a
_SMALLEST = 1e-4  # half side of a square that is not cut any more
_DT, _N_TIME = 0.02, 1000  # of the trajectories
_STARTS = ((-0.4, 1.9), (1.2, 1.8), (1.7, 1.2), (-0.9, 0.9), (0.9, -0.9), (0.4, -1.9), (-1.2, -1.8))


@dataclasses.dataclass(frozen=True)
class _Flow:
    """A short piece of a flow as a map, to simulate it."""

    field: StepFn

    def __call__(self, params: Any, hidden: Any, inputs: Any) -> Any:
        """One Runge-Kutta step."""
        return cycles.runge_kutta(lambda x: self.field(params, x, inputs), hidden, _DT)


class Known(NamedTuple):
    """How what was found compares with the closed form (T1, T2 of the two systems).

    Attributes:
      hidden_error: largest distance of a point from the known one next to it.
      q_error: largest |q - q known|, relative where that is not 0.
      eigenvalue_error: largest |eigenvalue - known|.
    """

    hidden_error: float
    q_error: float
    eigenvalue_error: float


def grid(n: int = _N_GRID) -> np.ndarray:
    """States that fill the square.

    Args:
      n: a side.

    Returns:
      (n * n, 2).

    Example:
      >>> grid(2).tolist()
      [[-2.0, -2.0], [2.0, -2.0], [-2.0, 2.0], [2.0, 2.0]]
    """
    side = np.linspace(-SIDE, SIDE, n)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)


def compare(analysis: report.Analysis, known: list[toys.KnownPoint]) -> Known:
    """Points against those known, each with the nearest.

    Args:
      analysis: see `report.analyze`.
      known: as many.

    Returns:
      Known.

    Raises:
      ValueError: if they are not as many, or two are nearest to one.

    Example:
      >>> analysis = report.analyze(
      ...     toys.ghost, 0.1, grid(3), None, kind="flow", until="all", key=jax.random.key(0), progress=False
      ... )
      >>> compare(analysis, toys.known_ghost(0.1)).q_error < 1e-8
      True
    """
    hidden = analysis.points.hidden
    away = np.linalg.norm(hidden[:, None] - np.array([k.hidden for k in known])[None], axis=2)
    row = away.argmin(1)
    if sorted(row) != list(range(len(known))):
        raise ValueError(f"{len(known)} points are known, {len(hidden)} were found, nearest to {row.tolist()}.")
    q = np.array([known[k].q for k in row])
    off = np.abs(analysis.points.q - q) / np.where(q > 0, q, 1.0)
    values = np.array([known[k].eigenvalues for k in row])
    return Known(*(float(x.max()) for x in (away.min(1), off, np.abs(analysis.modes.eigenvalues - values))))


def undecided(step_fn: StepFn, params: Any, proof: certificates.Certificates) -> tuple[float, int]:
    """Prove that the square holds no other fixed points than those certified, piece by piece.

    Args:
      step_fn: vector field of the plane.
      params: of the field.
      proof: of its points.

    Returns:
      Share of the square that is not decided, 0 for a proof; number of pieces looked at.

    Example:
      >>> nothing = certificates.certify(toys.ghost, 0.1, np.array([[0.5, 0.55]]), kind="flow")
      >>> undecided(toys.ghost, 0.1, nothing)[0]
      0.0
    """
    alone, reach = proof.center[proof.exists], proof.unique_radius[proof.exists]
    corners = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]])
    centers, half, n_pieces = np.zeros((1, 2)), SIDE, 0
    while len(centers) and half > _SMALLEST:
        centers, half = (centers[:, None] + half / 2 * corners[None]).reshape(-1, 2), half / 2
        n_pieces += len(centers)
        far = np.abs(centers[:, None] - alone[None]).max(-1, initial=0.0) + half  # of the farthest state of a piece
        inside = (far * (1 + 1e-12) < reach[None]).any(1)
        centers = centers[~inside]
        centers = centers[~certificates.excludes(step_fn, params, centers, half, kind="flow")]
    return float(len(centers) * (half / SIDE) ** 2), n_pieces


def follow() -> tuple[Family, np.ndarray]:
    """Node and saddle of the ghost's system along a, and the slow points that take their place.

    Returns:
      The family along `PATH`; the slow point at each of `GHOSTS`, (n, 2).

    Raises:
      ValueError: if a search does not end in the one slow point.

    Example:
      >>> family, slow = follow()
      >>> family.events.kind.tolist(), slow.shape
      (['fold'], (4, 2))
    """
    before = pipeline.find_fixed_points(toys.ghost, float(PATH[0]), grid(), kind="flow")
    family = continuation.sweep(toys.ghost, float(PATH[0]), before, params_path=PATH)
    slow = [pipeline.find_fixed_points(toys.ghost, a, grid(), kind="flow") for a in GHOSTS]
    if any(points.status.tolist() != [SLOW] for points in slow):
        raise ValueError(f"one slow point was expected at each a > 0, got {[p.status.tolist() for p in slow]}.")
    return family, np.concatenate([points.hidden for points in slow])


def add_parser(commands: Any) -> None:
    """Register the command.

    Args:
      commands: argparse subparsers.

    Example:
      >>> add_parser(argparse.ArgumentParser().add_subparsers())
    """
    parser = commands.add_parser(
        "toys",
        help="two systems of two dimensions, to see what fixed and slow points are",
        description="Find the fixed and slow points of two planar systems whose points are known in closed form "
        "(Sussillo & Barak 2013, figure 1), prove that there are no others, and follow a node and a saddle until they "
        "meet and leave a slow point, the ghost. Prints tables, and writes report.json, the points (npz) and figures "
        "(png) to the folder --out.",
        epilog="example: python -m jaxfp toys --a 0.05 --out results",
    )
    parser.add_argument("--a", type=float, default=0.1, metavar="A", help="how far behind the saddle-node the ghost is "
                        "looked at, from 0.001 to 0.2 (default: %(default)s)")  # fmt: skip
    frame.add_options(parser, run, out="toys", seed="search")


def run(arguments: argparse.Namespace) -> None:
    """The command.

    Args:
      arguments: as parsed.

    Raises:
      ValueError: for an a out of range and files that cannot be written.

    Example:
      >>> run(argparse.Namespace(a=-1.0))
      Traceback (most recent call last):
      ...
      ValueError: --a must be from 0.001 to 0.2, got -1.0.
    """
    if not GHOSTS[0] <= arguments.a <= GHOSTS[-1]:
        raise ValueError(f"--a must be from {GHOSTS[0]} to {GHOSTS[-1]}, got {arguments.a}.")
    systems: dict[str, tuple[StepFn, Any, list[toys.KnownPoint]]] = {
        "three_points": (toys.three_points, None, toys.known_three_points()),
        "before": (toys.ghost, -arguments.a, toys.known_ghost(-arguments.a)),
        "ghost": (toys.ghost, arguments.a, toys.known_ghost(arguments.a)),
    }
    with frame.running(arguments) as job:
        said, found, figures = {}, {}, []
        for name, (field, params, known) in systems.items():
            analysis = report.analyze(
                field, params, grid(), None, kind="flow", until="all", key=jax.random.key(arguments.seed),
                progress=not arguments.quiet,
            )  # fmt: skip
            assert analysis.proof is not None  # every operation of the toys has an interval rule
            compared, (left, n_pieces) = compare(analysis, known), undecided(field, params, analysis.proof)
            said[name] = {"known": compared._asdict(), "undecided": left, "n_pieces": n_pieces}
            said[name] |= {"params": params, **report.summary(analysis)}
            found[f"{name}.npz"] = analysis.points
            figures.append(report.Drawing(f"{name}.png", _plane(field, params, analysis)))
            _show(job.console, params, analysis, compared, left)
        family, slow = follow()
        said["family"] = _family(family, slow)
        _show_family(job.console, said["family"])
    figures.append(report.Drawing("saddle_node.png", lambda ax: plotting.saddle_node(family, PATH, GHOSTS, slow, ax)))
    frame.finish(job, said, found, figures)


def _family(family: Family, slow: np.ndarray) -> dict[str, Any]:
    """Events in a, and the slow points beside a^2 / 4 (T2)."""
    events, each = family.events, []
    for a, hidden in zip(GHOSTS, slow, strict=True):
        q = float(dynamics.q(toys.ghost, a, hidden, kind="flow"))
        largest = np.linalg.eigvals(linearization.linearize(toys.ghost, a, hidden).jacobian).real.max()
        off = abs(4 * q / a**2 - 1)
        each.append({"a": a, "hidden": hidden, "q": q, "q_relative_error": off, "largest_eigenvalue": largest})
    return {
        "path": PATH,
        "x1": family.at_path[:, :, 0],
        "n_unstable": family.unstable_at_path,
        "events": [
            {"kind": str(kind), "a": float(np.interp(s, np.arange(len(PATH)), PATH)), "hidden": hidden}
            for kind, s, hidden in zip(events.kind, events.s, events.hidden, strict=True)
        ],
        "slow": each,
    }


def _plane(field: StepFn, params: Any, analysis: report.Analysis) -> Any:
    """The figure of one system: q, streamlines, a few trajectories, points."""
    side = np.linspace(-SIDE, SIDE, _N_DRAWN)
    velocity = dynamics.residual(field, params, grid(_N_DRAWN), kind="flow").reshape(_N_DRAWN, _N_DRAWN, 2)
    run = jax.jit(dynamics.simulate, static_argnums=0, static_argnames="n_time")
    start = np.array(_STARTS, np.float32)
    paths = np.asarray(run(_Flow(field), params, start, n_time=_N_TIME))
    paths = np.concatenate([start[:, None], paths], axis=1)

    def draw(ax: Any) -> Any:
        plotting.phase_plane(side, side, velocity, analysis.points, analysis.modes, list(paths), ax)
        ax.set_title(_title(params))

    return draw


def _show(console: Console, params: Any, analysis: report.Analysis, compared: Known, left: float) -> None:
    points = analysis.points
    n_fixed, n_slow = (points.status == FIXED).sum(), (points.status == SLOW).sum()
    console.print(f"[bold]{_title(params)}[/bold]: {n_fixed} FIXED, {n_slow} SLOW.")
    for p, verdict in enumerate(analysis.modes.verdict):
        kind = f"{verdict}, certified" if analysis.proof is not None and analysis.proof.exists[p] else "slow"
        x1, x2 = points.hidden[p]
        first, second = analysis.modes.eigenvalues[p].real
        console.print(
            f"  ({x1:.4f}, {x2:.4f})  q {points.q[p]:.3g}, eigenvalues {first:.5f}, {second:.5f}: {kind}",
            soft_wrap=True,
        )
    others = "no other fixed point" if n_fixed else "no fixed point"
    proved = f"is proved to hold {others}" if left == 0 else f"is not decided on {left:.1e} of it"
    console.print(
        f"The square |x1|, |x2| <= {SIDE:g} {proved}. Beside the closed form: points off by "
        f"{compared.hidden_error:.0e}, q by {compared.q_error:.0e}, eigenvalues by {compared.eigenvalue_error:.0e}.\n"
    )


def _title(params: float | None) -> str:
    if params is None:
        return "Two nodes and a saddle"
    return f"{'Before a saddle-node' if params < 0 else 'The ghost of a saddle-node'}, a = {params:g}"


def _show_family(console: Console, said: dict[str, Any]) -> None:
    for event in said["events"]:
        console.print(f"Followed along a, node and saddle meet in a {event['kind']} at a = {event['a']:.1e}.")
    off = max(one["q_relative_error"] for one in said["slow"])
    largest = max(abs(one["largest_eigenvalue"]) for one in said["slow"])
    console.print(
        f"Behind it, at a = {GHOSTS[0]:g} to {GHOSTS[-1]:g}, one slow point each; q is a^2 / 4 within {off:.0e} of "
        f"itself, the largest eigenvalue 0 within {largest:.0e}.\n"
    )
