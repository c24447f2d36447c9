"""`python -m jaxfp find WEIGHTS.npz`: fixed points of a network of the user's own, given by its arrays."""

import argparse
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import dynamics, io
from jaxfp.cli import frame, report
from jaxfp.models import adapters, equations
from jaxfp.search import candidates
from jaxfp.types import Params, StepFn

_DESCRIPTION = """\
Find the fixed and slow points of a recurrent network given by its weights, at one constant
input. Prints tables and an audit of completeness, and writes fixed_points.npz, report.json
and figures (png) to the folder --out.
"""
_LAYOUT = """\
what WEIGHTS.npz holds: plain arrays, for N units and M inputs (write it with numpy.savez)
  w_rec  (G*N, N)  recurrent weights; row i holds the weights ONTO unit i
  w_in   (G*N, M)  input weights; optional
  b      (G*N,)    biases; optional. A gru also has b_rec (3*N,)
  G is 1 for tanh, relu, euler; 2 for ugrnn; 3 for gru and gru_reset_before (Keras's with
  reset_after=False); 4 for lstm. Gates are stacked as in PyTorch: gru reset, update,
  candidate; lstm input, forget, cell, output.
  PyTorch's weight_hh is w_rec, weight_ih is w_in, bias_ih + bias_hh is b (for a gru
  bias_ih is b, bias_hh is b_rec). Kernels of flax and Keras are the transpose.
  low_rank has m and n (N, R) in place of w_rec: W = m n^T / N.
  Other arrays are ignored.

the equations, with h the state, u the input and a = --alpha:
  tanh, relu            h' = f(W h + W_in u + b)
  euler --form rate     h' = (1 - a) h + a tanh(W h + W_in u + b)
  euler --form current  x' = (1 - a) x + a (W tanh(x) + W_in u + b)       also low_rank
  gru, lstm, ugrnn      as usual; the state of an lstm is (h, c), concatenated

examples:
  python -m jaxfp find weights.npz --cell gru --out results
  python -m jaxfp find net.npz --cell tanh --inputs 0.5 0 --array w_rec=rnn.weight
  python -m jaxfp find net.npz --cell euler --alpha 0.1 --form current \\
      --array w_rec=W.T      take w_rec from the array W, transposed
"""


