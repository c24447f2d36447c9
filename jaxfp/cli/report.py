"""From a search to what a person reads: tables on the terminal, report.json, fixed_points.npz, figures."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxfp import dynamics, io, pipeline, plotting
from jaxfp.analysis import completeness, integration, linearization, modes
from jaxfp.cli import proofs
from jaxfp.proof import certificates
from jaxfp.types import FIXED, SLOW, Array, FixedPoints, Kind, Params, StepFn

_COMPILE_EVENTS = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")


class Analysis(NamedTuple):
    """One search and everything read off it.

    Attributes:
      points: fixed and slow points.
      linear: Jacobians there.
      modes: their spectra, with bounds that cover the fixed point itself where it is certified.
      audit: how complete the points are.
      proof: that the FIXED ones exist and are alone; None where the step uses an operation without an interval rule.
      ghost_radius: (n_points,) activation units; around a SLOW point, proved to hold no fixed point; 0 where nothing is
        proved.
      candidate_q: (n_candidates,) q where the searches began.
    """

    points: FixedPoints
    linear: linearization.Linearization
    modes: modes.Modes
    audit: completeness.Audit
    proof: certificates.Certificates | None
    ghost_radius: np.ndarray
    candidate_q: np.ndarray


def analyze(
    step_fn: StepFn,
    params: Params,
    candidates: Array,
    inputs: Array | None,
    *,
    kind: Kind = "map",
    dt: float = 1.0,
    until: Literal["all", "complete"] = "complete",
    key: jax.Array,
    progress: bool = True,
    checkpoint: pathlib.Path | None = None,
) -> Analysis:
    """Search, linearize, audit, certify.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`.
      params: pytree that `step_fn` understands.
      candidates: (n_candidates, n_hidden).
      inputs: (n_inputs,) or None.
      kind: "map" or "flow".
      dt: duration of one step.
      until: see `find_fixed_points`.
      key: of the seeded waves.
      progress: show a bar.
      checkpoint: see `find_fixed_points`.

    Returns:
      Analysis.

    Example:
      >>> from jaxfp import from_arrays
      >>> network = from_arrays("tanh", {"w_rec": np.eye(3) / 2, "w_in": np.eye(3)})
      >>> analysis = analyze(*network, np.ones((32, 3)), None, key=jax.random.key(0), progress=False)
      >>> analysis.audit.index_sum
      1
    """
    points = pipeline.find_fixed_points(
        step_fn, params, candidates, inputs, kind=kind, until=until, key=key, progress=progress,
        checkpoint=checkpoint,
    )  # fmt: skip
    linear = linearization.linearize(step_fn, params, points.hidden, points.inputs)
    proof, ghost_radius = proofs.prove(step_fn, params, points, kind)
    error = proofs.jacobian_error(step_fn, params, points, linear.jacobian, proof)
    spectra = modes.spectrum(linear.jacobian, dt=dt, kind=kind, jacobian_error=error)
    candidate_q = dynamics.q(step_fn, params, np.asarray(candidates, np.float64), inputs, kind=kind)
    return Analysis(points, linear, spectra, completeness.audit(points, linear), proof, ghost_radius, candidate_q)


@contextlib.contextmanager
def compile_seconds() -> Iterator[Callable[[], float]]:
    """Count the seconds that JAX spends tracing and compiling inside the block.

    Returns:
      A function that says how many so far.

    Example:
      >>> with compile_seconds() as seconds:
      ...     _ = jax.jit(lambda x: x + 1)(1.0)
      >>> seconds() > 0
      True
    """
    spans: list[tuple[float, float]] = []
    listening = True

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if listening and event.endswith(_COMPILE_EVENTS):
            now = time.perf_counter()
            began = now - duration_secs
            while spans and spans[-1][1] > began:  # a function traced within another: its time is counted once
                began = min(began, spans.pop()[0])
            spans.append((began, now))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield lambda: sum(end - began for began, end in spans)
    finally:
        listening = False  # JAX has no public way to take a listener back


def show(console: Console, analysis: Analysis, codes: list[str] | None = None) -> None:
    """Print the tables and the audit.

    Args:
      console: rich console.
      analysis: see `analyze`.
      codes: what the readout says at each point, or None.

    Example:
      >>> from jaxfp import from_arrays
      >>> network = from_arrays("tanh", {"w_rec": np.eye(3) / 2, "w_in": np.eye(3)})
      >>> analysis = analyze(*network, np.ones((32, 3)), None, key=jax.random.key(0), progress=False)
      >>> console = Console(record=True, quiet=True)
      >>> show(console, analysis)
    """
    points, spectra = analysis.points, analysis.modes
    console.print("[bold]Fixed points[/bold] by unstable dimensions (largest |eigenvalue|, slowest timescale):")
    table = Table()
    for name in ("unstable", "points", "hits", "max q", "|eigenvalue|", "timescale", "verdicts"):
        table.add_column(name, justify="left" if name == "verdicts" else "right")
    fixed = points.status == FIXED
    for index in np.unique(spectra.n_unstable[fixed]):
        rows = np.flatnonzero(fixed & (spectra.n_unstable == index))
        top = np.abs(spectra.eigenvalues[rows, 0])
        verdicts, counts = np.unique(spectra.verdict[rows], return_counts=True)
        table.add_row(
            str(index),
            str(len(rows)),
            str(points.n_hits[rows].sum()),
            f"{points.q[rows].max():.0e}",
            f"{top.min():.3f}" if len(rows) == 1 else f"{top.min():.3f}-{top.max():.3f}",
            f"{np.abs(spectra.timescale[rows]).max():.3g}",
            ", ".join(f"{n} {v}" for v, n in zip(verdicts, counts, strict=True)),
        )
    console.print(table)
    stable = fixed & (spectra.n_unstable == 0)
    if codes is not None:
        distinct = sorted({codes[p] for p in np.flatnonzero(stable)})
        shown = " ".join(distinct[:8]) + (" ..." if len(distinct) > 8 else "")
        console.print(f"{stable.sum()} stable, with {len(distinct)} distinct signs of the readout: {shown}")
    console.print(proofs.sentence(points, analysis.proof))
    _show_slow(console, analysis)
    counts_text = ", ".join(f"{n} {name}" for name, n in points.report.counts.items() if n)
    unsearched = points.report.n_unsearched
    console.print(f"\nThe {points.report.n_candidates} candidates searched ended as: {counts_text}.")
    if unsearched:
        console.print(f"  {unsearched} more were not needed.")
    for reason, n in points.report.reasons.items():
        console.print(f"  {n} {reason}")
    seeded = [wave for wave in points.report.waves if wave["seeded"]]
    found = sum(wave["n_new_fixed"] for wave in seeded)
    console.print(f"Seeded waves after that: {len(seeded)}, which found {found} more.\n")
    console.print(analysis.audit.summary())


def _show_slow(console: Console, analysis: Analysis) -> None:
    points = analysis.points
    slow = np.flatnonzero(points.status == SLOW)
    if not len(slow):
        return
    usual = points.report.candidate_speed
    console.print(f"\n[bold]Slow points[/bold], speed per step; the median speed of the candidates is {usual:.3g}:")
    table = Table()
    for name in ("speed", "of that median", "hits", "no fixed point within"):
        table.add_column(name, justify="right")
    slow = slow[np.argsort(points.speed[slow])]
    for row in slow[:10]:
        radius = analysis.ghost_radius[row]
        table.add_row(
            f"{points.speed[row]:.3g}",
            f"{points.speed[row] / usual:.2g}",
            str(points.n_hits[row]),
            f"{radius:.0e}" if radius else "not proved",
        )
    console.print(table)
    if len(slow) > 10:
        console.print(f"... and {len(slow) - 10} faster ones (all in report.json).")


def summary(analysis: Analysis, codes: list[str] | None = None) -> dict[str, Any]:
    """All numbers of an analysis, JSON-like.

    Args:
      analysis: see `analyze`.
      codes: what the readout says at each point, or None.

    Returns:
      Dict with the audit, the search report, counts by number of unstable dimensions, and every point.

    Example:
      >>> from jaxfp import from_arrays
      >>> network = from_arrays("tanh", {"w_rec": np.eye(3) / 2, "w_in": np.eye(3)})
      >>> analysis = analyze(*network, np.ones((32, 3)), None, key=jax.random.key(0), progress=False)
      >>> summary(analysis)["fixed_points_by_unstable_dimensions"]
      {'0': 1}
    """
    points, spectra, audit = analysis.points, analysis.modes, analysis.audit
    fixed = points.status == FIXED
    index, counts = np.unique(spectra.n_unstable[fixed], return_counts=True)
    each = [
        {
            "status": "FIXED" if fixed[p] else "SLOW",
            "isolated": points.isolated[p],
            "q": points.q[p],
            "speed": points.speed[p],
            "n_hits": points.n_hits[p],
            "index": audit.signs[p],
            "n_unstable": spectra.n_unstable[p],
            "verdict": str(spectra.verdict[p]),
            "condition": spectra.condition[p],
            "eigenvalues": spectra.eigenvalues[p, :8],
            "eigenvalue_bounds": spectra.bound[p, :8],
            "timescales": spectra.timescale[p, :8],
            **proofs.of_point(points, analysis.proof, analysis.ghost_radius, p),
            **({} if codes is None else {"readout_signs": codes[p]}),
        }
        for p in range(len(points.hidden))
    ]
    return {
        "fixed_points_by_unstable_dimensions": {str(i): int(n) for i, n in zip(index, counts, strict=True)},
        "n_fixed": audit.n_fixed,
        "n_slow": audit.n_slow,
        "audit": {
            "index_sum": audit.index_sum,
            "index_sums": audit.index_sums,
            "expected": audit.expected,
            "reason": audit.reason,
            "unseen_mass": audit.unseen_mass,
            "complete": audit.complete,
            "discovery": audit.discovery,
            "summary": audit.summary().splitlines(),
        },
        "search": points.report._asdict(),
        "points": each,
    }


class Drawing(NamedTuple):
    """A figure to be saved.

    Attributes:
      name: of the file.
      draw: function of the axes.
      projection: "3d", or None for a flat one.
    """

    name: str
    draw: Callable[[Any], Any]
    projection: str | None = None


def figures(analysis: Analysis, trajectories: Any = None, kind: Kind = "map") -> list[Drawing]:
    """The figures that every search has.

    Args:
      analysis: see `analyze`.
      trajectories: (n_trials, n_time, n_hidden) to draw and to take principal directions from; the points themselves
        by default.
      kind: "map" or "flow".

    Returns:
      What to draw.

    Example:
      >>> from jaxfp import from_arrays
      >>> network = from_arrays("tanh", {"w_rec": np.eye(3) / 2, "w_in": np.eye(3)})
      >>> analysis = analyze(*network, np.ones((32, 3)), None, key=jax.random.key(0), progress=False)
      >>> [drawing.name for drawing in figures(analysis)]
      ['state_space.png', 'eigenvalues.png', 'q.png', 'discovery.png']
    """

    def spectra(ax: Any) -> Any:
        return plotting.eigenvalues(analysis.modes, status=analysis.points.status, kind=kind, ax=ax)

    drawings = [
        Drawing("eigenvalues.png", spectra),
        Drawing("q.png", lambda ax: plotting.q_distribution(analysis.points, analysis.candidate_q, ax)),
        Drawing("discovery.png", lambda ax: plotting.discovery(analysis.audit, ax)),
    ]
    states = analysis.points.hidden if trajectories is None else trajectories.reshape(-1, trajectories.shape[-1])
    if states.shape[1] < 3 or not len(states):
        return drawings
    projection = principal_directions(states)

    def cube(ax: Any) -> Any:
        return plotting.state_space(analysis.points, analysis.modes, projection, trajectories, ax)

    return [Drawing("state_space.png", cube, "3d"), *drawings]


def save_figure(path: pathlib.Path, draw: Callable[[Any], Any], **axes: Any) -> pathlib.Path:
    """Draw into axes of their own and save, without touching pyplot's state.

    Args:
      path: PNG to write.
      draw: function of the axes.
      **axes: passed to `add_subplot`.

    Returns:
      The path.

    Raises:
      ValueError: if the file cannot be written.

    Example:
      >>> import tempfile
      >>> save_figure(pathlib.Path(tempfile.mkdtemp(), "line.png"), lambda ax: ax.plot([0, 1])).name
      'line.png'
    """
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    draw(figure.add_subplot(**axes))
    io.write_whole(path, lambda file: figure.savefig(file, dpi=150, format="png"))
    return path


def save_panels(path: pathlib.Path, drawings: Sequence[Drawing], n_columns: int = 4) -> pathlib.Path:
    """Several drawings side by side in one figure.

    Args:
      path: PNG to write.
      drawings: row by row.
      n_columns: how many stand beside each other.

    Returns:
      The path.

    Raises:
      ValueError: if the file cannot be written.

    Example:
      >>> import tempfile
      >>> panel = Drawing("line.png", lambda ax: ax.plot([0, 1]))
      >>> save_panels(pathlib.Path(tempfile.mkdtemp(), "both.png"), [panel, panel]).name
      'both.png'
    """
    n_rows = -(-len(drawings) // n_columns)
    figure = Figure(figsize=(4.4 * n_columns, 3.8 * n_rows), layout="constrained")
    for place, drawing in enumerate(drawings, start=1):
        drawing.draw(figure.add_subplot(n_rows, n_columns, place, projection=drawing.projection))
    io.write_whole(path, lambda file: figure.savefig(file, dpi=120, format="png"))
    return path


def principal_directions(states: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and first three principal directions.

    Args:
      states: (n_states, n_hidden), n_hidden >= 3.

    Returns:
      Origin (n_hidden,), axes (3, n_hidden).

    Example:
      >>> principal_directions(np.eye(4))[1].shape
      (3, 4)
    """
    found = integration.principal_components(states)
    return found.origin, found.directions[:3]


def stopwatch() -> Callable[[], float]:
    """Seconds since this call.

    Returns:
      A function of no arguments.

    Example:
      >>> stopwatch()() >= 0
      True
    """
    began = time.perf_counter()
    return lambda: time.perf_counter() - began
