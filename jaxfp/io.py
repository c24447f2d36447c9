"""Files: arrays as npz, what is known about them as JSON inside the same file. No pickle, nothing half written.

Every npz of ours holds its arrays by name and one more entry, `provenance`, a JSON object with the schema version. A
file is written beside its destination and then moved there, so that a reader sees the old one or the new one.
"""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata, resources
from typing import IO, Any

import jax
import numpy as np

from jaxfp import archive
from jaxfp.types import FIXED, SLOW, FixedPoints, Report

SCHEMA = 1
_PROVENANCE = "provenance"
_MEMBERS = "members"  # in it: dtype and shape of each array, so that one that was lost or exchanged is missed


def environment() -> dict[str, Any]:
    """Where and with what a result was made.

    Returns:
      Dict of strings: versions of the packages that compute, python, platform, device, UTC date.

    Example:
      >>> sorted(environment())
      ['date', 'device', 'platform', 'python', 'versions']
    """
    packages = ("jaxfp", "jax", "jaxlib", "flax", "optax", "numpy", "scipy")
    return {
        "versions": {name: metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": jax.devices()[0].device_kind,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def save(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Any],
    provenance: Mapping[str, Any],
    *,
    compressed: bool = True,
) -> None:
    """Write arrays and their provenance to one npz, whole or not at all.

    Args:
      path: file to write or replace.
      arrays: printable names to arrays of booleans, numbers or text.
      provenance: JSON-like, where the arrays come from. NaN and infinity become null.
      compressed: False writes faster, for what does not get smaller.

    Raises:
      ValueError: for other arrays or names, the reserved name `provenance` (in the provenance: `members`), or a path
        that cannot be written.

    Example:
      >>> path = os.path.join(tempfile.mkdtemp(), "weights.npz")
      >>> save(path, {"w": np.eye(2)}, {"seed": 0})
      >>> arrays, provenance = load(path)
      >>> arrays["w"].shape, provenance["seed"]
      ((2, 2), 0)
    """
    columns = {name: np.asarray(array) for name, array in arrays.items()}
    for name, column in columns.items():
        archive.check(name, column)
    if _PROVENANCE in columns or _MEMBERS in provenance:
        what = f"arrays must not be called {_PROVENANCE!r}" if _PROVENANCE in columns else f"{_MEMBERS!r} is reserved"
        raise ValueError(f"{what}: that is where jaxfp keeps what it knows about a file.")
    text = json.dumps(plain({"schema": SCHEMA, **provenance, _MEMBERS: _members(columns)}))
    columns[_PROVENANCE] = np.array(text)
    write_whole(path, lambda file: archive.write(file, columns, compressed=compressed))


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read an npz of anybody's; the provenance is empty where it is not ours.

    Args:
      path: file to read.

    Returns:
      Arrays by name, and the provenance.

    Raises:
      ValueError: if there is no such file, it is no npz, it is damaged, it holds pickles, its schema is not that of
        this version, or its arrays are not those that were saved.

    Example:
      >>> load("nowhere.npz")
      Traceback (most recent call last):
      ...
      ValueError: cannot read nowhere.npz: there is no such file.
    """
    arrays = _read(path, archive.read, "it is not an npz of plain arrays")
    provenance = _provenance(arrays)
    if provenance and (type(provenance["schema"]) is not int or provenance["schema"] != SCHEMA):
        other = f"its schema is {provenance['schema']!r}, this version of jaxfp reads {SCHEMA}"
        raise ValueError(f"cannot read {os.fspath(path)}: {other}.")
    members = provenance.pop(_MEMBERS, None)  # None: written before there was such a list
    if members is not None and members != _members(arrays):
        raise ValueError(f"cannot read {os.fspath(path)}: its arrays are not those that it was saved with.")
    return arrays, provenance


def _read(path: str | os.PathLike[str], read: Callable[[IO[bytes]], Any], wrong: str) -> Any:
    if not os.path.isfile(path):
        raise ValueError(f"cannot read {os.fspath(path)}: there is no such file.")
    try:
        file = open(path, "rb")  # noqa: SIM115  # closed below; what cannot be opened is another matter than what is in it
    except OSError as error:
        raise ValueError(f"cannot read {os.fspath(path)}: {error.strerror}.") from error
    with file:
        try:
            return read(file)
        except ValueError as error:
            raise ValueError(f"cannot read {os.fspath(path)}: {wrong} ({error}).") from error


def _begins_with(path: str | os.PathLike[str], magic: bytes) -> bool:
    return bool(_read(path, lambda file: file.read(len(magic)) == magic, "it cannot be read"))


def _members(arrays: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    return {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}


def load_array(path: str | os.PathLike[str], name: str) -> np.ndarray:
    """Read the one array of an npy, or the array of this name of an npz.

    Args:
      path: file to read.
      name: of the array in an npz.

    Returns:
      The array.

    Raises:
      ValueError: as `load`, or if the npz has no such array.

    Example:
      >>> path = os.path.join(tempfile.mkdtemp(), "states.npy")
      >>> np.save(path, np.eye(2))
      >>> load_array(path, "states").shape
      (2, 2)
    """
    if os.path.isfile(path) and not _begins_with(path, b"PK"):
        return _read(path, archive.read_array, "it is no npy of plain numbers")
    arrays, _ = load(path)
    if name not in arrays:
        raise ValueError(f"cannot read {os.fspath(path)}: it must hold an array {name!r}, it holds {sorted(arrays)}.")
    return arrays[name]


def _provenance(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Take our entry out of the arrays; an array of somebody else's that has its name stays."""
    stored = arrays.get(_PROVENANCE)
    if stored is None or stored.ndim or stored.dtype.kind != "U":
        return {}
    try:
        provenance = json.loads(str(stored))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(provenance, dict) or "schema" not in provenance:
        return {}
    del arrays[_PROVENANCE]
    return provenance


def load_packaged(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Weights that come with jaxfp.

    Args:
      name: e.g. "flip_flop_tanh".

    Returns:
      Arrays by name, and the provenance.

    Raises:
      ValueError: if there are no such weights.

    Example:
      >>> load_packaged("flip_flop_tanh")[1]["seed"]
      0
    """
    folder = resources.files("jaxfp") / "weights"
    names = sorted(file.name.removesuffix(".npz") for file in folder.iterdir() if file.name.endswith(".npz"))
    if name not in names:
        raise ValueError(f"packaged weights are {names}, got {name!r}.")
    with resources.as_file(folder / f"{name}.npz") as path:
        return load(path)


def save_points(path: str | os.PathLike[str], points: FixedPoints, **provenance: Any) -> None:
    """Write fixed points and the report of their search.

    Args:
      path: npz to write or replace.
      points: result of `find_fixed_points`.
      **provenance: anything JSON-like to keep with them.

    Raises:
      ValueError: as `save`.

    Example:
      >>> from jaxfp import pipeline
      >>> points = pipeline.find_fixed_points(lambda p, h, u: p * h, 0.5, np.ones((1, 2)))
      >>> path = os.path.join(tempfile.mkdtemp(), "points.npz")
      >>> save_points(path, points, network="a contraction")
      >>> load_points(path).hidden.round(6).tolist()
      [[0.0, 0.0]]
    """
    arrays = {name: value for name, value in points._asdict().items() if isinstance(value, np.ndarray)}
    save(path, arrays, {**environment(), **provenance, "report": points.report._asdict()})


def load_points(path: str | os.PathLike[str]) -> FixedPoints:
    """Read what `save_points` wrote.

    Args:
      path: npz to read.

    Returns:
      FixedPoints, equal to the ones saved.

    Raises:
      ValueError: as `load`, or if the file holds no fixed points.

    Example:
      >>> path = os.path.join(tempfile.mkdtemp(), "other.npz")
      >>> save(path, {"w": np.eye(2)}, {})
      >>> load_points(path)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      ValueError: cannot read ...: it holds no fixed points of jaxfp.
    """
    arrays, provenance = load(path)
    columns = set(FixedPoints._fields) - {"report", "inputs"}
    report = provenance.get("report")
    if not columns <= set(arrays) or not isinstance(report, dict) or set(report) != set(Report._fields):
        raise ValueError(f"cannot read {os.fspath(path)}: it holds no fixed points of jaxfp.")
    try:
        return _points(arrays, report)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"cannot read {os.fspath(path)}: it holds no fixed points of jaxfp ({error}).") from error


def _points(arrays: dict[str, np.ndarray], stored: dict[str, Any]) -> FixedPoints:
    """Points from what a file holds; ValueError or TypeError if it is not of the shapes and kinds that they have."""
    n_points, n_hidden = arrays["hidden"].shape
    of_each: dict[str, Any] = {"q": float, "speed": float, "status": int, "isolated": bool, "n_hits": int}
    wanted: dict[str, tuple[Any, Any]] = {"hidden": (np.dtype(float), (n_points, n_hidden))}
    wanted |= {name: (np.dtype(dtype), (n_points,)) for name, dtype in of_each.items()}
    report = {**stored, "inputs": None if stored["inputs"] is None else np.asarray(stored["inputs"], float)}
    n_inputs = 1
    if report["inputs"] is not None:
        n_inputs, width = report["inputs"].shape
        wanted["inputs"] = (np.dtype(float), (n_points, width))
    if "inputs" in arrays and "inputs" not in wanted:
        raise ValueError("it has inputs, the search that it reports had none")
    for name, (dtype, shape) in wanted.items():
        got = arrays.get(name)
        if got is None or (got.dtype, got.shape) != (dtype, shape):
            what = "none" if got is None else f"{got.dtype}{got.shape}"
            raise ValueError(f"{name} must be {dtype}{shape}, got {what}")
    if not np.isin(arrays["status"], (FIXED, SLOW)).all():
        raise ValueError(f"status must be {FIXED} or {SLOW}, got {np.unique(arrays['status'])}")
    for name, kind in (("unresolved", int), ("n_candidates_per_input", int), ("seeded_waves_met", bool)):
        report[name] = np.asarray(stored[name])
        if (report[name].dtype, report[name].shape) != (np.dtype(kind), (n_inputs,)):
            raise ValueError(f"{name} must be {n_inputs} times {kind.__name__}, got {stored[name]!r}")
    for name in ("candidate_speed", "n_products"):  # JSON has no NaN
        report[name] = np.nan if stored[name] is None else stored[name]
    for name, value in report.items():
        if not isinstance(value, _REPORTED.get(name, object)):
            raise ValueError(f"{name} must be {_REPORTED[name]}, got {value!r}")
    rows: dict[str, Any] = {"inputs": None} | {name: arrays[name] for name in wanted}
    return FixedPoints(**rows, report=Report(**report))


_REPORTED: dict[str, Any] = {
    **dict.fromkeys(("kind", "bounded_by", "until", "precision"), str),
    **dict.fromkeys(("counts", "reasons", "n_steps", "seconds", "near_pairs"), dict),
    **dict.fromkeys(("unresolved", "n_candidates_per_input", "seeded_waves_met"), np.ndarray),
    **dict.fromkeys(("candidate_speed", "precision_floor", "n_products"), float | int),
    "inputs": np.ndarray | None,
    **dict.fromkeys(("n_candidates", "n_unsearched"), int),
    "bounded": bool | None,
    "waves": list,
}


def save_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file, whole or not at all.

    Args:
      path: file to write or replace.
      value: JSON-like; NumPy arrays and scalars become lists and numbers, NaN and infinity become null.

    Raises:
      ValueError: if the path cannot be written.

    Example:
      >>> path = pathlib.Path(tempfile.mkdtemp(), "report.json")
      >>> save_json(path, {"q": np.array([np.nan, 1.0])})
      >>> json.loads(path.read_text())
      {'q': [None, 1.0]}
    """
    text = json.dumps(plain(value), indent=1, allow_nan=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def plain(value: Any) -> Any:
    """Anything JSON-like as plain Python, complex numbers as [real, imaginary], NaN and infinity as None.

    Args:
      value: nested dicts, sequences, NumPy arrays and scalars.

    Returns:
      The same of dicts, lists, strings, numbers, booleans and None.

    Example:
      >>> plain({"a": np.array([1 + 2j])})
      {'a': [[1.0, 2.0]]}
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | jax.Array):
        return plain(np.asarray(value).tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def write_whole(path: str | os.PathLike[str], write: Callable[[IO[bytes]], Any]) -> None:
    """Write beside the destination, then move there: an interrupted write leaves what was there before.

    Args:
      path: file to write or replace; its folder is made if it is not there.
      write: function of the open binary file.

    Raises:
      ValueError: if the path cannot be written.

    Example:
      >>> path = pathlib.Path(tempfile.mkdtemp(), "note.txt")
      >>> write_whole(path, lambda file: file.write(b"whole"))
      >>> path.read_text()
      'whole'
    """
    target = pathlib.Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise ValueError(f"cannot write {target}: {error.strerror}.") from error
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # first the bytes, then the name: also where the power fails
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if isinstance(error, OSError):
            raise ValueError(f"cannot write {target}: {error.strerror}.") from error
        raise


def check_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a folder that cannot be written to, before the work whose results it is for. Nothing is made yet.

    Args:
      path: folder that is there or would be made.

    Raises:
      ValueError: if it cannot be.

    Example:
      >>> check_folder(os.path.join(tempfile.mkdtemp(), "new", "folder"))
    """
    folder = pathlib.Path(path).absolute()
    there = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "is no folder" if not there.is_dir() else "cannot be written to"
        raise ValueError(f"cannot write to {os.fspath(path)}: {there} {what}.")
