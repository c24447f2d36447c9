"""Who searches: each side is a function of a network, and is measured in a process of its own.

    python -m benchmarks sides --networks FOLDER tanh64 "jaxfp" "adam" --fpf CHECKOUT --fpf-python PYTHON

measures some sides on one network and prints a JSON line for each. A side returns (run, collect): `run()` blocks and is
what is timed; `collect(result)` makes arrays of what it returned: `points` and `point_inputs`, what the side says are
fixed points; `lanes` (n_candidates, n_hidden), where every candidate ended, where the side says so, and with it
`reported` (n_candidates,), which of these it says converged; or, of ours, `hits`, `lane_q` and `counts`.

  jaxfp                    find_fixed_points, until="all". With the name of a solver: that solver
  jaxfp ... complete       until="complete"
  jaxfp ... whole          search, Jacobians, eigenvectors and bounds
  adam                     one Adam on the mean q of all lanes, in the candidates' dtype, FixedPointFinder's settings:
                           rate 1.0, times 0.95 after 3 steps without progress, until every q < 1e-12; 10,000 steps
  optimistix newton, lm    in the candidates' dtype, rtol = atol = 1e-6, at most 200 steps, 128 lanes at once
  scipy hybr               scipy.optimize.root in a loop, exact Jacobian, float64, tol 1e-12
  adam 0.01                the same at rate 0.01, since 1.0 throws the lanes of some networks out of every basin
  fpf, fpf 0.01, fpf whole FixedPointFinder-torch of a checkout, see `benchmarks.torch_side`
  canns, brainpy           of the package index: their Adam, 10,000 steps, q (brainpy: the mean loss) to 1e-12
  neuralrnn                of the package index, see `benchmarks.torch_side`
"""

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize

import jaxfp
from benchmarks import harness, networks
from jaxfp import io
from jaxfp.types import FIXED, SLOW

ROOT = pathlib.Path(__file__).parent.parent
Side = Callable[[networks.Network], tuple[Callable[[], Any], Callable[[Any], dict[str, Any]]]]


class Options(NamedTuple):
    """How sides are measured.

    Attributes:
      folder: of the networks.
      n_candidates: K.
      dtype: of the candidates.
      fpf: checkout of FixedPointFinder, "" for none.
      fpf_python: interpreter that has torch, and neuralrnn.
      peer_python: interpreter that has canns, brainpy and all that jaxfp needs.
      budget_s, n_repeats: see `harness.measure`.
      timeout_s: a side that takes longer is ended.
    """

    folder: str
    n_candidates: int = networks.N_CANDIDATES
    dtype: str = "float32"
    fpf: str = ""
    fpf_python: str = sys.executable
    peer_python: str = sys.executable
    budget_s: float = 30.0
    n_repeats: int = 5
    timeout_s: float = 1800.0


def ours(network: networks.Network, solver: Any = None, until: Any = "all", whole: bool = False) -> Any:
    """`jaxfp.find_fixed_points`; with `whole` also linearize and spectrum."""

    def run() -> Any:
        points = jaxfp.find_fixed_points(
            network.step_fn, network.params, network.candidates, network.inputs, solver=solver and solver(), until=until
        )
        if whole:
            linear = jaxfp.linearize(network.step_fn, network.params, points.hidden, points.inputs)
            jaxfp.spectrum(linear.jacobian)
        return points

    def collect(points: Any) -> dict[str, Any]:
        fixed = points.status == FIXED
        counts = points.report.counts
        return {
            "points": points.hidden[fixed],
            "point_inputs": None if points.inputs is None else points.inputs[fixed],
            "hits": points.n_hits[fixed],
            "lane_q": np.repeat(points.q, points.n_hits),
            "counts": np.array([counts["FIXED"], counts["SLOW"]]),
            "n_searched": np.array(points.report.n_candidates),
            "n_slow": np.array((points.status == SLOW).sum()),
            "n_steps": np.array(points.report.n_steps["median"]),
            "n_products": np.array(points.report.n_products),
        }

    return run, collect


