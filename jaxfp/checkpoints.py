"""Searches that survive: what is finished is on disk, and a rerun takes it from there.

A search is a chain of pieces, each a function of those before it: a block of candidates searched, a block of lanes
settled by itself, the verdicts of a wave. A checkpoint is a folder with one npz a piece, written whole or not at all
once the piece is finished, never changed, and read in its place by a rerun. What is read is what was written, to the
last bit, so whatever follows is what would have followed; a piece that was lost or damaged is deleted and computed
again, the others stay good.

`search.json` says which search it is: the program of the step function, params, candidates, inputs and settings, by
their hashes. Another search is refused in words, before anything is computed or written.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import io

Keep = Callable[[str, Callable[[], Any]], Any]

_MANIFEST = "search.json"
_SCHEMA = 1


def keep_nothing(name: str, compute: Callable[[], Any]) -> Any:
    """A search without a checkpoint: every piece is computed.

    Args:
      name: of the piece.
      compute: function of no arguments.

    Returns:
      What it returns.

    Example:
      >>> keep_nothing("verdicts", lambda: 1)
      1
    """
    return compute()


def within(keep: Keep, part: str) -> Keep:
    """The same checkpoint, for one part of a search whose pieces have the names of another's.

    Args:
      keep: of a checkpoint.
      part: what the names of its pieces begin with.

    Returns:
      Keep.

    Example:
      >>> within(lambda name, compute: name, "seeded-0")("verdicts", None)
      'seeded-0-verdicts'
    """
    return lambda name, compute: keep(f"{part}-{name}", compute)


def keep_in(path: str | os.PathLike[str], search: Mapping[str, Any], kinds: tuple[type, ...] = ()) -> Keep:
    """Open a checkpoint, or begin one.

    Args:
      path: its folder, made if it is not there. For one search, and one process at a time.
      search: names to JSON-like values, all that the pieces depend on.
      kinds: NamedTuples that pieces may consist of, beside tuples, lists, arrays, numbers and None.

    Returns:
      `keep(name, compute)`, which returns the piece of this name if it is there, or else what `compute()` returns, once
      it is on disk.

    Raises:
      ValueError: if the folder holds another search or other files, cannot be read, or cannot be written; so does
        `keep`, if a piece is damaged or cannot be written.

    Example:
      >>> import tempfile
      >>> path = os.path.join(tempfile.mkdtemp(), "search")
      >>> keep_in(path, {"seed": 0})("verdicts", lambda: np.arange(3)).tolist()
      [0, 1, 2]
      >>> keep_in(path, {"seed": 0})("verdicts", lambda: 1 / 0).tolist()
      [0, 1, 2]
    """
    folder = pathlib.Path(path)
    text = json.dumps(io.plain(search), sort_keys=True)
    io.check_folder(folder)
    if folder.exists():
        _check(folder, json.loads(text))
        for left in (*folder.glob(".*.npz.*"), *folder.glob(f".{_MANIFEST}.*")):  # of one that was killed as it wrote
            left.unlink(missing_ok=True)
    if not (folder / _MANIFEST).exists():
        io.save_json(folder / _MANIFEST, {"schema": _SCHEMA, "search": search})
    which = hashlib.sha256(text.encode()).hexdigest()
    named = {kind.__name__: kind for kind in kinds}

    def keep(name: str, compute: Callable[[], Any]) -> Any:
        file = folder / f"{name}.npz"
        if file.exists():
            return _read(file, {"search": which, "piece": name}, named)
        value = compute()
        arrays: dict[str, np.ndarray] = {}
        layout = _layout(value, "value", arrays)
        io.save(file, arrays, {"search": which, "piece": name, "layout": layout}, compressed=False)
        return value

    return keep


def hashed(name: str, tree: Any) -> dict[str, str]:
    """What arrays are known by.

    Args:
      name: of the tree.
      tree: pytree of arrays and numbers.

    Returns:
      Names of the leaves to their dtype, shape and hash.

    Example:
      >>> hashed("params", {"w": np.ones(2)})  # doctest: +ELLIPSIS
      {"params['w']": 'float64(2,) ...'}
    """
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        is_key = jnp.issubdtype(getattr(leaf, "dtype", np.float64), jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        found[name + jax.tree_util.keystr(path)] = f"{array.dtype}{array.shape} {digest}"
    return found


def _check(folder: pathlib.Path, search: dict[str, Any]) -> None:
    """Refuse a folder that is not the checkpoint of this search; an empty one may become it."""
    file, others = folder / _MANIFEST, [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    if not others:
        return
    if _MANIFEST not in others:
        raise ValueError(f"checkpoint {folder} must be a folder of its own, it holds {sorted(others)[:3]}.")
    try:
        said = json.loads(file.read_text())
        stored = dict({_SCHEMA: said["search"]}[said["schema"]])
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"cannot read {file}: it is damaged, or of another version of jaxfp.") from error
    differs = [name for name in {**stored, **search} if stored.get(name, "none") != search.get(name, "none")]
    if differs:
        what = "; ".join(f"{n} was {stored.get(n, 'none')}, is {search.get(n, 'none')}" for n in differs[:3])
        raise ValueError(f"checkpoint {folder} holds another search: {what}. Give this one a folder of its own.")


def _read(file: pathlib.Path, expected: dict[str, str], kinds: dict[str, type]) -> Any:
    try:
        arrays, provenance = io.load(file)
        if {name: provenance.get(name) for name in expected} != expected:
            raise ValueError(f"cannot read {file}: it is no piece of this search, or another one.")
        try:
            return _value(provenance["layout"], "value", arrays, kinds)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"cannot read {file}: it is damaged ({error!r}).") from error
    except ValueError as error:
        raise ValueError(f"{error} Delete it and run again: it is computed anew, other pieces stay.") from error


def _layout(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """How a value is put together, as JSON; its arrays go into `arrays`."""
    if value is None:
        return None
    if isinstance(value, tuple | list):
        kind = type(value).__name__  # tuple, list or that of a NamedTuple
        return [kind, *(_layout(part, f"{name}.{i}", arrays) for i, part in enumerate(value))]
    arrays[name] = np.asarray(value)
    if arrays[name].dtype == object:  # text of any length, as NumPy sorts it into rows
        arrays[name] = arrays[name].astype(str)
        return "text"
    return "array" if isinstance(value, np.ndarray) else "number"


def _value(layout: Any, name: str, arrays: dict[str, np.ndarray], kinds: dict[str, type]) -> Any:
    if layout is None:
        return None
    if isinstance(layout, list):
        kind, *parts = layout
        values = [_value(part, f"{name}.{i}", arrays, kinds) for i, part in enumerate(parts)]
        return values if kind == "list" else tuple(values) if kind == "tuple" else kinds[kind](*values)
    array = arrays[name]
    if layout == "number":
        return array.item()
    return array.astype(object) if layout == "text" else array
