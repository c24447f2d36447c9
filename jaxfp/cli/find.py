"""`python -m jaxfp find WEIGHTS.npz`: fixed points of a network of the user's own, given by its arrays."""

import argparse
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxfp import dynamics, io
from jaxfp.cli import report
from jaxfp.models import adapters, cells
from jaxfp.search import candidates
from jaxfp.types import Params, StepFn

_LAYOUT = """\
WEIGHTS.npz holds plain arrays, of N units, M inputs and G gates (tanh, relu, euler 1; ugrnn 2; gru 3; lstm 4):
  w_rec  (G*N, N)   recurrent weights; row i are the weights ONTO unit i (PyTorch's weight_hh; the transpose of the
                    kernels of flax and Keras). low_rank has m and n (N, R) instead, W = m n^T / N
  w_in   (G*N, M)   input weights (weight_ih), optional
  b      (G*N,)     biases, optional; a gru also has b_rec (3N,) (PyTorch's bias_hh)
Gates are stacked as in PyTorch: gru reset, update, candidate; lstm input, forget, cell, output.
Arrays of other names are ignored. Arrays stored under other names, or transposed, are taken with
  --array w_rec=rnn.weight --array w_in=rnn.kernel.T
The state of an lstm is (h, c), concatenated.
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
        help="fixed points of your own network",
        description="Find the fixed and slow points of a network given by its weights, at one constant input.",
        epilog=_LAYOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", type=pathlib.Path, metavar="WEIGHTS.npz", help="the arrays; see below")
    parser.add_argument("--cell", required=True, choices=sorted(cells.N_GATES), help="the equation of the network")
    parser.add_argument("--alpha", type=float, help="dt/tau of cells euler and low_rank")
    parser.add_argument("--form", choices=("rate", "current"), help="of euler: h' = (1-a)h + a tanh(Wh+..) (default) "
                        "or x' = (1-a)x + a(W tanh(x)+..)")  # fmt: skip
    parser.add_argument("--array", action="append", default=[], metavar="NAME=KEY[.T]",
                        help="take array NAME from KEY of the file, .T transposed; may be repeated")  # fmt: skip
    parser.add_argument(
        "--inputs", type=float, nargs="+", metavar="U", help="constant input, M numbers (default: zero)"
    )
    parser.add_argument("--candidates", type=pathlib.Path, metavar="FILE", help="npy, or npz with an array "
                        "`candidates`, (n_candidates, n_hidden); default: trajectories from random states")  # fmt: skip
    parser.add_argument("--n-candidates", type=int, default=512, help="how many to draw (default: %(default)s)")
    parser.add_argument(
        "--dt", type=float, default=1.0, help="duration of a step, for timescales (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of candidates and seeded waves (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"), help="folder (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=run)


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
    if arguments.n_candidates < 1 or not arguments.dt > 0:
        raise ValueError(f"--n-candidates and --dt must be positive, got {arguments.n_candidates}, {arguments.dt}.")
    console, seconds = Console(), report.stopwatch()
    stored, provenance = io.load(arguments.weights)
    arrays, ignored = _pick(stored, arguments.cell, arguments.array)
    step_fn, params = adapters.from_arrays(arguments.cell, arrays, alpha=arguments.alpha, form=arguments.form)
    n_units = cells.n_units(params)
    n_hidden = 2 * n_units if arguments.cell == "lstm" else n_units
    inputs = None if arguments.inputs is None else np.asarray(arguments.inputs)
    if inputs is not None and len(inputs) != params["w_in"].shape[1]:
        raise ValueError(f"--inputs must be {params['w_in'].shape[1]} numbers for these weights, got {len(inputs)}.")
    key_candidates, key_waves = jax.random.split(jax.random.key(arguments.seed))
    with report.compile_seconds() as compiling:
        if arguments.candidates is not None:
            starts: Any = _read_candidates(arguments.candidates, n_hidden)
        else:
            starts = _wander(key_candidates, step_fn, params, inputs, n_hidden, arguments.n_candidates)
        if ignored:
            console.print(f"Not used from {arguments.weights.name}: {', '.join(ignored)}.")
        analysis = report.analyze(
            step_fn, params, starts, inputs, dt=arguments.dt, key=key_waves, progress=not arguments.quiet
        )
        report.show(console, analysis)
    took = {"total": seconds(), "compile": compiling()}
    took["run"] = took["total"] - took["compile"]
    contents = {
        "command": "find",
        "arguments": {k: str(v) for k, v in vars(arguments).items() if k != "run"},
        "seconds": took,
        **io.environment(),
        "network": provenance,
        **report.summary(analysis),
    }
    files = report.write(arguments.out, analysis, contents)
    console.print(
        f"{took['total']:.1f} s, of them {took['compile']:.1f} s compiling. Wrote {', '.join(f.name for f in files)}"
    )
    console.print(f"to {arguments.out}", soft_wrap=True)


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


def _read_candidates(path: pathlib.Path, n_hidden: int) -> np.ndarray:
    if path.suffix == ".npy":
        try:
            starts = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"cannot read {path}: it is not an npy of plain numbers ({error}).") from error
    else:
        arrays, _ = io.load(path)
        if "candidates" not in arrays:
            raise ValueError(f"{path} must hold an array `candidates`, it holds {sorted(arrays)}.")
        starts = arrays["candidates"]
    if starts.ndim != 2 or starts.shape[1] != n_hidden:
        raise ValueError(f"candidates must be (n_candidates, n_hidden) with n_hidden = {n_hidden}, got {starts.shape}.")
    return starts


def _wander(key: jax.Array, step_fn: StepFn, params: Params, inputs: Any, n_hidden: int, n_candidates: int) -> Any:
    """States of trajectories at this input, from random states in the network's box: transients and where they end."""
    key_start, key_pick = jax.random.split(key)
    lower, upper = -jnp.ones(n_hidden), jnp.ones(n_hidden)
    if step_fn.bounded:  # type: ignore[attr-defined]
        lower, upper = (jnp.asarray(x, jnp.float32) for x in step_fn.box(params, inputs))  # type: ignore[attr-defined]
    start = lower[None] + (upper - lower)[None] * jax.random.uniform(key_start, (128, n_hidden))
    drive = None if inputs is None else jnp.broadcast_to(jnp.asarray(inputs, jnp.float32), (64, len(inputs)))
    narrow = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    states = jax.jit(dynamics.simulate, static_argnums=0, static_argnames="n_time")(
        step_fn, narrow, start, drive, n_time=None if drive is not None else 64
    )
    states = jnp.concatenate([start[:, None], states], axis=1)
    return candidates.sample_candidates(key_pick, states, n_candidates, 0.1 * float(jnp.std(states)))
