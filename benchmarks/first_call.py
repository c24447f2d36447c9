"""The first call of a fresh process: from the start of the interpreter to the result, imports included.

    python -m benchmarks first_call --networks FOLDER --out RESULTS --cases tanh64 --fpf CHECKOUT --fpf-python PYTHON

Median of --processes processes, for jaxfp as it is ("cold"), for jaxfp with a persistent compilation cache that an
earlier process filled ("cached"), and for FixedPointFinder-torch; each reads the same npz of weights and candidates.
The search only, until="all". RESULTS/first_call.jsonl has a line for each case; lines that are there are not repeated.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from benchmarks import engine, networks, sides, tables
from jaxfp import io

OURS = """
import sys, time
import numpy as np
import jaxfp
with np.load(sys.argv[1]) as file:
    given = dict(file)
kind = str(given["kind"])
euler = {"alpha": float(given["alpha"]), "form": str(given["form"])} if kind == "euler" else {}
euler = {"alpha": float(given["alpha"])} if kind == "low_rank" else euler
weights = {name: given[name] for name in ("w_rec", "w_in", "b", "b_rec", "m", "n") if name in given}
step_fn, params = jaxfp.from_arrays(kind, weights, **euler)
points = jaxfp.find_fixed_points(step_fn, params, given["candidates"], given.get("inputs"))
print(time.time(), len(points.q))
"""
THEIRS = """
import sys, time
import numpy as np
from benchmarks import torch_side
import torch
torch.set_num_threads(int(sys.argv[3]))
with np.load(sys.argv[1]) as file:
    given = dict(file)
module = torch_side.module_of(given, "cuda" if torch.cuda.is_available() else "cpu")
candidates = given["candidates"].astype(np.float32)
inputs = given.get("inputs", np.zeros((len(candidates), max(given["w_in"].shape[1], 1)))).astype(np.float32)
run, _ = torch_side.fpf(module, candidates, inputs, False, sys.argv[2])
points = run()
print(time.time(), points.n)
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure first calls.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=sorted(networks.SPECS), metavar="NETWORK", default=["tanh16"])
    parser.add_argument("--candidates", type=int, default=networks.N_CANDIDATES, metavar="K")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--networks", type=pathlib.Path, default=pathlib.Path("networks"), metavar="FOLDER")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmark_results"), metavar="RESULTS")
    parser.add_argument("--fpf", default="", metavar="CHECKOUT", help="of FixedPointFinder; without it, no such rows")
    parser.add_argument("--fpf-python", default=sys.executable, metavar="PYTHON", help="an interpreter that has torch")
    arguments = parser.parse_args(argv)
    path = arguments.out / "first_call.jsonl"
    rows = tables.read_lines(path) if path.exists() else []
    done = {(row["network"], row["k"], row["side"]) for row in rows}
    run = engine.new_run()
    for name in arguments.cases:
        for side in ("jaxfp cold", "jaxfp cached", *(["fpf"] if arguments.fpf else [])):
            if (name, arguments.candidates, side) in done:
                continue
            seconds = first_calls(name, side, arguments)
            rows.append(
                {"network": name, "k": arguments.candidates, "side": side, "run": run, "seconds": seconds,
                 "median_s": float(np.median(seconds)), "spread_s": max(seconds) - min(seconds), **io.environment()}
            )  # fmt: skip
            print(
                json.dumps({key: rows[-1][key] for key in ("network", "k", "side", "median_s", "spread_s")}), flush=True
            )
            engine.write_lines(path, rows)


def first_calls(name: str, side: str, arguments: argparse.Namespace) -> list[float]:
    """Seconds of each process.

    Args:
      name: of the network.
      side: "jaxfp cold", "jaxfp cached" or "fpf".
      arguments: as parsed.

    Returns:
      Wall times from the start of the process to the result.

    Raises:
      RuntimeError: if a process fails.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(sides.ROOT), os.environ.get("PYTHONPATH", "")])}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    with tempfile.TemporaryDirectory() as folder:
        network = os.path.join(folder, "network.npz")
        sides.write_network(networks.load(name, arguments.networks, arguments.candidates), network)
        command = [sys.executable, "-c", OURS, network]
        if side == "fpf":
            command = [arguments.fpf_python, "-c", THEIRS, network, arguments.fpf, str(sides.n_cores())]
        if side == "jaxfp cached":
            environment |= {
                "JAX_COMPILATION_CACHE_DIR": os.path.join(folder, "cache"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
        seconds = []
        for _ in range(arguments.processes + (side == "jaxfp cached")):
            began = time.time()
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                raise RuntimeError(f"{side} on {name} failed: {done.stderr[-500:]}")
            seconds.append(float(done.stdout.split()[-2]) - began)
        return seconds[-arguments.processes :]


if __name__ == "__main__":
    main()
