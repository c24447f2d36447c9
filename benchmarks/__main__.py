"""The benchmarks: `python -m benchmarks SCRIPT ...`, `python -m benchmarks SCRIPT --help`."""

import argparse
import ast
import importlib
import pathlib
from collections.abc import Sequence


def scripts() -> dict[str, str]:
    """Names of the scripts, each with the first line of its docstring; modules without a main(argv) are none."""
    found = {}
    for path in sorted(pathlib.Path(__file__).parent.glob("[a-z]*.py")):
        tree = ast.parse(path.read_text())
        mains = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
        if mains and mains[0].args.args:
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Hand over to one script.

    Args:
      argv: arguments after the program's name.
    """
    known = scripts()
    width = max(map(len, known))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="scripts:\n" + "\n".join(f"  {name:{width}}  {line}" for name, line in known.items()),
        epilog="python -m benchmarks SCRIPT --help says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("script", choices=known, metavar="SCRIPT")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the script")
    arguments = parser.parse_args(argv)
    importlib.import_module(f"benchmarks.{arguments.script}").main(arguments.arguments)


if __name__ == "__main__":
    main()
