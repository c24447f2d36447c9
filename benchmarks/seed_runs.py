"""Runs that differ in their seed: each its own JSON, none repeated, and those that lack are said to lack."""

import argparse
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    parser.add_argument("--weights", type=pathlib.Path, help="folder that keeps the trained weights: a run that finds "
                        "its own there does not train again")  # fmt: skip


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


Statistics = Mapping[str, Callable[[dict[str, Any]], Any]]


def met(rows: Sequence[dict[str, Any]], statistics: Statistics) -> dict[str, dict[str, int]]:
    """How many of the runs meet each statistic.

    Args:
      rows: of a table.
      statistics: by name, from a row to whether it is met.

    Returns:
      By name, "run": how many rows can tell; "met": how many of these meet it. A row that was not run, or that has not
      the columns, cannot tell; a row that "failed", or holds no number where one belongs, does not meet it.
    """
    counts = {}
    for name, holds in statistics.items():
        verdicts = []
        for row in rows:
            if "not_run" in row:
                continue
            try:
                verdicts.append("failed" not in row and bool(holds(row)))
            except KeyError:  # run before this was measured
                continue
            except TypeError:  # None, which JSON has for NaN
                verdicts.append(False)
        counts[name] = {"run": len(verdicts), "met": sum(verdicts)}
    return counts


def mean_and_sd(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each number over the runs.

    Args:
      rows: of a table.

    Returns:
      By name, "a.b" for b of a: "mean", "sd" (of a sample: n - 1) and "n". What is no number in every run is left out.
    """
    ran = [dict(_numbers(row)) for row in rows if "not_run" not in row and "failed" not in row]
    names = [name for name in (ran[0] if ran else ()) if all(name in row for row in ran) and name != "seed"]
    columns = {name: [row[name] for row in ran] for name in names}
    return {
        name: {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "n": len(values)}
        for name, values in columns.items()
        if len(values) > 1
    }


def _numbers(said: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in something JSON-like, by their names; lists aside."""
    if isinstance(said, dict):
        for key, value in said.items():
            yield from _numbers(value, f"{name}.{key}" if name else key)
    elif isinstance(said, (int, float)) and not isinstance(said, bool):
        yield name, float(said)


def run_all(
    arguments: argparse.Namespace,
    one_run: Callable[..., dict[str, Any]],
    columns: Sequence[str],
    statistics: Statistics,
    cells: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Run what is missing and asked for, then put all seeds into table.json, with how many meet what, means and sd.

    Args:
      arguments: with seeds, run and out.
      one_run: from a seed, or a cell and a seed, to what its JSON says.
      columns: what of it the table shows; "a.b" is b of a.
      statistics: see `met`.
      cells: seeds of each cell, where there are several; else all are arguments.seeds.
    """
    keys: list[dict[str, Any]] = [{"seed": seed} for seed in arguments.seeds or ()]
    if cells is not None:
        keys = [{"cell": cell, "seed": seed} for cell, seeds in cells.items() for seed in seeds]
    rows = []
    for key in keys:
        path = arguments.out / ("_".join(map(str, key.values())) + ".json")
        if not path.exists() and (arguments.run is None or key["seed"] in arguments.run):
            io.save_json(path, {**key, **one_run(*key.values()), **io.environment()})
        said = json.loads(path.read_text()) if path.exists() else {"not_run": True}
        rows.append(key | {name: value for name in ("not_run", *columns) for value in at(said, name)})
        print(json.dumps(rows[-1]), flush=True)
    counts: dict[str, Any] = met(rows, statistics)
    if cells is not None:
        counts = {cell: met([row for row in rows if row["cell"] == cell], statistics) for cell in cells}
    print(json.dumps(counts), flush=True)
    moments: dict[str, Any] = mean_and_sd(rows)
    if cells is not None:
        moments = {cell: mean_and_sd([row for row in rows if row["cell"] == cell]) for cell in cells}
    io.save_json(arguments.out / "table.json", {"rows": rows, "met": counts, "mean_and_sd": moments})


def at(said: Any, name: str) -> list[Any]:
    """What stands under a name, in a list; an empty one if nothing does.

    Args:
      said: JSON-like.
      name: of a member, or of a member of a member: "a.b".

    Returns:
      The value, in a list.
    """
    for part in name.split("."):
        if not isinstance(said, dict) or part not in said:
            return []
        said = said[part]
    return [said]