def _residual_of(network: networks.Network, dtype: Any) -> tuple[Callable[[Any, Any], Any], jax.Array, Any]:
    """Residual of one state at one input, in `dtype` throughout, with candidates and inputs."""
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), network.params)
    inputs = None if network.inputs is None else jnp.asarray(network.inputs, dtype)

    def residual(hidden: Any, drive: Any) -> Any:
        return network.step_fn(params, hidden, drive) - hidden

    return residual, jnp.asarray(network.candidates, dtype), inputs


def _in_own_dtype(build: Callable[..., Any]) -> Side:
    """A side written in JAX: computes in the dtype of the candidates, products at full precision."""

    def side(network: networks.Network) -> Any:
        wide = network.candidates.dtype == np.float64

        def scoped(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                with jax.enable_x64(wide), jax.default_matmul_precision("highest"):
                    return function(*args)

            return call

        run, collect = scoped(build)(network, *scoped(_residual_of)(network, network.candidates.dtype))
        return scoped(run), collect

    return side


def adam(network: networks.Network, residual: Any, candidates: jax.Array, inputs: Any, rate: float = 1.0) -> Any:
    """The classic way: one first-order optimizer for all lanes."""
    optimizer = optax.chain(optax.adam(rate), optax.contrib.reduce_on_plateau(0.95, patience=3, rtol=1e-4))

    def q_of(hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        q = 0.5 * jnp.sum(jax.vmap(residual)(hidden, inputs) ** 2, axis=1)
        return q.mean(), q

    @jax.jit
    def minimize(hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        def go_on(carry: Any) -> jax.Array:
            _, _, q, change, n_steps = carry
            return (n_steps < 10_000) & ~jnp.all((q < 1e-12) | (change < 1e-20))

        def step(carry: Any) -> Any:
            hidden, state, before, _, n_steps = carry
            (mean, q), gradient = jax.value_and_grad(q_of, has_aux=True)(hidden)
            updates, state = optimizer.update(gradient, state, hidden, value=mean)
            return optax.apply_updates(hidden, updates), state, q, jnp.abs(q - before), n_steps + 1

        far = jnp.full(len(hidden), jnp.inf, hidden.dtype)
        hidden, *_, n_steps = jax.lax.while_loop(go_on, step, (hidden, optimizer.init(hidden), far, far, 0))
        return hidden, n_steps

    return (
        lambda: jax.block_until_ready(minimize(candidates)),
        lambda result: {"lanes": np.asarray(result[0]), "n_steps": np.asarray(result[1])},
    )


def _optimistix(solver_name: str) -> Side:
    @_in_own_dtype
    def side(network: networks.Network, residual: Any, candidates: jax.Array, inputs: Any) -> Any:
        import optimistix

        solver = getattr(optimistix, solver_name)(rtol=1e-6, atol=1e-6)
        find = optimistix.root_find if solver_name == "Newton" else optimistix.least_squares

        def one(lane: tuple[Any, Any]) -> tuple[Any, Any]:
            solution = find(residual, solver, lane[0], lane[1], max_steps=200, throw=False)
            return solution.value, solution.result == optimistix.RESULTS.successful

        search = jax.jit(lambda lanes: jax.lax.map(one, lanes, batch_size=128))
        return (
            lambda: jax.block_until_ready(search((candidates, inputs))),
            lambda result: {"lanes": np.asarray(result[0]), "reported": np.asarray(result[1])},
        )

    return side


def scipy_hybr(network: networks.Network) -> Any:
    """MINPACK's Powell hybrid, a candidate at a time."""
    with jax.enable_x64(True):
        residual, candidates, inputs = _residual_of(network, np.float64)
        value, jacobian = jax.jit(residual), jax.jit(jax.jacfwd(residual))

    def run() -> Any:
        with jax.enable_x64(True):
            return [
                scipy.optimize.root(
                    lambda h, u=u: np.asarray(value(h, u)),
                    start,
                    jac=lambda h, u=u: np.asarray(jacobian(h, u)),
                    tol=1e-12,
                )
                for start, u in zip(
                    np.asarray(candidates), [None] * len(candidates) if inputs is None else inputs, strict=True
                )
            ]

    return run, lambda solutions: {
        "lanes": np.stack([s.x for s in solutions]), "reported": np.array([s.success for s in solutions]),
    }  # fmt: skip


def canns(network: networks.Network) -> Any:
    """canns.analyzer's FixedPointFinder, its search."""
    from canns.analyzer.slow_points.finder import FixedPointFinder

    n_inputs = network.params["w_in"].shape[1]
    inputs = np.zeros((len(network.candidates), n_inputs)) if network.inputs is None else network.inputs

    def model(drive: Any, hidden: Any) -> Any:
        new = jax.vmap(network.step_fn, (None, 0, 0))(network.params, hidden, drive[:, 0])
        return new[:, None], new

    finder = FixedPointFinder(model, max_iters=10_000, verbose=False, dtype=str(network.candidates.dtype))
    return (
        lambda: finder._run_joint_optimization(network.candidates, inputs, None),
        lambda lanes: {"lanes": lanes.xstar, "reported": lanes.qstar < finder.final_q_threshold},
    )


def brainpy(network: networks.Network) -> Any:
    """brainpy.analysis.SlowPointFinder, gradient descent."""
    import brainpy as bp
    import brainpy.math as bm

    if network.inputs is not None:
        raise NotImplementedError("brainpy searches at one input at a time")

    def run() -> Any:
        finder = bp.analysis.SlowPointFinder(
            lambda hidden: network.step_fn(network.params, bm.as_jax(hidden), None), "discrete", verbose=False
        )
        finder.find_fps_with_gd_method(bm.asarray(network.candidates), tolerance=1e-12, num_opt=10_000)
        return finder.fixed_points, finder.losses

    return run, lambda result: {"lanes": np.asarray(result[0]), "reported": np.asarray(result[1]) < 1e-8}


SOLVERS: dict[str, Any] = {"": None, "levenberg_marquardt": jaxfp.levenberg_marquardt, "gradient": jaxfp.gradient}
MODES: dict[str, dict[str, Any]] = {"": {}, "complete": {"until": "complete"}, "whole": {"whole": True}}
SIDES: dict[str, Side] = {
    **{
        " ".join(filter(None, ("jaxfp", solver, mode))): functools.partial(ours, solver=make, **keywords)
        for solver, make in SOLVERS.items()
        for mode, keywords in MODES.items()
    },
    "adam": _in_own_dtype(adam),
    "adam 0.01": _in_own_dtype(functools.partial(adam, rate=0.01)),
    "optimistix newton": _optimistix("Newton"),
    "optimistix lm": _optimistix("LevenbergMarquardt"),
    "scipy hybr": scipy_hybr,
    "canns": canns,
    "brainpy": brainpy,
}
TORCH_SIDES = ("fpf", "fpf 0.01", "fpf whole", "neuralrnn")
NAMES = (*SIDES, *TORCH_SIDES)


def measure(name: str, side: str, options: Options) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Measure one side on one network, in a process of its own.

    Args:
      name: of the network; it must be in the folder, or small.
      side: one of `NAMES`.
      options: how.

    Returns:
      Numbers (see `harness.measure`), or {"missing": why there are none}; and the arrays of `collect`.
    """
    if side.startswith("fpf") and not options.fpf:
        return {"missing": "no checkout of FixedPointFinder given (--fpf)"}, {}
    if side in TORCH_SIDES and options.dtype != "float32":
        return {"missing": "measured in float32 only"}, {}
    with tempfile.TemporaryDirectory() as folder:
        result = os.path.join(folder, "result.npz")
        if side in TORCH_SIDES:
            path = os.path.join(folder, "network.npz")
            write_network(networks.load(name, pathlib.Path(options.folder), options.n_candidates), path)
            command = [options.fpf_python, "-m", "benchmarks.torch_side", side, path, result, "--fpf", options.fpf]
            command += ["--threads", str(n_cores()), "--budget", str(options.budget_s)]
            command += ["--repeats", str(options.n_repeats)]
        else:
            python = options.peer_python if side in ("canns", "brainpy") else sys.executable
            command = [python, "-m", "benchmarks.sides", name, side, "--networks", options.folder, "--child", result]
            command += ["--candidates", str(options.n_candidates), "--dtype", options.dtype]
            command += ["--budget", str(options.budget_s), "--repeats", str(options.n_repeats)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=options.timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return {"missing": f"took more than {options.timeout_s:.0f} s"}, {}
        if done.returncode:
            return {"missing": f"failed: {done.stderr.strip().splitlines()[-1:]}"}, {}
        numbers = json.loads(done.stdout.strip().splitlines()[-1])
        if "missing" in numbers:
            return numbers, {}
        with np.load(result) as file:
            return numbers, dict(file)


def n_cores() -> int:
    """Cores that this process may use: JAX's threads, and what FixedPointFinder is given."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_network(network: networks.Network, path: str) -> None:
    step_fn: Any = network.step_fn
    arrays = {name: np.asarray(array, np.float32) for name, array in network.params.items()}
    extra = {"kind": step_fn.kind, "alpha": step_fn.alpha, "form": step_fn.form}
    harness.save(path, {**arrays, **extra, "candidates": network.candidates, "inputs": network.inputs})


def _device_peak() -> float | None:
    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in stats else None


def _child(name: str, side: str, options: Options, result: str) -> dict[str, Any]:
    """Measure in this process."""
    dtype = np.dtype(options.dtype)
    network = networks.load(name, pathlib.Path(options.folder), options.n_candidates, dtype)
    jax.block_until_ready(jnp.zeros(1))  # the device is there before the clock starts
    try:
        run, collect = SIDES[side](network)
    except ImportError as error:
        return {"missing": f"not installed: {error}"}
    except NotImplementedError as error:
        return {"missing": str(error)}
    got, numbers = harness.measure(run, options.budget_s, options.n_repeats, _device_peak)
    harness.save(result, collect(got))
    packages = {
        "optimistix": ("optimistix", "equinox"),
        "scipy": ("scipy",),
        "canns": ("canns",),
        "brainpy": ("brainpy",),
    }
    where = io.environment()
    versions = {p: metadata.version(p) for p in packages.get(side.split()[0], ())} | where.pop("versions")
    return {**numbers, "threads": n_cores(), "versions": versions, **where}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Arguments that all scripts that measure sides share.

    Args:
      parser: to add to.
    """
    parser.add_argument("--networks", type=pathlib.Path, default=pathlib.Path("networks"), metavar="FOLDER")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of the candidates")
    parser.add_argument("--fpf", default="", metavar="CHECKOUT", help="of FixedPointFinder; without it, no such rows")
    parser.add_argument("--fpf-python", default=sys.executable, metavar="PYTHON", help="one that has torch, neuralrnn")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PYTHON", help="one that has canns, brainpy")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of warm calls (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="warm calls (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds a side may take (default: %(default)s)")


def options_of(arguments: argparse.Namespace, n_candidates: int = networks.N_CANDIDATES) -> Options:
    """Options as parsed.

    Args:
      arguments: of a parser that `add_options` has seen.
      n_candidates: K.

    Returns:
      Options.
    """
    a = arguments
    return Options(
        str(a.networks), n_candidates, a.dtype, a.fpf, a.fpf_python, a.peer_python, a.budget, a.repeats, a.timeout
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure sides on one network.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=sorted(networks.SPECS), metavar="NETWORK")
    parser.add_argument("sides", nargs="+", choices=NAMES, metavar="SIDE", help=", ".join(NAMES))
    parser.add_argument("--candidates", type=int, default=networks.N_CANDIDATES, metavar="K")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    add_options(parser)
    arguments = parser.parse_args(argv)
    options = options_of(arguments, arguments.candidates)
    if arguments.child:
        print(json.dumps(_child(arguments.network, arguments.sides[0], options, arguments.child)))
        return
    for side in arguments.sides:
        numbers, _ = measure(arguments.network, side, options)
        print(
            json.dumps({"network": arguments.network, "side": side, "k": options.n_candidates, **numbers}), flush=True
        )


if __name__ == "__main__":
    main()
