"""The mechanism of a memory: which saddles join which memories, what each pulse does, and where it just fails to.

The claims of Sussillo & Barak (2013) about their 3-bit network, each counted: saddles with one unstable dimension join
memories that differ in one bit; single pulses lead from memory to memory as the task asks; and a pulse too weak by a
hair leads along the border between two memories to the saddle that joins them.
"""

from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from jaxfp import dynamics, plotting
from jaxfp.analysis import responses, topology
from jaxfp.cli import report
from jaxfp.types import STATUS_NAMES, Params, StepFn

_N_SHOWN = 400  # steps of a trajectory in figures


class Mechanism(NamedTuple):
    """What joins the memories.

    Attributes:
      graph: from every saddle to where its unstable manifold ends.
      joined: memories joined by saddles with one unstable dimension.
      table: what each pulse does to each memory.
      pulses: (2 n_bits, 1, n_bits) one step of +1, then of -1, on each line.
      right: (n_memories, 2 n_bits) bool, it leads where the task asks.
      sweeps: critical pulses from each of two joined memories to the other.
      ways: (n_sweeps, 3) rows of the memory, of the one it should lead to, and of the saddle that joins them.
      summary: all numbers, JSON-like.
    """

    graph: topology.Connections
    joined: topology.MemoryGraph
    table: responses.Transitions
    pulses: np.ndarray
    right: np.ndarray
    sweeps: responses.CriticalAmplitude
    ways: np.ndarray
    summary: dict[str, Any]


def explain(
    step_fn: StepFn, params: Params, analysis: report.Analysis, codes: list[str], n_bits: int, n_pulse: int = 1
) -> Mechanism:
    """Trace the connections, apply the pulses, bisect their amplitudes.

    Args:
      step_fn: of the network.
      params: of the step.
      analysis: its fixed points.
      codes: what the readout says at each point, n_points strings of "+" and "-".
      n_bits: lines of the task.
      n_pulse: steps that a pulse lasts.

    Returns:
      Mechanism.

    Example:
      >>> from jaxfp import from_arrays
      >>> network = from_arrays("tanh", {"w_rec": 1.5 * np.eye(1), "w_in": 3 * np.eye(1)})
      >>> starts = np.linspace(-1, 1, 32)[:, None]
      >>> analysis = report.analyze(*network, starts, None, key=jax.random.key(0), progress=False)
      >>> codes = ["+" if x > 0 else "-" for x in analysis.points.hidden[:, 0]]
      >>> explain(*network, analysis, codes, 1).summary["edges"]["by_hamming_distance"]
      {'1': 1}
    """
    seconds = report.stopwatch()
    points, spectra = analysis.points, analysis.modes
    graph = topology.connections(step_fn, params, points, spectra)
    traced = seconds()
    joined = topology.memory_graph(graph, codes)
    pulses = np.repeat(np.concatenate([np.eye(n_bits), -np.eye(n_bits)])[:, None], n_pulse, axis=1)
    table = responses.transitions(step_fn, params, points, spectra, pulses)
    wanted = [[_after(codes[row], pulse[0]) for pulse in pulses] for row in table.memory]
    right = np.array(
        [
            [target >= 0 and codes[target] == code for target, code in zip(*row, strict=True)]
            for row in zip(table.target, wanted, strict=True)
        ],
        bool,
    ).reshape(table.target.shape)

    there = np.stack([joined.first, joined.second, joined.saddle], axis=1)
    ways = np.concatenate([there, there[:, [1, 0, 2]]])
    ways = ways[[codes[a] != codes[b] for a, b, _ in ways]] if len(ways) else ways
    bits = np.array([[1.0 if bit == "+" else -1.0 for bit in code] for code in codes]).reshape(len(codes), n_bits)
    shapes = np.repeat((bits[ways[:, 1]] - bits[ways[:, 0]])[:, None] / 2, n_pulse, axis=1)
    sweeps = responses.critical_amplitude(step_fn, params, points, spectra, ways[:, 0], shapes)
    said = _summarize(graph, joined, table, right, sweeps, ways, codes, n_bits)
    said["seconds"] = {"connections": traced, "all": seconds()}
    return Mechanism(graph, joined, table, pulses, right, sweeps, ways, said)


def _after(code: str, pulse: np.ndarray) -> str:
    """The memory that the task asks for after a pulse."""
    return "".join("+" if u > 0 else "-" if u < 0 else bit for bit, u in zip(code, pulse, strict=True))


