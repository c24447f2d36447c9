"""What is saved is what is loaded, whatever else lies at the path is one clear ValueError, and no file is half."""

import json
import os
import pathlib
import zipfile

import numpy as np
import pytest
from systems import affine, scalar_tanh

from jaxfp import io, pipeline
from jaxfp.types import FixedPoints


def weights():
    rng = np.random.default_rng(0)
    return {"w_rec": rng.normal(size=(3, 3)), "b": rng.normal(size=3).astype(np.float32), "n": np.int32(4)}


def assert_same(left, right):
    """Equal values of one type, NaN included, down to the last bit."""
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right, strict=True)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for name in left:
            assert_same(left[name], right[name])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right or (left != left and right != right)


def test_arrays_survive(tmp_path):
    io.save(tmp_path / "new" / "w.npz", weights(), {"seed": 3, "recipe": {"gain": 0.8}, "bad": np.nan})
    arrays, provenance = io.load(tmp_path / "new" / "w.npz")
    assert_same(arrays, {name: np.asarray(value) for name, value in weights().items()})
    assert provenance == {"schema": io.SCHEMA, "seed": 3, "recipe": {"gain": 0.8}, "bad": None}
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["w.npz"]


@pytest.mark.parametrize("with_inputs", [False, True])
def test_points_survive(tmp_path, with_inputs):
    if with_inputs:
        params = {"A": 0.5 * np.eye(2), "B": np.ones((2, 1)), "b": np.zeros(2)}
        inputs = np.array([[0.0], [1.0], [1.0]])
        points = pipeline.find_fixed_points(affine, params, np.ones((3, 2)), inputs, bounded=True)
        assert len(points.hidden) == 2
    else:
        starts = np.array([[-1.0], [0.1], [1.0], [np.nan]])
        points = pipeline.find_fixed_points(scalar_tanh, 1.5, starts, bounded=True)
        assert len(points.hidden) == 3
    io.save_points(tmp_path / "points.npz", points, network="mine")
    assert_same(io.load_points(tmp_path / "points.npz"), points)
    assert io.load(tmp_path / "points.npz")[1]["network"] == "mine"


def test_no_points_survive(tmp_path):
    nowhere = pipeline.find_fixed_points(scalar_tanh, 1.5, np.full((2, 1), np.nan))
    assert nowhere.hidden.shape == (0, 1)
    assert np.isnan(nowhere.report.candidate_speed)
    io.save_points(tmp_path / "none.npz", nowhere)
    assert_same(io.load_points(tmp_path / "none.npz"), nowhere)


def test_nothing_is_pickled(tmp_path):
    io.save(tmp_path / "w.npz", weights(), {"seed": 3})
    with zipfile.ZipFile(tmp_path / "w.npz") as file:
        assert sorted(file.namelist()) == ["b.npy", "n.npy", "provenance.npy", "w_rec.npy"]
        for name in file.namelist():
            with file.open(name) as member:
                np.lib.format.read_array(member, allow_pickle=False)
    with pytest.raises(ValueError, match="plain"):
        io.save(tmp_path / "o.npz", {"w": np.array([None])}, {})
    with pytest.raises(ValueError, match="provenance"):
        io.save(tmp_path / "o.npz", {"provenance": np.ones(2)}, {})
    with pytest.raises(TypeError):
        io.save(tmp_path / "o.npz", {}, {"a function": len})
    assert not (tmp_path / "o.npz").exists()


def npz(tmp_path):
    io.save(tmp_path / "whole.npz", weights(), {"seed": 3})
    return (tmp_path / "whole.npz").read_bytes()


def not_npz(tmp_path):
    """Bytes of files that are no npz of plain arrays, by what they are."""
    whole = npz(tmp_path)
    np.savez(tmp_path / "o.npz", w=np.array([{}], object))
    np.save(tmp_path / "a.npy", np.ones(3))
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as file:
        file.writestr("readme.txt", "no array")
    with zipfile.ZipFile(tmp_path / "h.npz", "w") as file:  # a header that never ends: NumPy's tokenizer gives up
        file.writestr("w.npy", np.lib.format.magic(1, 0) + b"\x10\x00" + b"{'descr': ((((  ")
    damaged = bytearray(whole)
    damaged[len(whole) // 3] ^= 0xFF
    return {
        "empty": b"",
        "text": b"w_rec = 1\n",
        "truncated": whole[: len(whole) // 2],
        "damaged": bytes(damaged),
        "pickled": (tmp_path / "o.npz").read_bytes(),
        "an npy": (tmp_path / "a.npy").read_bytes(),
        "another zip": (tmp_path / "z.npz").read_bytes(),
        "endless header": (tmp_path / "h.npz").read_bytes(),
    }


@pytest.mark.parametrize(
    "kind", ["empty", "text", "truncated", "damaged", "pickled", "an npy", "another zip", "endless header"]
)
@pytest.mark.parametrize("load", [io.load, io.load_points])
def test_what_is_no_npz_is_a_value_error(tmp_path, kind, load):
    (tmp_path / "bad.npz").write_bytes(not_npz(tmp_path)[kind])
    with pytest.raises(ValueError, match=r"^cannot read .*bad\.npz: it is not an npz of plain arrays"):
        load(tmp_path / "bad.npz")


def test_damage_anywhere_is_a_value_error(tmp_path):
    """Cut off or with any bytes altered: the arrays as they were or a ValueError, nothing else."""
    whole, path = npz(tmp_path), tmp_path / "bad.npz"
    rng = np.random.default_rng(0)
    refused = 0
    for case in range(400):
        damaged = bytearray(whole)
        for where in rng.integers(0, len(whole), 2):
            damaged[where] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(0, len(whole))] if case % 4 == 0 else damaged)
        try:
            io.load(path)
        except ValueError:
            refused += 1
    assert refused > 200


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "no.npz", tmp_path):
        with pytest.raises(ValueError, match="there is no such file"):
            io.load(path)


