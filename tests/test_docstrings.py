"""Every public function says what it takes, with shapes, what it returns, what it raises, and its example runs."""

import doctest
import importlib
import inspect
import io
import pkgutil
import re
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxfp

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example", "Source")
ARRAYS = {
    "candidate_q",
    "candidates",
    "hidden",
    "hidden0",
    "inputs",
    "jacobian",
    "outputs",
    "states",
    "targets",
    "trajectories",
}
# Interval operations are many and alike: what they take and return is said once, by their module.
ONE_LINERS = {"jaxfp.proof.interval"}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(jaxfp.__path__, "jaxfp.")
    if not module.name.endswith("__main__")  # importing it is harmless, but it has nothing public
)


def public_objects(module: types.ModuleType) -> list[tuple[str, Any]]:
    """Functions and classes that the module itself defines, without an underscore."""
    return [
        (name, thing)
        for name, thing in vars(module).items()
        if (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == module.__name__
        and not name.startswith("_")
    ]


def sections(text: str) -> dict[str, str]:
    """Body of each section by its name."""
    parts = re.split(rf"^({'|'.join(SECTIONS)}):", inspect.cleandoc(text), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(body: str) -> dict[str, str]:
    """Text of each entry of Args or Attributes by its name; `a, b: text` are two entries."""
    found: dict[str, str] = {}
    for part in re.split(r"^ {2}(?=\S)", body, flags=re.MULTILINE)[1:]:
        names, _, said = part.partition(":")
        found |= {name.strip().strip("*"): said for name in names.split(",")}
    return found


def missing(name: str, thing: Any) -> list[str]:
    """One sentence for everything the docstring lacks."""
    text = thing.__doc__ or ""
    has = sections(text)
    lacks = [] if text.strip() else ["a docstring"]
    if inspect.isclass(thing):
        written = has.get("Attributes", "")  # `n_fixed: ...; n_slow: ...` is two entries on one line
        fields = getattr(thing, "_fields", ())
        lacks += [f"Attributes: {f}" for f in fields if f not in entries(written) and f" {f}:" not in written]
        return [f"{name} lacks {what}" for what in lacks]
    signature = inspect.signature(thing)
    described = entries(has.get("Args", ""))
    lacks += [f"Args: {given}" for given in signature.parameters if given not in described]
    lacks += [f"Args: {given} as an argument" for given in described if given not in signature.parameters]
    lacks += [
        f"the shape of {given}"
        for given in signature.parameters
        if given in ARRAYS and not re.search(r"\(|as |same shape|[Ss]calar|leading", described.get(given, ""))
    ]
    if signature.return_annotation not in (None, "None") and "Returns" not in has:
        lacks.append("Returns")
    if "Example" not in has or ">>>" not in has.get("Example", ""):
        lacks.append("Example")
    order = [section for section in has if section in SECTIONS]
    if order != sorted(order, key=SECTIONS.index):
        lacks.append(f"the order {SECTIONS}")
    return [f"{name} lacks {what}" for what in lacks]


def examples(module: types.ModuleType) -> list[doctest.DocTest]:
    """The doctests of the module, its public objects and their methods, in the module's own namespace."""
    namespace = {**vars(module), "jax": jax, "jnp": jnp, "np": np}
    found = doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__, module=module, extraglobs=namespace)
    return [test for test in found if test.examples]


def run(test: doctest.DocTest) -> str:
    """What the runner says of its failures; nothing if all is well."""
    said = io.StringIO()
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.write)
    return said.getvalue()


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_are_whole(name):
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip()
    if name in ONE_LINERS:
        assert [n for n, thing in public_objects(module) if not (thing.__doc__ or "").strip()] == []
    else:
        assert [lack for found in public_objects(module) for lack in missing(*found)] == []


@pytest.mark.parametrize("name", sorted({*MODULES} - ONE_LINERS))
def test_examples_run(name, capsys):
    module = importlib.import_module(name)
    tests = examples(module)
    # A wrapper (functools.wraps, jit) hides the function from the finder: count what is public against what ran.
    ran = {test.name.removeprefix(f"{name}.").split(".")[0] for test in tests}
    assert [n for n, thing in public_objects(module) if inspect.isfunction(thing) and n not in ran] == []
    for test in tests:
        assert run(test) == ""
    plt.close("all")  # pyplot warns of many open figures


def test_what_is_missing_is_noticed():
    def whole(hidden, dt):
        """One line.

        Args:
          hidden: (n_hidden,), the state.
          dt: duration.

        Returns:
          (n_hidden,).

        Example:
          >>> 1 + 1
          2
        """

    def altered(old: str, new: str) -> list[str]:
        other = types.FunctionType(whole.__code__, {}, "other")
        other.__doc__ = whole.__doc__.replace(old, new)
        return missing("other", other)

    assert missing("whole", whole) == []
    assert altered("  dt: duration.\n", "") == ["other lacks Args: dt"]
    assert "other lacks Args: gone as an argument" in altered("  dt: d", "  gone: x.\n          dt: d")
    assert altered("(n_hidden,), the state", "the state") == ["other lacks the shape of hidden"]
    assert "other lacks Returns" in altered("Returns:", "Gives:")
    assert altered(">>> 1 + 1", "none") == ["other lacks Example"]
    assert "order" in altered("Returns:", "Source:")[-1]
    undescribed = types.FunctionType(whole.__code__, {}, "other")
    undescribed.__doc__ = None
    assert "other lacks a docstring" in missing("other", undescribed)

    class Result(NamedTuple):
        """A result.

        Attributes:
          hidden: (n_points, n_hidden).
        """

        hidden: Any
        q: Any

    assert missing("Result", Result) == ["Result lacks Attributes: q"]

    parser = doctest.DocTestParser()
    assert run(parser.get_doctest(">>> 1 + 1\n2\n", {}, "right", None, 0)) == ""
    assert "Expected" in run(parser.get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0))