def _summarize(
    graph: topology.Connections, joined: topology.MemoryGraph, table: responses.Transitions, right: np.ndarray,
    sweeps: responses.CriticalAmplitude, ways: np.ndarray, codes: list[str], n_bits: int,
) -> dict[str, Any]:  # fmt: skip
    distance = np.zeros(0, int) if joined.distance is None else joined.distance
    sizes, counts = np.unique(distance, return_counts=True)
    edges = {frozenset((codes[a], codes[b])) for a, b in zip(joined.first, joined.second, strict=True)}
    names = [STATUS_NAMES[code] for code in range(len(STATUS_NAMES))]
    first, last = (
        np.array([f(d[np.isfinite(d)]) if np.isfinite(d).any() else np.nan for d in sweeps.distance])
        for f in (lambda d: d[0], lambda d: d.min())
    )
    own = sweeps.saddle == ways[:, 2]
    return {
        "connections": [
            {
                "source": source,
                "target": target,
                "outcome": names[outcome],
                "n_unstable": m,
                "fraction": share,
                "n_starts": n,
                "n_steps": steps,
                "target_signs": codes[target] if target >= 0 else None,
            }
            for source, target, outcome, m, share, n, steps in zip(
                graph.source, graph.target, graph.outcome, graph.n_unstable, graph.fraction, graph.n_starts,
                graph.n_steps, strict=True,
            )
        ],
        "edges": {
            "by_hamming_distance": {str(d): int(n) for d, n in zip(sizes, counts, strict=True)},
            "distinct": len([edge for edge in edges if len(edge) == 2]),
            "one_bit_edges_of_the_cube": n_bits * 2 ** (n_bits - 1),
            "distinct_with_one_bit": len({edge for edge in edges if len(edge) == 2 and _differ(*edge) == 1}),
            "saddles_with_an_end_elsewhere": joined.n_left_out,
        },
        "truth_table": {
            "right": int(right.sum()),
            "of": int(right.size),
            "asked": 2**n_bits * 2 * n_bits,
        },
        "critical_pulses": {
            "of": len(ways),
            "bracketed": int(np.isfinite(sweeps.amplitude).sum()),
            "to_the_saddle_between": int(own.sum()),
            "ends_1_percent_around": int((sweeps.around == ways[:, :2]).all(1).sum()),
            "amplitudes": sweeps.amplitude,
            "distance_of_first_bisection": first,
            "least_distance": last,
        },
    }  # fmt: skip


def _differ(a: str, b: str) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


def show(console: Console, summary: dict[str, Any]) -> None:
    """Print what joins the memories.

    Args:
      console: rich console.
      summary: of a `Mechanism`.

    Example:
      >>> console = Console(quiet=True)
      >>> edges = {"by_hamming_distance": {"1": 12}, "distinct_with_one_bit": 12, "one_bit_edges_of_the_cube": 12,
      ...          "saddles_with_an_end_elsewhere": 0}
      >>> pulses = {"of": 0, "bracketed": 0, "to_the_saddle_between": 0, "ends_1_percent_around": 0, "amplitudes": [],
      ...           "distance_of_first_bisection": [], "least_distance": []}
      >>> table = {"right": 48, "of": 48, "asked": 48}
      >>> show(console, {"edges": edges, "truth_table": table, "critical_pulses": pulses, "connections": []})
    """
    console.print("\n[bold]Connections[/bold]: where the unstable manifolds of the saddles end:")
    shown = Table()
    for name in ("unstable", "saddles", "traced", "reach a stable point", "reach another", "do not"):
        shown.add_column(name, justify="right")
    rows = summary["connections"]
    for index in sorted({int(row["n_unstable"]) for row in rows}):
        own = [row for row in rows if row["n_unstable"] == index]
        starts = {row["source"]: row["n_starts"] for row in own}
        shares = [
            sum(row["fraction"] * row["n_starts"] for row in own if row["outcome"] == name)
            for name in ("REACHED", "AT_SADDLE")
        ]
        traced = sum(starts.values())
        counts = (index, len(starts), traced, round(shares[0]), round(shares[1]), traced - round(sum(shares)))
        shown.add_row(*map(str, counts))
    console.print(shown)
    edges, table, pulses = summary["edges"], summary["truth_table"], summary["critical_pulses"]
    apart = ", ".join(f"{n} by {d} bit{'s' * (d != '1')}" for d, n in edges["by_hamming_distance"].items()) or "none"
    console.print(
        f"Memories joined by a saddle with one unstable dimension, by how much they differ: {apart}. Of "
        f"{edges['one_bit_edges_of_the_cube']} pairs that differ in one bit, {edges['distinct_with_one_bit']} are."
    )
    console.print(f"Single pulses lead where the task asks in {table['right']} of {table['of']} cases.")
    if pulses["bracketed"]:
        begin, end = (np.nanmedian(pulses[name]) for name in ("distance_of_first_bisection", "least_distance"))
        console.print(
            f"Pulses from a memory to one joined to it become critical at amplitudes from "
            f"{np.nanmin(pulses['amplitudes']):.3f} to {np.nanmax(pulses['amplitudes']):.3f}; at the critical one the "
            f"state is led to the saddle between them in {pulses['to_the_saddle_between']} of {pulses['of']} cases, to "
            f"within {end:.1g} (first bisection: {begin:.1g}; medians), and 1 % below and above it ends in the two "
            f"memories in {pulses['ends_1_percent_around']}.\n"
        )


