"""The command line: `python -m jaxfp COMMAND`, one for each task, and `find WEIGHTS.npz`."""

import argparse
import sys
from collections.abc import Sequence

from jaxfp.cli import cache


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
      argv: arguments after the program's name; those of the process by default.

    Returns:
      Exit status: 0, or 2 after one line on the standard error where an argument or a file is wrong.

    Example:
      >>> main(["find", "nowhere.npz", "--cell", "tanh"])
      2
    """
    cache.keep_programs()
    from jaxfp.cli import (
        find,
        flip_flop,
        jslds,
        lfads,
        moving_average,
        sentiment,
        sine_generator,
        toys,
    )  # these import JAX, which reads what the line above sets

    parser = argparse.ArgumentParser(
        prog="jaxfp",
        description="Find all fixed and slow points of a recurrent network, say how sure it is, and linearize there.",
        epilog=f"Compiled programs are kept in {cache.folder()}, so that a second run takes half as long; delete them "
        "whenever you like. In the environment, JAX_COMPILATION_CACHE_DIR=FOLDER keeps them elsewhere and "
        "JAX_ENABLE_COMPILATION_CACHE=false keeps none.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (flip_flop, sine_generator, moving_average, jslds, lfads, sentiment, toys, find):
        module.add_parser(commands)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except ValueError as error:
        sys.stderr.write(f"jaxfp: error: {' '.join(str(error).split())}\n")
        return 2
    return 0
