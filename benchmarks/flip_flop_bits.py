"""Flip-flops of 2, 3 and 4 bits, one seed of one recipe each: is there a cube for each number of lines?

    python -m benchmarks flip_flop_bits --out benchmarks/flip_flop_bits

A cube of n dimensions has 3^n faces of all dimensions, one point each if the network is a product of n memories: 2^n
stable ones, and n! / (k! (n - k)!) * 2^(n - k) with k unstable dimensions. Training and search are those of
`flip_flop_seeds`. Each run writes its own JSON; runs that are there already are not repeated.
"""

import argparse
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from benchmarks import flip_flop_seeds
from jaxfp import io

COLUMNS = ("by_index", "cube", "stable_codes", "n_slow", "index_sum", "unseen_mass", "complete", "sign_accuracy",
           "memories_held", "train_s", "search_s")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Train, search and tabulate.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", nargs="+", type=int, default=[2, 3, 4])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-hidden", type=int, help="units (default: that of the packaged network)")
    parser.add_argument("--n-steps", type=int, help="training steps (default: the recipe's)")
    parser.add_argument("--candidates", type=int, default=4096, help="at most")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("flip_flop_bits"))
    arguments = parser.parse_args(argv)
    rows = []
    for n_bits in arguments.bits:
        path = arguments.out / f"{n_bits}.json"
        if not path.exists():
            run = argparse.Namespace(**vars(arguments), n_bits=n_bits, weights=None)
            row = flip_flop_seeds.one_run("tanh", arguments.seed, run)
            begin = {"n_bits": n_bits, "cube": cube(n_bits), "cell": "tanh", "seed": arguments.seed}
            io.save_json(path, {**begin, **row, **io.environment()})
        said = json.loads(path.read_text())
        rows.append({k: said[k] for k in ("n_bits", "cell", "seed", *COLUMNS)})
        print(json.dumps(rows[-1]), flush=True)
    io.save_json(arguments.out / "table.json", {"rows": rows})


def cube(n_bits: int) -> dict[str, Any]:
    """Faces of a cube by their dimension.

    Args:
      n_bits: dimension of the cube.

    Returns:
      Their number by dimension, as the table writes it.
    """
    return {str(k): math.comb(n_bits, k) * 2 ** (n_bits - k) for k in range(n_bits + 1)}


if __name__ == "__main__":
    main()
