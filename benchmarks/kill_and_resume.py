"""Kill -9 at random moments of a search with a checkpoint: does every rerun end in the bits of one that was left alone?

    python -m benchmarks kill_and_resume --out benchmarks/kill_and_resume

The packaged tanh memory (100 units) is searched from 49,152 candidates: in every other trial all of them, in blocks
(until="all"), else as many as it takes and by seeded waves (until="complete"). Each trial begins the search in a
process of its own, kills it with SIGKILL after a random part of the time that a whole search takes, and runs the same
search again in another process. A search that was over before its moment was not killed and is no trial (n_over_before
counts them): another moment is drawn. kill_and_resume.json says of each trial when it was killed, how much was finished
by then, and whether the points, their hits and the report (but its seconds) are the same bits.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import jaxfp
from jaxfp import io
from jaxfp.cli import flip_flop

UNTIL = ("all", "complete")


def main(argv: Sequence[str] | None = None) -> None:
    """Kill and resume.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=49152)
    parser.add_argument("--seed", type=int, default=0, help="of the candidates and of the moments")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("kill_and_resume"))
    parser.add_argument("--search", nargs=3, metavar=("UNTIL", "FOLDER", "FILE"), help="one search: what a trial runs")
    arguments = parser.parse_args(argv)
    if arguments.search:
        search(arguments.candidates, arguments.seed, *arguments.search)
        return
    moments = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        whole_s, n_pieces = {}, {}
        for until in UNTIL:
            run(work, until, f"warm {until}", arguments)  # compiles
            whole_s[until] = run(work, until, f"whole {until}", arguments)
            n_pieces[until] = len(list((work / f"whole {until}").glob("*.npz")))
        rows: list[dict[str, Any]] = []
        n_over_before = 0
        while len(rows) < arguments.trials:
            until = UNTIL[len(rows) % 2]
            after_s = moments.uniform(0, whole_s[until])
            name = f"trial {len(rows) + n_over_before}"
            if not killed(work, until, name, arguments, after_s):
                n_over_before += 1
                continue
            row: dict[str, Any] = {"until": until, "kill_after_s": after_s}
            row["n_temporary"] = len(list((work / name).glob(".*")))
            row["n_pieces_at_kill"] = len(list((work / name).glob("*.npz")))
            row["resumed_s"] = run(work, until, name, arguments)
            row["identical"] = same_bits(work / f"points.whole {until}.npz", work / f"points.{name}.npz")
            rows.append(row)
            print(json.dumps(row), flush=True)
        n_points = {until: len(io.load_points(work / f"points.whole {until}.npz").hidden) for until in UNTIL}
    said = {
        "n_candidates": arguments.candidates,
        "seed": arguments.seed,
        "n_points": n_points,
        "n_pieces": n_pieces,
        "search_s": whole_s,
        "n_trials": len(rows),
        "n_over_before": n_over_before,
        "n_identical": sum(row["identical"] for row in rows),
        "trials": rows,
        **io.environment(),
    }
    io.save_json(arguments.out / "kill_and_resume.json", said)


def search(n_candidates: int, seed: int, until: Any, folder: str, file: str) -> None:
    """One search, in this process.

    Args:
      n_candidates: how many.
      seed: of the candidates.
      until: see `find_fixed_points`.
      folder: the checkpoint.
      file: npz for the points.
    """
    network = flip_flop.as_network("tanh", io.load_packaged("flip_flop_tanh")[0])
    pulses = jax.random.randint(jax.random.key(seed), (64, 50, 3), -1, 2) * 1.0
    states = jaxfp.simulate(network.step_fn, network.params, jax.numpy.zeros(100), pulses)
    candidates = np.asarray(jaxfp.sample_candidates(jax.random.key(seed + 1), states, n_candidates, 0.5))
    print("begins", flush=True)
    points = jaxfp.find_fixed_points(
        network.step_fn, network.params, candidates, until=until, checkpoint=folder, key=jax.random.key(seed)
    )
    print("ends", flush=True)
    io.save_points(file, points)


def begin(work: pathlib.Path, until: str, name: str, arguments: argparse.Namespace) -> subprocess.Popen[str]:
    """A process that is about to search."""
    command = [sys.executable, "-m", "benchmarks", "kill_and_resume", "--candidates", str(arguments.candidates)]
    command += ["--seed", str(arguments.seed), "--search", until, str(work / name), str(work / f"points.{name}.npz")]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(work / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "begins\n":
        assert line, "the search did not begin"
    return process


def run(work: pathlib.Path, until: str, name: str, arguments: argparse.Namespace) -> float:
    """A whole search, or the rest of one; its seconds."""
    process = begin(work, until, name, arguments)
    began = time.perf_counter()
    assert process.stdout is not None
    said = process.stdout.readline()
    seconds = time.perf_counter() - began
    assert said == "ends\n", "the search did not end"
    assert process.wait() == 0
    return seconds


def killed(work: pathlib.Path, until: str, name: str, arguments: argparse.Namespace, after_s: float) -> bool:
    """A search that is killed; False where it was over by then."""
    process = begin(work, until, name, arguments)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    said = process.communicate()[0]
    return process.returncode == -signal.SIGKILL and said == ""


def same_bits(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Are two searches the same, but for the seconds that they took?"""
    a, b = io.load_points(one), io.load_points(other)
    columns = all(
        (x is None and y is None) or (x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes())
        for x, y in zip(a[:-1], b[:-1], strict=True)
    )
    reports = [json.dumps(io.plain(points.report._replace(seconds={})._asdict())) for points in (a, b)]
    return columns and reports[0] == reports[1]


if __name__ == "__main__":
    main()
