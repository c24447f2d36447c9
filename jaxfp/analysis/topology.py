"""Which points are connected: unstable manifolds traced from every saddle to where they end.

A saddle with one unstable direction v has an unstable manifold of two branches, which leave along +v and -v. One with m
of them has an m-dimensional one; starts are spread over the unit sphere of the unstable subspace, taken from an ordered
Schur form of the Jacobian, so that complex pairs and defective matrices need nothing special: on a circle at equal
angles (m = 2), else pairs of opposite random directions. All branches and samples of all saddles run as one batch,
until it is sure where they end (`arrivals`).

Where a branch begins. At a distance d along v the linear start is off the manifold by about b d^2, where b is
||1/2 F''[v, v]||, and rounding displaces it by eps s, s = 1 + ||x||. These are equal at

    d = (eps s / b)^(1/2);   and d <= eps^(1/4) a / b, so that the linear motion a d = ||r' v|| d exceeds the quadratic
                             by far near a fold, where a is small; not beyond a hundredth of the way to the next
                             point; but a d >= 100 eps s, so that it moves at all. Steps of a stiff flow are short:
                             a is what it moves in the first of them.

A sample of m > 1 begins at the same distance in every direction. Directions that grow faster leave first, so that the
fractions are those of small random displacements within the unstable subspace, not of solid angles far away.

Generic connections go from a saddle to attractors. From saddle to saddle they need the unstable manifold of one to meet
the stable manifold of the other, a set of measure zero among the samples (two saddles of index 1 are not connected in a
generic system); so the cells of codimension one, which separate the targets of the samples, are not reported.

If the eigenvalue of a map is below -1 (a flip) a trajectory jumps from one branch to the other and back. If one of them
ends in a fixed point, the other does, and in the same.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfp import arguments as given
from jaxfp.analysis import arrivals, validity
from jaxfp.search import candidates as seeding
from jaxfp.types import REACHED, STATUS_NAMES, FixedPoints, Kind, Params, StepFn

_EPS = float(np.finfo(float).eps)


class Connections(NamedTuple):
    """Connections of saddles: one row a branch (index 1), or one for all samples of a saddle that end alike.

    Attributes:
      source: (n_rows,) row of the saddle, ascending.
      target: (n_rows,) row of the point it is connected to; -1: not a point.
      outcome: (n_rows,) REACHED a stable point; AT_SADDLE, at rest at a point that is not; ELSEWHERE, at rest or on a
        cycle of the map where no point is listed; MAX_STEPS, it still moves; NONFINITE.
      direction: (n_rows, n_hidden) unit vector along which it leaves; of samples that of one of them.
      fraction: (n_rows,) share of the starts around this saddle; the rows of a saddle sum to 1.
      n_unstable: (n_rows,) unstable dimensions of the saddle.
      n_starts: (n_rows,) starts around this saddle, 2 where it has one unstable dimension.
      start: (n_rows, n_hidden) where that one begins, near the saddle.
      n_steps: (n_rows,) steps that it took, of integration for a flow.
    """

    source: np.ndarray
    target: np.ndarray
    outcome: np.ndarray
    direction: np.ndarray
    fraction: np.ndarray
    n_unstable: np.ndarray
    n_starts: np.ndarray
    start: np.ndarray
    n_steps: np.ndarray


class MemoryGraph(NamedTuple):
    """Stable points joined by saddles with one unstable dimension, both of whose branches end in stable points.

    Attributes:
      saddle: (n_edges,) row of the saddle.
      first: (n_edges,) row of the stable point with the smaller row.
      second: (n_edges,) row of the other; the same as first where both branches end in one point.
      distance: (n_edges,) Hamming distance of their codes; None without codes.
      n_left_out: saddles with one unstable dimension of which a branch does not end in a stable point.
    """

    saddle: np.ndarray
    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray | None
    n_left_out: int


def connections(
    step_fn: StepFn,
    params: Params,
    points: FixedPoints | tuple[Any, Any],
    modes: Any,
    *,
    kind: Kind | None = None,
    n_samples: int = 64,
    max_steps: int = 100_000,
    key: jax.Array | None = None,
) -> Connections:
    """Trace the unstable manifold of every saddle to the points it is connected to.

    A host function: NumPy in, NumPy out, float64 whatever the caller's x64 setting. Saddles are the points that are
    surely unstable, targets at the same input all points.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      points: result of `find_fixed_points`, of which FIXED isolated points count, or plain
        (hidden (n_points, n_hidden), inputs None, (n_inputs,) or (n_points, n_inputs)).
      modes: `spectrum` of the Jacobians there, with vectors.
      kind: "map" or "flow"; by default what the report of points says, "map" for plain arrays.
      n_samples: starts around each saddle with more than one unstable dimension; even.
      max_steps: of a trajectory; of integration for a flow.
      key: of the samples; jax.random.key(0) by default. Saddles with as many unstable dimensions share their samples,
        so that the order of the points does not matter.

    Returns:
      Connections.

    Raises:
      ValueError: if the shapes do not fit or numbers are out of range.

    Example:
      >>> from jaxfp import spectrum
      >>> x = np.array([[-1.0], [0.0], [1.0]])
      >>> modes = spectrum((1 - 3 * x**2)[:, :, None], kind="flow")
      >>> graph = connections(lambda p, h, u: h - h**3, None, (x, None), modes, kind="flow")
      >>> graph.source.tolist(), sorted(graph.target.tolist()), graph.fraction.tolist()
      ([1, 1], [0, 2], [0.5, 0.5])

    Source: Kuznetsov (2004), Elements of Applied Bifurcation Theory, ch. 6; Sussillo & Barak (2013), Neural Computation
      25:626, figure 3.
    """
    given.check_count("n_samples", n_samples, least=2)
    if n_samples % 2:
        raise ValueError(f"n_samples must be even, got {n_samples}.")
    given.check_count("max_steps", max_steps)
    key = jax.random.key(0) if key is None else key
    seeding.check_key(key)
    land = arrivals.read(step_fn, params, points, modes, kind)
    saddles = map(int, np.flatnonzero(land.unstable))
    ways = {row: _directions(land.jacobian[row], land.kind, n_samples, key) for row in saddles}
    ways = {row: way for row, way in ways.items() if len(way)}
    source = np.repeat(np.array(list(ways), int), [len(way) for way in ways.values()])
    direction = np.concatenate([*ways.values(), np.zeros((0, land.hidden.shape[1]))])
    inputs = None if land.inputs is None else land.inputs[source]
    start = land.hidden[source] + _distances(land, source, direction)[:, None] * direction
    ends = arrivals.run(land, start, inputs, max_steps)

    branches = {row: len(way) == 2 and modes.n_unstable[row] == 1 for row, way in ways.items()}
    rows, fraction = _rows(source, ends, direction, branches)
    counts = np.array([len(ways[row]) for row in source[rows]], int)
    unstable = np.asarray(modes.n_unstable, int)[source[rows]]
    return Connections(
        source[rows], ends.target[rows], ends.outcome[rows], direction[rows], fraction, unstable, counts, start[rows],
        ends.n_steps[rows],
    )  # fmt: skip


def _directions(jacobian: np.ndarray, kind: Kind, n_samples: int, key: jax.Array) -> np.ndarray:
    """(n_starts, n_hidden) unit vectors of the unstable subspace."""
    from scipy.linalg import schur

    for margin in (0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6):

        def leaves(x: Any, y: Any = 0.0, margin: float = margin) -> bool:
            return abs(x + 1j * y) > 1 + margin if kind == "map" else np.real(x) > margin

        try:
            _, basis, m = schur(jacobian, sort=leaves)
            break
        except np.linalg.LinAlgError:  # one at the border went over it as they were sorted
            continue
    else:
        m = 0
    if m == 0:  # whatever the modes given say of it
        return np.zeros((0, len(jacobian)))
    if m == 1:
        return basis[:, :1].T * np.array([[1.0], [-1.0]])
    if m == 2:  # evenly, from a random angle on
        angles = 2 * np.pi * (np.arange(n_samples) + float(jax.random.uniform(key))) / n_samples
        flat = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    else:
        half = np.asarray(jax.random.normal(jax.random.fold_in(key, m), (n_samples // 2, m)), np.float64)
        flat = np.concatenate([half, -half])
    way = flat @ basis[:, :m].T
    return way / np.linalg.norm(way, axis=1, keepdims=True)


def _distances(land: arrivals.Landscape, source: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """(n_starts,) how far from the saddle each start lies."""
    if not len(source):
        return np.zeros(0)
    inputs = None if land.inputs is None else land.inputs[source]
    hidden = land.hidden[source]
    terms = validity.taylor_terms(land.step_fn, land.params, hidden, inputs, direction[:, None], kind=land.kind)
    first, second = terms.first[:, 0], terms.second[:, 0]
    size = 1 + np.linalg.norm(hidden, axis=1)
    bent = np.maximum(second, 1 / size)  # a saddle of an odd system has no second derivative, but a third
    distance = np.minimum((_EPS * size / bent) ** 0.5, _EPS**0.25 * first / bent)
    distance = np.minimum(distance, land.gap[source] / 100)
    moved = first if land.kind == "map" else first * land.first_step
    distance = np.maximum(distance, 100 * _EPS * size / moved)
    # one distance for all directions of a saddle
    return np.array([distance[source == row].min() for row in source])


def _rows(
    source: np.ndarray, ends: arrivals.Ends, direction: np.ndarray, branches: dict[int, bool]
) -> tuple[np.ndarray, np.ndarray]:
    """The start that stands for each row of the result, and the share of those it stands for."""
    rows, fraction = [], []
    for row, single in branches.items():
        own = np.flatnonzero(source == row)
        if single:
            rows += own.tolist()
            fraction += [1 / len(own)] * len(own)
            continue
        kinds = np.stack([ends.target[own], ends.outcome[own]], axis=1)
        for alike in np.unique(kinds, axis=0):
            group = own[(kinds == alike).all(1)]
            middle = direction[group].mean(0)
            rows.append(int(group[np.argmax(direction[group] @ middle)]))
            fraction.append(len(group) / len(own))
    return np.array(rows, int), np.array(fraction, float)


def memory_graph(graph: Connections, codes: Sequence[Any] | np.ndarray | None = None) -> MemoryGraph:
    """Stable points, two by two, that a saddle with one unstable dimension joins.

    Args:
      graph: result of `connections`.
      codes: of every point, n_points strings of one length or (n_points, n_bits): what the caller's readout says there.

    Returns:
      MemoryGraph, in the order of the saddles.

    Raises:
      ValueError: if graph is no result of `connections`, or codes are not of one length or too few.

    Example:
      >>> from jaxfp import spectrum
      >>> x = np.array([[-1.0], [0.0], [1.0]])
      >>> modes = spectrum((1 - 3 * x**2)[:, :, None], kind="flow")
      >>> graph = connections(lambda p, h, u: h - h**3, None, (x, None), modes, kind="flow")
      >>> joined = memory_graph(graph, ["-", "?", "+"])
      >>> joined.first.tolist(), joined.second.tolist(), joined.distance.tolist()
      ([0], [2], [1])
    """
    _check_graph(graph)
    saddles = np.unique(graph.source[graph.n_unstable == 1])
    pairs = [graph.target[(graph.source == row) & (graph.outcome == REACHED)] for row in saddles]
    kept = [i for i, pair in enumerate(pairs) if len(pair) == 2]
    ends = np.sort(np.array([pairs[i] for i in kept], int).reshape(-1, 2), axis=1)
    distance = None
    if codes is not None:
        bits = _bits(codes, int(max(graph.source.max(initial=-1), graph.target.max(initial=-1))) + 1)
        distance = (bits[ends[:, 0]] != bits[ends[:, 1]]).sum(1)
    return MemoryGraph(saddles[kept], ends[:, 0], ends[:, 1], distance, len(saddles) - len(kept))


def to_networkx(graph: Connections, codes: Sequence[Any] | np.ndarray | None = None) -> Any:
    """The graph of connections as a networkx.MultiDiGraph.

    Args:
      graph: result of `connections`.
      codes: of every point, n_points strings of one length or (n_points, n_bits), or None.

    Returns:
      MultiDiGraph: a node a point that is a source or a target, with n_unstable where it is a source and code where
      codes are given; an edge a row that ends in a point, with its row, fraction and outcome.

    Raises:
      ImportError: if networkx is not installed.
      ValueError: if graph is no result of `connections`, or codes are not of one length or too few.

    Example:
      >>> from jaxfp import spectrum
      >>> x = np.array([[-1.0], [0.0], [1.0]])
      >>> modes = spectrum((1 - 3 * x**2)[:, :, None], kind="flow")
      >>> graph = connections(lambda p, h, u: h - h**3, None, (x, None), modes, kind="flow")
      >>> sorted(to_networkx(graph).edges())
      [(1, 0), (1, 2)]
    """
    _check_graph(graph)
    try:
        import networkx
    except ImportError as error:
        raise ImportError("to_networkx needs networkx, which jaxfp does not: python -m pip install networkx") from error
    made = networkx.MultiDiGraph()
    index = {int(row): int(m) for row, m in zip(graph.source, graph.n_unstable, strict=True)}
    nodes = sorted({*index, *map(int, graph.target[graph.target >= 0])})
    bits = None if codes is None else _bits(codes, max(nodes, default=-1) + 1)
    for node in nodes:
        unstable = {"n_unstable": index[node]} if node in index else {}
        code = {} if bits is None else {"code": "".join(map(str, bits[node]))}
        made.add_node(node, **unstable, **code)
    for row in np.flatnonzero(graph.target >= 0):
        made.add_edge(
            int(graph.source[row]), int(graph.target[row]), row=int(row), fraction=float(graph.fraction[row]),
            outcome=STATUS_NAMES[graph.outcome[row]],
        )  # fmt: skip
    return made


def _check_graph(graph: Any) -> None:
    if not isinstance(graph, Connections):
        raise ValueError(f"graph must be the result of connections, got {given.came(graph)}.")


def _bits(codes: Any, n_points: int) -> np.ndarray:
    """(n_points or more, n_bits) characters or numbers."""
    wanted = f"one of each of {n_points} points at least, strings of one length or (n_points, n_bits)"
    try:
        array = np.array([list(code) for code in codes]) if n_points else np.zeros((0, 0), int)
    except (TypeError, ValueError) as error:
        raise ValueError(f"codes must be {wanted}, got {given.came(codes)}.") from error
    if array.ndim != 2 or len(array) < n_points or array.dtype.kind not in "Uiubf":
        raise ValueError(f"codes must be {wanted}, got {given.came(codes)}.")
    return array
