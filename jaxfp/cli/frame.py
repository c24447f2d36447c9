"""What all commands have in common: options, the checks and the clock around a run, and the files at its end."""

import argparse
import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console

from jaxfp import io
from jaxfp.cli import report
from jaxfp.types import FixedPoints


class Job(NamedTuple):
    """A command that runs.

    Attributes:
      arguments: as parsed.
      console: to print to.
      seconds: a function that says how many since the start.
      compiling: a function that says how many of them JAX spent tracing and compiling.
    """

    arguments: argparse.Namespace
    console: Console
    seconds: Callable[[], float]
    compiling: Callable[[], float]


def add_options(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], None],
    *,
    out: str,
    seed: str,
    trains: str | None = None,
    n_hidden: str = "",
    checkpoint: str | None = None,
) -> None:
    """Give a command the options that it shares with others, after those of its own.

    Args:
      parser: of the command.
      run: function of the parsed arguments.
      out: folder of the results by default.
      seed: what is random.
      trains: help of --train; None for a command that does not train, and then has no --n-hidden either.
      n_hidden: number of units by default, in words.
      checkpoint: help of --checkpoint; None for a command without.

    Example:
      >>> parser = argparse.ArgumentParser()
      >>> add_options(parser, print, out="here", seed="all")
      >>> parser.parse_args([]).out.name
      'here'
    """
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("--out", type=pathlib.Path, default=pathlib.Path(out), metavar="FOLDER",
        help="where results go (default: %(default)s)")  # fmt: skip
    if trains is not None:
        add("--train", action="store_true", help=trains)
        add("--n-hidden", type=int, metavar="N", help=f"with --train: number of units (default: {n_hidden})")
    add("--seed", type=_seed, default=0, help=f"random seed of {seed} (default: %(default)s)")
    if checkpoint is not None:
        add("--checkpoint", type=pathlib.Path, metavar="FOLDER", help=checkpoint)
    add("--quiet", action="store_true", help="no progress bars")


def check_size(arguments: argparse.Namespace) -> None:
    """--n-hidden goes with --train.

    Args:
      arguments: with train and n_hidden.

    Raises:
      ValueError: if the one stands without the other, or is no size.

    Example:
      >>> check_size(argparse.Namespace(train=False, n_hidden=3))
      Traceback (most recent call last):
      ...
      ValueError: --n-hidden goes with --train: a packaged network has its size.
    """
    if arguments.n_hidden is not None and not arguments.train:
        raise ValueError("--n-hidden goes with --train: a packaged network has its size.")
    if arguments.n_hidden is not None and arguments.n_hidden < 1:
        raise ValueError(f"--n-hidden must be at least 1, got {arguments.n_hidden}.")


@contextlib.contextmanager
def running(arguments: argparse.Namespace) -> Iterator[Job]:
    """Check the folders, then start the clock; what is compiled inside the block is counted.

    Args:
      arguments: with out, and perhaps checkpoint.

    Returns:
      Job.

    Raises:
      ValueError: if a folder cannot be written to.

    Example:
      >>> with running(argparse.Namespace(out=pathlib.Path("here"))) as job:
      ...     job.seconds() > job.compiling() >= 0
      True
    """
    for folder in filter(None, (arguments.out, getattr(arguments, "checkpoint", None))):
        io.check_folder(folder)
    with report.compile_seconds() as compiling:
        yield Job(arguments, Console(), report.stopwatch(), compiling)


def finish(
    job: Job, contents: dict[str, Any], points: Mapping[str, FixedPoints], figures: Sequence[report.Drawing]
) -> None:
    """Write points, report.json and figures, and say so.

    Args:
      job: see `running`.
      contents: what report.json says beside command, arguments, seconds and environment.
      points: by the name of their npz.
      figures: see `report.Drawing`.

    Raises:
      ValueError: if a file cannot be written.

    Example:
      >>> import tempfile
      >>> with running(argparse.Namespace(out=pathlib.Path(tempfile.mkdtemp()), command="nothing")) as job:
      ...     quiet = job._replace(console=Console(quiet=True))
      >>> finish(quiet, {}, {}, [])
      >>> [file.name for file in job.arguments.out.iterdir()]
      ['report.json']
    """
    arguments, out = job.arguments, job.arguments.out
    took = {"total": job.seconds(), "compile": job.compiling()}
    took["run"] = took["total"] - took["compile"]
    files = [out / name for name in points] + [out / "report.json"]
    for file, found in zip(files, points.values(), strict=False):
        io.save_points(file, found)
    said = {"command": arguments.command, "arguments": {k: str(v) for k, v in vars(arguments).items() if k != "run"}}
    io.save_json(files[-1], {**said, "seconds": took, **io.environment(), **contents})
    files += [report.save_figure(out / figure.name, figure.draw, projection=figure.projection) for figure in figures]
    written = ", ".join(file.name for file in files)
    job.console.print(f"{took['total']:.1f} s, of them {took['compile']:.1f} s compiling. Wrote {written}")
    job.console.print(f"to {out}", soft_wrap=True)


def _seed(text: str) -> int:
    """An integer that a random key can be made of."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 2^32 - 1, got {text!r}")
    return int(text)
