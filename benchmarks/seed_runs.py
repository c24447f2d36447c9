"""Runs that differ in their seed: each its own JSON, none repeated, and those that lack are said to lack."""

import argparse
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxfp import io


def add_arguments(parser: argparse.ArgumentParser, out: str, n_seeds: int = 10) -> None:
    """The arguments that all have.

    Args:
      parser: of the script.
      out: folder by default.
      n_seeds: how many make the table.
    """
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(n_seeds)), help="rows of the table")
    parser.add_argument("--run", nargs="*", type=int, help="run these alone, or none (default: all seeds)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(out))
    parser.add_argument("--weights", type=pathlib.Path, help="folder that keeps the trained weights: a run that "
                        "finds its own there does not train again")  # fmt: skip


Trained = tuple[dict[str, np.ndarray], dict[str, Any]]


def kept(folder: pathlib.Path | None, name: str, train: Callable[[], Trained]) -> Trained:
    """Weights that were trained before, or are now.

    Args:
      folder: where they are kept; None to train.
      name: of the run.
      train: makes arrays and their provenance.

    Returns:
      Arrays and provenance.
    """
    if folder is None:
        return train()
    path = folder / f"{name}.npz"
    if not path.exists():
        io.save(path, *train())
    return io.load(path)


def run_all(arguments: argparse.Namespace, one_run: Callable[[int], dict[str, Any]], columns: Sequence[str]) -> None:
    """Run what is missing and asked for, then put all seeds into table.json.

    Args:
      arguments: with seeds, run and out.
      one_run: from a seed to what its JSON says.
      columns: what of it the table shows.
    """
    rows = []
    for seed in arguments.seeds:
        path = arguments.out / f"{seed}.json"
        if not path.exists() and seed in (arguments.seeds if arguments.run is None else arguments.run):
            io.save_json(path, {"seed": seed, **one_run(seed), **io.environment()})
        said = json.loads(path.read_text()) if path.exists() else {"not_run": True}
        rows.append({"seed": seed, **{k: said[k] for k in ("not_run", *columns) if k in said}})
        print(json.dumps(rows[-1]), flush=True)
    io.save_json(arguments.out / "table.json", {"rows": rows})
