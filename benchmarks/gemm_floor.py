"""The floor: how long the products that a search needs take as bare matrix products of the same shape.

    python -m benchmarks gemm_floor --networks FOLDER --out RESULTS --cases tanh256 tanh512

For each network: the warm time of jaxfp's search; the products with the recurrent weights that it made per candidate,
counted where `points.report` has `n_products` (products of one state with them, forward, tangent and transposed alike);
the time of one such product per candidate, as (lanes, n_hidden) @ (n_hidden, G n_hidden) of --lanes states at once,
float32 at full precision; and products x that time / search time, the efficiency. One process, back to back;
RESULTS/gemm_floor.jsonl has a line for each case; lines that are there are not repeated.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import engine, harness, networks, sides, tables
from jaxfp import io


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the floor.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=sorted(networks.SPECS), metavar="NETWORK", default=["tanh64"])
    parser.add_argument("--side", choices=[name for name in sides.SIDES if name.startswith("jaxfp")], default="jaxfp")
    parser.add_argument("--candidates", type=int, default=networks.N_CANDIDATES, metavar="K")
    parser.add_argument("--lanes", type=int, default=128, help="states in one product (default: %(default)s)")
    parser.add_argument("--budget", type=float, default=30.0)
    parser.add_argument("--networks", type=pathlib.Path, default=pathlib.Path("networks"), metavar="FOLDER")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmark_results"), metavar="RESULTS")
    arguments = parser.parse_args(argv)
    path = arguments.out / "gemm_floor.jsonl"
    rows = tables.read_lines(path) if path.exists() else []
    done = {(row["network"], row["k"], row["side"]) for row in rows}
    for name in arguments.cases:
        if (name, arguments.candidates, arguments.side) not in done:
            rows.append(one_row(name, arguments))
            print(json.dumps(rows[-1]), flush=True)
            engine.write_lines(path, rows)


def one_row(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Search and bare products of one network.

    Args:
      name: of the network.
      arguments: as parsed.

    Returns:
      The line.
    """
    network = networks.load(name, arguments.networks, arguments.candidates)
    run, collect = sides.SIDES[arguments.side](network)
    points, search = harness.measure(run, arguments.budget)
    products = collect(points)["n_products"]
    gemm = product_seconds(network, arguments.lanes)
    products = None if products is None or np.isnan(products) else float(products)
    return {
        "network": name,
        "n_hidden": network.candidates.shape[1],
        "k": arguments.candidates,
        "side": arguments.side,
        "search_s": search["warm_median_s"],
        "search_spread_s": search["warm_spread_s"],
        "n_repeats": search["n_repeats"],
        "products_per_candidate": products,
        "steps_per_candidate": float(collect(points)["n_steps"]),
        "product_s": gemm,
        "gflop_per_s": 2 * _weights(network)[0].size / gemm / 1e9,
        "floor_s": None if products is None else gemm * products * arguments.candidates,
        "efficiency": None if products is None else gemm * products * arguments.candidates / search["warm_median_s"],
        "lanes": arguments.lanes,
        **io.environment(),
    }


def _weights(network: networks.Network) -> list[np.ndarray]:
    """Matrices of one product with the recurrent weights, as they come after the states."""
    params = network.params
    if "m" in params:  # two thin products; the larger of them counts for GFLOP/s
        return [np.asarray(params["n"]), np.asarray(params["m"]).T]
    return [np.asarray(params["w_rec"]).T]


def product_seconds(network: networks.Network, n_lanes: int, n_products: int = 64) -> float:
    """Seconds of one state's product with the recurrent weights, in bare products of many states.

    Args:
      network: whose weights.
      n_lanes: states in one product.
      n_products: products in one call.

    Returns:
      Seconds per state.
    """
    weights = [jnp.asarray(w, jnp.float32) for w in _weights(network)]
    states = jnp.ones((n_products, n_lanes, weights[0].shape[0]), jnp.float32)

    @jax.jit
    def products(states: jax.Array, weights: Any) -> jax.Array:
        def one(total: jax.Array, state: jax.Array) -> tuple[jax.Array, None]:
            for w in weights:
                state = jnp.matmul(state, w, precision=jax.lax.Precision.HIGHEST)
            return total + state, None

        return jax.lax.scan(one, jnp.zeros((n_lanes, weights[-1].shape[1]), jnp.float32), states)[0]

    _, seconds = harness.measure(lambda: jax.block_until_ready(products(states, weights)), budget_s=10.0, n_repeats=9)
    return seconds["warm_median_s"] / (n_lanes * n_products)


if __name__ == "__main__":
    main()