def add_parser(commands: Any) -> None:
    """Register the command.

    Args:
      commands: argparse subparsers.

    Example:
      >>> add_parser(argparse.ArgumentParser().add_subparsers())
    """
    parser = commands.add_parser(
        "find",
        help="fixed points of your own network, from its weights in an npz",
        description=_DESCRIPTION,
        epilog=_LAYOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("weights", type=pathlib.Path, metavar="WEIGHTS.npz", help="the arrays; see below")
    add(
        "--cell", required=True, choices=sorted(equations.N_GATES), help="which equation the network follows; see below"
    )
    add("--alpha", type=float, metavar="A", help="dt/tau of an euler or low_rank network")
    add("--form", choices=("rate", "current"), help="of an euler network (default: rate)")
    add("--array", action="append", default=[], metavar="NAME=KEY", help="take array NAME from KEY of the file; KEY.T "
        "transposes it; may be repeated")  # fmt: skip
    add("--inputs", type=float, nargs="+", metavar="U", help="the constant input, M numbers (default: zero)")
    add("--candidates", type=pathlib.Path, metavar="FILE", help="states to search from, (n_candidates, n_hidden): npy, "
        "or npz with an array `candidates` (default: states that the network visits from random ones)")  # fmt: skip
    add("--n-candidates", type=int, default=512, metavar="K", help="how many to draw by default (default: %(default)s)")
    add("--dt", type=float, default=1.0, help="duration of a step, the unit of timescales (default: %(default)s)")
    frame.add_options(
        parser,
        run,
        out="out",
        seed="candidates and search",
        checkpoint="keep there what is finished; a search that was killed goes on from there when the same command is "
        "run again",
    )


def run(arguments: argparse.Namespace) -> None:
    """The command.

    Args:
      arguments: as parsed.

    Raises:
      ValueError: if a file cannot be read or written, or its arrays do not fit.

    Example:
      >>> run(argparse.Namespace(weights="nowhere.npz", n_candidates=1, dt=1.0))
      Traceback (most recent call last):
      ...
      ValueError: cannot read nowhere.npz: there is no such file.
    """
    if arguments.n_candidates < 1 or not 0 < arguments.dt < np.inf:
        raise ValueError(f"--n-candidates and --dt must be positive, got {arguments.n_candidates}, {arguments.dt}.")
    stored, provenance = io.load(arguments.weights)
    arrays, ignored = _pick(stored, arguments.cell, arguments.array)
    step_fn, params = adapters.from_arrays(arguments.cell, arrays, alpha=arguments.alpha, form=arguments.form)
    n_units = equations.n_units(params)
    n_hidden = 2 * n_units if arguments.cell == "lstm" else n_units
    inputs = _inputs(arguments.inputs, params["w_in"].shape[1])
    starts: Any = None if arguments.candidates is None else _read_candidates(arguments.candidates, n_hidden)
    key_candidates, key_waves = jax.random.split(jax.random.key(arguments.seed))
    with frame.running(arguments) as job:
        if ignored:
            job.console.print(f"Not used from {arguments.weights.name}: {', '.join(ignored)}.")
        if starts is None:
            starts = _starts(key_candidates, step_fn, params, inputs, n_hidden, arguments.n_candidates)
        analysis = report.analyze(
            step_fn, params, starts, inputs, dt=arguments.dt, key=key_waves, progress=not arguments.quiet,
            checkpoint=arguments.checkpoint and arguments.checkpoint / "search",
        )  # fmt: skip
        report.show(job.console, analysis)
    contents = {"network": provenance, **report.summary(analysis)}
    figures = report.figures(analysis, _paths(step_fn, params, starts, inputs))
    frame.finish(job, contents, {"fixed_points.npz": analysis.points}, figures)


def _pick(stored: dict[str, Any], cell: str, choices: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The arrays of this cell, by our names, and the names of the rest."""
    names = {"m", "n", "w_in", "b"} if cell == "low_rank" else {"w_rec", "w_in", "b"}
    names |= {"b_rec"} if cell == "gru" else set()
    keys = {name: name for name in names if name in stored}
    for choice in choices:
        name, _, key = choice.partition("=")
        if name not in names or not key:
            raise ValueError(f"--array must be NAME=KEY with NAME one of {sorted(names)}, got {choice!r}.")
        keys[name] = key
    arrays = {}
    for name, key in keys.items():
        base = key if key in stored else key.removesuffix(".T")
        if base not in stored:
            raise ValueError(f"there is no array {base!r} in the file; it holds {sorted(stored)}.")
        arrays[name] = stored[base] if base == key else stored[base].T
    used = {key if key in stored else key.removesuffix(".T") for key in keys.values()}
    if not arrays:
        raise ValueError(
            f"a {cell} network needs arrays {sorted(names)}; the file holds {sorted(stored)} (see --array)."
        )
    return arrays, sorted(set(stored) - used)


def _inputs(numbers: list[float] | None, n_inputs: int) -> np.ndarray | None:
    if numbers is None:
        return None
    if len(numbers) != n_inputs or not np.isfinite(numbers).all():
        raise ValueError(f"--inputs must be {n_inputs} finite numbers for these weights, got {numbers}.")
    return np.asarray(numbers)


def _read_candidates(path: pathlib.Path, n_hidden: int) -> np.ndarray:
    starts = io.load_array(path, "candidates")
    if starts.ndim != 2 or starts.shape[1] != n_hidden or not len(starts):
        raise ValueError(f"candidates must be (n_candidates, n_hidden) with n_hidden = {n_hidden}, got {starts.shape}.")
    if not np.issubdtype(starts.dtype, np.floating):
        raise ValueError(f"candidates must be floating, the search runs in their dtype; got {starts.dtype}.")
    return starts


def _starts(key: jax.Array, step_fn: StepFn, params: Params, inputs: Any, n_hidden: int, n_candidates: int) -> Any:
    """States of trajectories at this input from anywhere in the network's box, blurred."""
    key_wander, key_blur = jax.random.split(key)
    lower, upper = -np.ones(n_hidden, np.float32), np.ones(n_hidden, np.float32)
    if step_fn.bounded:  # type: ignore[attr-defined]
        lower, upper = (np.clip(np.asarray(x, np.float32), -1e3, 1e3) for x in step_fn.box(params, inputs))  # type: ignore[attr-defined]
    narrow, drive = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (params, inputs))
    states = candidates.wander_candidates(key_wander, step_fn, narrow, drive, lower, upper, n_candidates)
    return candidates.sample_candidates(key_blur, states, n_candidates, 0.1 * float(jnp.std(states)))


def _paths(step_fn: StepFn, params: Params, starts: Any, inputs: Any) -> np.ndarray | None:
    """Trajectories for the figure, (n_trials, 64, n_hidden), from the first of the starts; none that runs away."""
    starts = np.asarray(starts, np.float32)
    starts = starts[np.isfinite(starts).all(1)][:32]
    narrow, drive = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (params, inputs))
    drive = None if drive is None else jnp.broadcast_to(drive, (64, len(drive)))
    simulate = jax.jit(dynamics.simulate, static_argnums=0, static_argnames="n_time")
    states = np.asarray(simulate(step_fn, narrow, jnp.asarray(starts), drive, n_time=64 if drive is None else None))
    usual = 10 * np.abs(starts).max(initial=1.0)
    stays = (np.abs(states) <= usual).all((1, 2))  # NaN is not <= anything
    return states[stays].astype(np.float64) if stays.any() else None