def test_arrays_of_others_load(tmp_path):
    """Anybody's npz, even one that has an array by the name of our provenance."""
    np.savez(tmp_path / "theirs.npz", w=np.eye(2), provenance=np.array("the lab next door"))
    arrays, provenance = io.load(tmp_path / "theirs.npz")
    assert sorted(arrays) == ["provenance", "w"]
    assert provenance == {}
    with pytest.raises(ValueError, match="it holds no fixed points of jaxfp"):
        io.load_points(tmp_path / "theirs.npz")


def test_other_schema_is_refused(tmp_path):
    io.save(tmp_path / "new.npz", weights(), {"schema": io.SCHEMA + 1})
    with pytest.raises(ValueError, match=r"its schema is 2, this version of jaxfp reads 1\.$"):
        io.load(tmp_path / "new.npz")


def test_one_array_from_npy_or_npz(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(2))
    np.savez(tmp_path / "a.npz", states=np.eye(2))
    for name in ("a.npy", "a.npz"):
        np.testing.assert_array_equal(io.load_array(tmp_path / name, "states"), np.eye(2))
    with pytest.raises(ValueError, match=r"must hold an array 'other', it holds \['states'\]"):
        io.load_array(tmp_path / "a.npz", "other")
    np.save(tmp_path / "o.npy", np.array([None]))
    for content in ((tmp_path / "o.npy").read_bytes(), b"", (tmp_path / "a.npy").read_bytes()[:90]):
        (tmp_path / "bad.npy").write_bytes(content)
        with pytest.raises(ValueError, match="it is no npy of plain numbers"):
            io.load_array(tmp_path / "bad.npy", "states")
    with pytest.raises(ValueError, match="there is no such file"):
        io.load_array(tmp_path / "no.npy", "states")


def test_unwritable_places_are_value_errors(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "w.npz", tmp_path / "file" / "deeper" / "w.npz"):
        with pytest.raises(ValueError, match="cannot write"):
            io.save(path, weights(), {})
        with pytest.raises(ValueError, match="cannot write"):
            io.save_json(path, {})
        with pytest.raises(ValueError, match=r"cannot write to .* is no folder"):
            io.check_folder(path.parent)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="cannot write"):
        io.save(tmp_path / "folder", weights(), {})
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]
    io.check_folder(tmp_path / "not" / "yet")
    assert not (tmp_path / "not").exists()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_a_value_error(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ValueError, match="cannot be written to"):
            io.check_folder(tmp_path / "new")
        with pytest.raises(ValueError, match="cannot write"):
            io.save(tmp_path / "w.npz", weights(), {})
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left on device"), MemoryError])
def test_interrupted_write_leaves_the_old_file(tmp_path, interruption):
    io.save_json(tmp_path / "report.json", {"old": 1})

    def write(file):
        file.write(b'{"new": ')
        raise interruption

    expected = ValueError if isinstance(interruption, OSError) else interruption
    with pytest.raises(expected, match="No space left" if expected is ValueError else None):
        io.write_whole(tmp_path / "report.json", write)
    assert json.loads((tmp_path / "report.json").read_text()) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_json_is_strict(tmp_path):
    value = {"a": np.float32(0.5), "b": (np.int64(1), np.True_), "c": np.array([1j, np.nan]), 3: None, "d": -np.inf}
    io.save_json(tmp_path / "r.json", value)
    text = (tmp_path / "r.json").read_text()
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read == {"a": 0.5, "b": [1, True], "c": [[0.0, 1.0], [None, 0.0]], "3": None, "d": None}


@pytest.mark.parametrize(("cell", "n_units", "rows"), [("tanh", 100, 100), ("gru", 64, 192), ("lstm", 32, 128)])
def test_packaged_networks_say_where_they_come_from(cell, n_units, rows):
    arrays, provenance = io.load_packaged(f"flip_flop_{cell}")
    assert provenance["schema"] == io.SCHEMA
    assert provenance["seed"] == 0
    assert (provenance["task"], provenance["cell"], provenance["n_units"]) == ("flip-flop", cell, n_units)
    assert provenance["made_by"] == f"python -m jaxfp flip-flop --train --cell {cell} --n-hidden {n_units} --seed 0"
    assert {"n_bits", "noise", "gain", "learning_rate", "n_steps", "batch_size"} <= set(provenance["recipe"])
    assert {"jax", "jaxfp", "numpy", "optax"} <= set(provenance["versions"])
    assert provenance["device"]
    assert arrays["w_rec"].shape == (rows, n_units)
    assert arrays["w_out"].shape == (3, n_units)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


def test_unknown_packaged_network():
    with pytest.raises(ValueError, match=r"packaged weights are \['flip_flop_force', .*\], got '\.\./io'"):
        io.load_packaged("../io")


def test_environment_is_json():
    said = io.environment()
    assert json.loads(json.dumps(said)) == said
    assert {"jax", "jaxlib", "jaxfp"} <= set(said["versions"])
    assert pathlib.Path.cwd().as_posix() not in json.dumps(said)


def test_fields_of_points_are_known():
    """A new field of FixedPoints needs a thought about how it is stored."""
    assert FixedPoints._fields == ("hidden", "inputs", "q", "speed", "status", "isolated", "n_hits", "report")