def figures(
    step_fn: StepFn, params: Params, mechanism: Mechanism, analysis: report.Analysis, codes: list[str],
    states: np.ndarray,
) -> list[report.Drawing]:  # fmt: skip
    """The figures.

    Args:
      step_fn: of the network.
      params: of the step.
      mechanism: see `explain`.
      analysis: its fixed points.
      codes: what the readout says at each point.
      states: (n_trials, n_time, n_hidden) to take principal directions from.

    Returns:
      Drawings.

    Example:
      >>> from jaxfp import from_arrays
      >>> network = from_arrays("tanh", {"w_rec": 1.5 * np.eye(1), "w_in": 3 * np.eye(1)})
      >>> starts = np.linspace(-1, 1, 32)[:, None]
      >>> analysis = report.analyze(*network, starts, None, key=jax.random.key(0), progress=False)
      >>> codes = ["+" if x > 0 else "-" for x in analysis.points.hidden[:, 0]]
      >>> mechanism = explain(*network, analysis, codes, 1)
      >>> [figure.name for figure in figures(*network, mechanism, analysis, codes, starts[None])]
      ['edges.png', 'truth_table.png', 'approach.png', 'critical_pulse.png']
    """
    hidden, graph = analysis.points.hidden, mechanism.graph
    drawings = []
    states = np.asarray(states, np.float64).reshape(-1, hidden.shape[1])
    rows = np.flatnonzero((graph.n_unstable == 1) & (graph.target >= 0))
    if hidden.shape[1] >= 3 and len(rows):
        n_time = min(int(graph.n_steps[rows].max()), _N_SHOWN)
        paths = dynamics.simulate(step_fn, params, graph.start[rows], n_time=n_time)
        projection = report.principal_directions(states)
        index = analysis.modes.n_unstable
        drawings.append(
            report.Drawing(
                "connections.png",
                lambda ax: plotting.unstable_manifolds(hidden, index, paths, projection, codes, ax),
                projection="3d",
            )
        )
    edges: Any = [] if mechanism.joined.distance is None else mechanism.joined.distance
    drawings.append(report.Drawing("edges.png", lambda ax: plotting.edge_distances(edges, ax)))
    table, names = mechanism.table, [*codes, "?"]
    order = sorted(range(len(table.memory)), key=lambda row: codes[table.memory[row]])
    reached = [[names[target] for target in table.target[row]] for row in order]
    memories, lines = [codes[table.memory[row]] for row in order], _line_names(mechanism.pulses)
    right = mechanism.right[order]
    drawings.append(
        report.Drawing("truth_table.png", lambda ax: plotting.truth_table(reached, right, memories, lines, ax))
    )
    sweeps = mechanism.sweeps
    done = np.flatnonzero(np.isfinite(sweeps.amplitude) & (sweeps.saddle >= 0))
    if len(done):
        offset = np.abs(sweeps.tried - sweeps.amplitude[:, None])[done]
        distance = sweeps.distance[done]
        drawings.append(report.Drawing("approach.png", lambda ax: plotting.approach(offset, distance, ax)))
        drawings.append(_critical_pulse(step_fn, params, mechanism, hidden, codes, int(done[0])))
    return drawings


def _critical_pulse(
    step_fn: StepFn, params: Params, mechanism: Mechanism, hidden: np.ndarray, codes: list[str], sweep: int
) -> report.Drawing:
    """One pulse at amplitudes on either side of the critical one."""
    (a, b, _), critical = mechanism.ways[sweep], float(mechanism.sweeps.amplitude[sweep])
    shares = np.concatenate([-(10.0 ** -np.arange(1, 14, 3.0)), 10.0 ** -np.arange(1, 14, 3.0)])
    amplitudes = critical * (1 + shares)
    pulse = np.array([(u == "+") - (u == "-") if u != v else 0.0 for u, v in zip(codes[b], codes[a], strict=True)])
    drive = np.zeros((len(amplitudes), _N_SHOWN // 4, len(pulse)))
    drive[:, : mechanism.pulses.shape[1]] = amplitudes[:, None, None] * pulse
    states = dynamics.simulate(step_fn, params, hidden[a], drive)
    way = hidden[b] - hidden[a]

    def place(x: np.ndarray) -> np.ndarray:
        return 2 * ((x - hidden[a]) @ way) / (way @ way) - 1

    saddle = float(place(hidden[mechanism.sweeps.saddle[sweep]]))
    return report.Drawing(
        "critical_pulse.png",
        lambda ax: plotting.amplitude_sweep(place(states), amplitudes, saddle, critical, (codes[a], codes[b]), ax),
    )


def _line_names(pulses: np.ndarray) -> list[str]:
    return ["".join("+" if u > 0 else "-" if u < 0 else "0" for u in pulse[0]) for pulse in pulses]
