"""One wave of searches: many lanes, each stopping on its own.

A lane is one candidate with its input. `build_search` is the traceable core: fixed shapes, a status per lane, any
transformation around it (an ensemble of networks is a vmap over params). `run_wave` is the host loop around the same
step: a work queue that keeps a fixed number of lanes busy for a few steps at a time, so that the slowest lane does
not keep the others waiting, and one program is compiled whatever the number of candidates.

Lanes take their steps in blocks, one after the other within a call: on a CPU as many as its cache holds, since every
product streams them through it. A block without lanes costs nothing, and one whose lanes are done does not wait for
others. An accelerator, whose blocks fill a piece of its memory, takes a step of a thousand lanes in the time of one of
thirty, and in less than it takes to ask how they are: there nearly all of a stage is one call. Neither these numbers
nor the number of devices changes where a lane ends.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import arguments, compiling, dynamics
from jaxfp.types import CONVERGED, MAX_STEPS, NONFINITE, RUNNING, Array, Kind, Params, Solver, StepFn

_STEPS_A_ROUND = 4
_STEPS_TO_A_CHECK = 3  # of many lanes, some of which another's result may end
_STEPS_A_CALL = 12  # on an accelerator
_FEWEST, _FEWER = 64, 256  # lanes of the two smallest programs of an accelerator
_CACHE, _MEMORY = 2 << 20, 1 << 30  # bytes for the lanes that step together, on a CPU and on an accelerator
_MOST_ON_CPU, _MOST = 128, 4096  # of these: more gain nothing, and fewer are filled up to a power of two
_BLOCKS = 4  # times as many are in flight on a CPU, so that the host is asked less often


class Lanes(NamedTuple):
    """Where each candidate ended.

    Attributes:
      hidden: (n_candidates, n_hidden), the best state of the lane.
      q: (n_candidates,), at `hidden`.
      n_steps: (n_candidates,) iterations taken.
      status: (n_candidates,) CONVERGED, MAX_STEPS or NONFINITE.
    """

    hidden: Any
    q: Any
    n_steps: Any
    status: Any


class _Lane(NamedTuple):
    state: Any
    n_steps: jax.Array
    status: jax.Array


def build_search(step_fn: StepFn, solver: Solver, *, kind: Kind = "map") -> Callable[..., Lanes]:
    """The traceable search: one program for all candidates, composable under jit, vmap and shard_map.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      solver: see `types.Solver`.
      kind: "map" or "flow".

    Returns:
      `search(params, candidates, inputs, *, tolerance, max_steps) -> Lanes` with candidates (n_candidates, n_hidden),
      inputs None, (n_inputs,) or (n_candidates, n_inputs), tolerance a q at which a lane stops early (0: never), and
      max_steps, both dynamic.

    Raises:
      ValueError: if step_fn is no function, solver no Solver, or kind unknown.

    Example:
      >>> from jaxfp.search.solvers.levenberg_marquardt import levenberg_marquardt
      >>> search = build_search(lambda p, h, u: jnp.tanh(p * h), levenberg_marquardt())
      >>> lanes = search(1.5, jnp.array([[0.5], [-2.0]]), None, tolerance=0.0, max_steps=50)
      >>> lanes.hidden.ravel().round(3).tolist()
      [0.859000027179718, -0.859000027179718]
    """
    arguments.check_step(step_fn, hashable=False)
    arguments.check_solver(solver)
    dynamics.check_kind(kind)

    def search(params: Params, candidates: Array, inputs: Array | None, *, tolerance: Any, max_steps: Any) -> Lanes:
        def one(hidden: jax.Array, u: jax.Array | None) -> Lanes:
            lane = _start(step_fn, solver, kind, params, hidden, u)
            lane = _advance(step_fn, solver, kind, params, lane, u, tolerance, max_steps, max_steps)
            return Lanes(lane.state.hidden, lane.state.q, lane.n_steps, lane.status)

        return dynamics.over_points(one, candidates, inputs)

    return search


def lanes_together(numbers: int, itemsize: int, least: int = 16) -> int:
    """How many lanes that step together the budget allows.

    Args:
      numbers: that one lane holds at a time.
      itemsize: bytes of one.
      least: no fewer than this: products of fewer lanes are no matrix products.

    Returns:
      A power of two, so that few programs are compiled; no more than 128 on a CPU, and 4,096 on an accelerator.

    Example:
      >>> lanes_together(1 << 40, 8)
      16
    """
    budget, most = (_MEMORY, _MOST) if _on_accelerator() else (_CACHE, _MOST_ON_CPU)
    return min(max(1 << max((budget // (numbers * itemsize)).bit_length() - 1, 0), least), most)


def lanes_in_flight(numbers: int, itemsize: int) -> int:
    """How many lanes a call of `run_wave`'s program takes: on a CPU they step in blocks and may be more.

    Args:
      numbers: that one lane holds at a time.
      itemsize: bytes of one.

    Returns:
      A power of two, no more than 512 on a CPU, and 4,096 on an accelerator.

    Example:
      >>> lanes_in_flight(1 << 40, 8) // lanes_together(1 << 40, 8)
      4
    """
    return lanes_together(numbers, itemsize) * (1 if _on_accelerator() else _BLOCKS)


def run_wave(
    step_fn: StepFn,
    params: Params,
    candidates: np.ndarray,
    inputs: np.ndarray | None,
    *,
    solver: Solver,
    kind: Kind,
    tolerance: float,
    max_steps: int,
    chunk_size: int,
    block: int = 16,
    sharding: jax.sharding.Sharding | None = None,
    ends: Callable[[np.ndarray, Lanes, np.ndarray], np.ndarray] | None = None,
) -> Lanes:
    """Search from every candidate; the host's work queue around the traceable step.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands, in the width to compute in.
      candidates: (n_candidates, n_hidden), in the dtype to compute in.
      inputs: (n_candidates, n_inputs) or None.
      solver: see `types.Solver`.
      kind: "map" or "flow".
      tolerance: q at which a lane stops early; 0 for the rounding floor.
      max_steps: iterations a lane may take.
      chunk_size: largest number of lanes in flight.
      block: lanes that take their steps together, on a CPU.
      sharding: of the leading axis of the lanes, over devices; None for the default device.
      ends: `(rows, lanes, residuals) -> (n_rows,)`, asked every few steps about the lanes in flight: CONVERGED where it
        is known where a lane leads, MAX_STEPS where it is not worth going on, else what the lane's status is.

    Returns:
      Lanes of NumPy arrays.

    Example:
      >>> from jaxfp.search.solvers.levenberg_marquardt import levenberg_marquardt
      >>> with jax.enable_x64(True):
      ...     lanes = run_wave(
      ...         lambda p, h, u: jnp.tanh(p * h), 1.5, np.ones((1, 1)), None, solver=levenberg_marquardt(),
      ...         kind="map", tolerance=0.0, max_steps=50, chunk_size=128,
      ...     )
      >>> float(lanes.hidden[0, 0].round(6))
      0.85856
    """
    n_candidates = len(candidates)
    out = Lanes(
        np.array(candidates), np.full(n_candidates, np.inf), np.zeros(n_candidates, int), np.zeros(n_candidates, int)
    )
    width, block = _shape(n_candidates, chunk_size, block if sharding is None else chunk_size)
    lanes = _blank(step_fn, solver, kind, params, candidates, inputs, width)
    queue, owner = 0, np.full(width, -1)
    while queue < n_candidates or (owner >= 0).any():
        kept = np.flatnonzero(owner >= 0)
        if queue == n_candidates and len(np.unique(kept // block)) > -(-len(kept) // block):
            source = np.concatenate([kept, np.zeros(width - len(kept), int)])  # the last few into few blocks
            lanes = jax.tree.map(lambda x, s=source: np.asarray(x)[s], lanes)
            owner = np.concatenate([owner[kept], np.full(width - len(kept), -1)])
        fresh = np.flatnonzero(owner < 0)[: n_candidates - queue]
        owner[fresh] = np.arange(queue, queue + len(fresh))
        queue += len(fresh)
        is_fresh = np.isin(np.arange(width), fresh)
        rows = np.maximum(owner, 0)
        u = None if inputs is None else inputs[rows]
        placed = (lanes, candidates[rows], u, is_fresh, owner >= 0)
        if sharding is not None:
            placed = jax.device_put(placed, sharding)
        n_steps = _STEPS_A_ROUND if ends is None or len(kept) + len(fresh) <= block else _STEPS_TO_A_CHECK
        n_steps = _STEPS_A_CALL if _on_accelerator() else n_steps
        lanes, residuals = _round(step_fn, solver, kind, block, params, *placed, tolerance, max_steps, n_steps)
        now = Lanes(*(np.asarray(x) for x in (lanes.state.hidden, lanes.state.q, lanes.n_steps, lanes.status)))
        status = now.status.copy()
        if ends is not None:
            asked = np.flatnonzero(owner >= 0)
            status[asked] = ends(owner[asked], Lanes(*(x[asked] for x in now)), np.asarray(residuals)[asked])
        ended = (status != RUNNING) & (owner >= 0)
        rows = owner[ended]
        out.hidden[rows], out.q[rows], out.n_steps[rows] = now.hidden[ended], now.q[ended], now.n_steps[ended]
        out.status[rows] = status[ended]
        owner[ended] = -1
    return out


def _on_accelerator() -> bool:
    return jax.default_backend() != "cpu"


def _shape(n_candidates: int, chunk_size: int, block: int) -> tuple[int, int]:
    """Lanes of the program, and of a block of it."""
    if _on_accelerator():
        fitting = max(1 << (n_candidates - 1).bit_length(), _FEWER)
        width = min(chunk_size, _FEWEST if n_candidates <= _FEWEST else fitting)
        return width, width
    block = min(block, chunk_size)
    return chunk_size - chunk_size % block, block


def _blank(
    step_fn: StepFn,
    solver: Solver,
    kind: Kind,
    params: Params,
    candidates: np.ndarray,
    inputs: np.ndarray | None,
    width: int,
) -> _Lane:
    """Lanes of zeros."""
    drive = None if inputs is None else jax.ShapeDtypeStruct(inputs.shape[1:], inputs.dtype)
    leaves, tree = jax.tree.flatten((params, jax.ShapeDtypeStruct(candidates.shape[1:], candidates.dtype), drive))
    shapes = tuple((np.shape(x), jnp.result_type(x)) for x in leaves)
    one = _shapes_of_lane(step_fn, solver, kind, tree, shapes)
    return jax.tree.map(lambda x: np.zeros((width, *x.shape), x.dtype), one)


@functools.lru_cache(256)
def _shapes_of_lane(step_fn: StepFn, solver: Solver, kind: Kind, tree: Any, shapes: tuple[Any, ...]) -> _Lane:
    given = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*x) for x in shapes])
    return jax.eval_shape(functools.partial(_start, step_fn, solver, kind), *given)


def _start(
    step_fn: StepFn, solver: Solver, kind: Kind, params: Params, hidden: jax.Array, inputs: jax.Array | None
) -> _Lane:
    state = solver.init(dynamics.residual_fn(step_fn, params, inputs, kind), hidden)
    return _Lane(state, jnp.zeros((), jnp.int32), jnp.full((), RUNNING, jnp.int32))


def _advance(
    step_fn: StepFn,
    solver: Solver,
    kind: Kind,
    params: Params,
    lane: _Lane,
    inputs: jax.Array | None,
    tolerance: Any,
    max_steps: Any,
    n_steps: Any,
) -> _Lane:
    """Up to n_steps iterations of one lane."""
    residual_fn = dynamics.residual_fn(step_fn, params, inputs, kind)

    def judged(state: Any, taken: jax.Array) -> _Lane:
        status = jnp.where(state.done | (state.q <= tolerance), CONVERGED, RUNNING)
        status = jnp.where((status == RUNNING) & (taken >= max_steps), MAX_STEPS, status)
        status = jnp.where(jnp.isfinite(state.q), status, NONFINITE)
        return _Lane(state, taken, status.astype(jnp.int32))

    def step(carry: tuple[_Lane, jax.Array]) -> tuple[_Lane, jax.Array]:
        lane, i = carry
        with jax.default_matmul_precision("highest"):
            state = solver.step(residual_fn, lane.state)
        return judged(state, lane.n_steps + 1), i + 1

    def goes_on(carry: tuple[_Lane, jax.Array]) -> jax.Array:
        return (carry[0].status == RUNNING) & (carry[1] < n_steps)

    first = judged(lane.state, lane.n_steps)
    return jax.lax.while_loop(goes_on, step, (first, jnp.zeros((), jnp.int32)))[0]


@functools.partial(compiling.jit, static_argnums=(0, 1, 2, 3))
def _round(
    step_fn: StepFn,
    solver: Solver,
    kind: Kind,
    block: int,
    params: Params,
    lanes: _Lane,
    candidates: jax.Array,
    inputs: jax.Array | None,
    is_fresh: jax.Array,
    is_used: jax.Array,
    tolerance: jax.Array,
    max_steps: jax.Array,
    n_steps: jax.Array,
) -> tuple[_Lane, jax.Array]:
    """Put fresh candidates into their lanes and take a few steps, block by block; the lanes, and r where they are."""

    def one(
        lane: _Lane, hidden: jax.Array, fresh: jax.Array, used: jax.Array, u: jax.Array | None
    ) -> tuple[_Lane, jax.Array]:
        started = _start(step_fn, solver, kind, params, hidden, u)
        lane = jax.tree.map(lambda a, b: jnp.where(fresh, a, b), started, lane)
        lane = lane._replace(status=jnp.where(used, lane.status, CONVERGED))
        advanced = _advance(step_fn, solver, kind, params, lane, u, tolerance, max_steps, n_steps)
        lane = jax.tree.map(lambda a, b: jnp.where(used, a, b), advanced, lane)
        return lane, dynamics.residual_fn(step_fn, params, u, kind)(lane.state.hidden)

    def of_block(given: tuple[Any, ...]) -> tuple[_Lane, jax.Array]:
        nothing = given[0], jnp.zeros_like(given[1])
        return jax.lax.cond(given[3].any(), lambda: jax.vmap(one)(*given), lambda: nothing)

    given = lanes, candidates, is_fresh, is_used, inputs
    if len(is_used) == block:
        return jax.vmap(one)(*given)
    blocks = jax.tree.map(lambda x: x.reshape(-1, block, *x.shape[1:]), given)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.lax.map(of_block, blocks))
