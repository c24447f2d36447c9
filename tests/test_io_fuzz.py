"""Files that were damaged, altered or made to deceive: the right arrays, or one ValueError that says what is wrong."""

import contextlib
import io as streams
import itertools
import json
import zipfile

import numpy as np
import pytest
import systems

from jaxfp import io, pipeline

N_CASES = 1500  # of random damage
ARRAYS = {
    "w_rec": np.random.default_rng(0).normal(size=(5, 5)),
    "b": np.arange(5, dtype=np.float32),
    "file": np.array(["a", "text"]),
    "w.npy": np.array(True),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The bytes of one npz, stored and compressed."""
    folder = tmp_path_factory.mktemp("saved")
    for compressed in (False, True):
        io.save(folder / f"{compressed}.npz", ARRAYS, {"seed": 3}, compressed=compressed)
    return {compressed: (folder / f"{compressed}.npz").read_bytes() for compressed in (False, True)}


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """Points at two inputs, and the arrays and the provenance that their file holds."""
    params = {"A": 0.5 * np.eye(2), "B": np.ones((2, 1)), "b": np.zeros(2)}
    found = pipeline.find_fixed_points(
        systems.affine, params, np.ones((3, 2)), np.array([[0.0], [1.0], [1.0]]), bounded=True, chunk_size=16
    )
    path = tmp_path_factory.mktemp("points") / "points.npz"
    io.save_points(path, found)
    return found, *io.load(path)


def outcome(path, load=io.load):
    """What came of reading: the result, or None after a ValueError that names the file."""
    try:
        return load(path)
    except ValueError as error:
        said = str(error)
    assert said.startswith(f"cannot read {path}: ")
    return None


def assert_right(arrays):
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name], strict=True)


@pytest.mark.parametrize("compressed", [False, True])
def test_random_damage(tmp_path, saved, compressed):
    """Bits flipped, bytes set, cut out, doubled, cut off: right or refused, 3,000 times together."""
    rng, whole, path = np.random.default_rng(0), saved[compressed], tmp_path / "bad.npz"
    refused = 0
    for case in range(N_CASES):
        damaged = bytearray(whole)
        where = int(rng.integers(0, len(whole)))
        length = int(rng.integers(1, 40))
        match case % 5:
            case 0:
                damaged[where] ^= 1 << int(rng.integers(0, 8))
            case 1:
                damaged[where : where + length] = rng.bytes(min(length, len(whole) - where))
            case 2:
                del damaged[where : where + length]
            case 3:
                damaged[where:where] = damaged[where : where + length]
            case 4:
                del damaged[where:]
        path.write_bytes(damaged)
        read = outcome(path)
        refused += read is None
        if read is not None:
            assert_right(read[0])
            assert read[1] == {"schema": 1, "seed": 3}
    assert refused > 0.6 * N_CASES


def npy(array, **changes):
    """Bytes of one npy, its header altered: fields replaced by text as it is."""
    stream = streams.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
    content = stream.getvalue()
    if changes:
        header = {"descr": repr(np.asarray(array).dtype.str), "fortran_order": "False", "shape": repr(np.shape(array))}
        header = "{" + ", ".join(f"{k!r}: {v}" for k, v in (header | changes).items()) + "}"
        content = content[:8] + len(header).to_bytes(2, "little") + header.encode() + content[128:]
    return content


EYE = np.eye(2)
MEMBERS = {
    "no array": [("w.npy", b"plain text")],
    "empty": [("w.npy", b"")],
    "twice": [("w.npy", npy(EYE)), ("w.npy", npy(2 * EYE))],
    "a stranger": [("w.npy", npy(EYE)), ("readme.txt", b"")],
    "a folder": [("w.npy/", b"")],
    "too short": [("w.npy", npy(EYE)[:-8])],
    "too long": [("w.npy", npy(EYE) + bytes(8))],
    "claims less": [("w.npy", npy(EYE, shape="(2, 1)"))],
    "claims more": [("w.npy", npy(EYE, shape="(2, 3)"))],
    "claims the moon": [("w.npy", npy(EYE, shape="(10**30,)".replace("10**30", str(10**30))))],
    "claims a lot": [("w.npy", npy(EYE, shape=str((10**15,))))],
    "negative": [("w.npy", npy(EYE, shape="(-2, -2)"))],
    "shape of text": [("w.npy", npy(EYE, shape="'ab'"))],
    "dtype of text": [("w.npy", npy(EYE, descr="'nonsense'"))],
    "dtype of objects": [("w.npy", npy(EYE, descr="'|O'"))],
    "dtype within": [("w.npy", npy(EYE, descr="[('a', '|O')]"))],
    "dtype deep": [("w.npy", npy(EYE, descr="(" * 150 + ")" * 150))],
    "a call": [("w.npy", npy(EYE, shape="__import__('os').getpid()"))],
    "more fields": [("w.npy", npy(EYE, more="1"))],
    "version 9": [("w.npy", b"\x93NUMPY\x09\x00" + npy(EYE)[8:])],
    "a pickle": [("w.npy", b"\x80\x04K\x01.")],
}


def write_zip(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file, contextlib.suppress(UserWarning):
        for name, content in members:
            with file.open(zipfile.ZipInfo(name), "w") as member:
                member.write(content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", MEMBERS)
def test_members_that_are_no_arrays(tmp_path, what):
    """Each is refused, and what is wrong is said, by `load`, `load_points` and `load_array`."""
    write_zip(tmp_path / "bad.npz", MEMBERS[what])
    for load in (io.load, io.load_points, lambda path: io.load_array(path, "w")):
        with pytest.raises(ValueError, match=r"cannot read .*bad\.npz: it is not an npz of plain arrays \(.+\)\.$"):
            load(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    "name", ["../../w", "/etc/passwd", "w\\x", "allow_pickle", "file", "arr_0", "ü", "a b", "w.npy"]
)
def test_any_name_is_a_name(tmp_path, name):
    """Names are keys, never paths or keywords: the array comes back under its own, and no other file appears."""
    io.save(tmp_path / "w.npz", {name: EYE, "w": 2 * EYE}, {})
    arrays, _ = io.load(tmp_path / "w.npz")
    assert list(arrays) == [name, "w"]
    np.testing.assert_array_equal(arrays[name], EYE)
    assert [path.name for path in tmp_path.iterdir()] == ["w.npz"]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a\0b": EYE}, "must be printable text"),
        ({"": EYE}, "must be printable text"),
        ({"a\n": EYE}, "must be printable text"),
        ({"\ud800": EYE}, "must be printable text"),
        ({3: EYE}, "must be printable text"),
        ({"w": None}, "must be plain"),
        ({"w": [1, [2]]}, "arrays must be plain|inhomogeneous"),
        ({"w": np.zeros(2, [("a", float)])}, "must be plain"),
        ({"w": np.zeros(2, "V3")}, "must be plain"),
        ({"w": __import__("ml_dtypes").bfloat16(1)}, "'w' of bfloat16"),
        ({"provenance": EYE}, "must not be called 'provenance'"),
    ],
)
def test_what_would_come_back_as_something_else_is_not_written(tmp_path, arrays, said):
    """NumPy turns bfloat16 into bytes and cuts names off at a zero byte, without a word."""
    with pytest.raises(ValueError, match=said):
        io.save(tmp_path / "w.npz", arrays, {})
    assert list(tmp_path.iterdir()) == []


def test_reserved_provenance(tmp_path):
    with pytest.raises(ValueError, match="'members' is reserved"):
        io.save(tmp_path / "w.npz", {}, {"members": 1})


PROVENANCES = [
    "", "{", "null", "[]", "3", '{"seed": 3}', "[" * 100_000, '"schema"', '{"schema": NaN}', '{"schema": 2}', "NaN",
    '{"schema": "1"}', '{"schema": true}', '{"schema": 1.0}', '{"schema": null}', '{"schema": {}}', '{"schema": 0}',
    '{"schema": 1, "members": {}}', '{"schema": 1, "members": 7}', '{"schema": 1, "members": {"w": ["<f8", [2, 3]]}}',
    '{"schema": 1, "members": {"w": ["<f4", [2, 2]]}}', '{"schema": 1, "members": {"v": ["<f8", [2, 2]]}}',
]  # fmt: skip


@pytest.mark.parametrize("text", PROVENANCES)
def test_provenance_that_is_none(tmp_path, text):
    """What is no JSON object with a schema is somebody else's array; a wrong schema or list of members is refused."""
    np.savez(tmp_path / "w.npz", w=EYE, provenance=np.array(text))
    read = outcome(tmp_path / "w.npz")
    try:
        known = json.loads(text)
        ours = isinstance(known, dict) and "schema" in known
    except (ValueError, RecursionError):
        ours = False
    assert (read is None) == ours
    if read is not None:
        assert sorted(read[0]) == ["provenance", "w"]
        assert read[1] == {}


def test_arrays_lost_or_exchanged_are_missed(tmp_path, saved):
    """A file of ours without one of its arrays, with one more, or with another one under its name is refused."""
    (tmp_path / "whole.npz").write_bytes(saved[False])
    with zipfile.ZipFile(tmp_path / "whole.npz") as file:
        members = [(name, file.read(name)) for name in file.namelist()]
    for change in ([], members[1:], members[:1] + members[2:], [*members, ("x.npy", npy(EYE))],
                   [("w_rec.npy", npy(EYE)), *members[1:]]):  # fmt: skip
        write_zip(tmp_path / "bad.npz", change, zipfile.ZIP_DEFLATED)
        read = outcome(tmp_path / "bad.npz")
        assert read is None if change else read == ({}, {})
    write_zip(tmp_path / "good.npz", members, zipfile.ZIP_DEFLATED)
    assert_right(io.load(tmp_path / "good.npz")[0])


# Points: the right columns of the right shapes, or no points.

WRONG = [None, 3, "text", [], {}, [[1.0]], True, float("nan")]


def test_points_of_wrong_reports(tmp_path, points):
    """Each field of the report replaced by values of other types: points that are the same, or no points."""
    found, arrays, provenance = points
    n_refused = 0
    for name, value in itertools.product(found.report._fields, WRONG):
        report = provenance["report"] | {name: value}
        io.save(tmp_path / "bad.npz", arrays, {"report": report})
        read = outcome(tmp_path / "bad.npz", io.load_points)
        n_refused += read is None
        if read is not None:
            assert type(getattr(read.report, name)) in (type(getattr(found.report, name)), int, bool, type(None))
            assert len(read.report.unresolved) == len(read.report.seeded_waves_met) == 2
            np.testing.assert_array_equal(read.hidden, found.hidden)
    assert n_refused > 0.7 * len(found.report._fields) * len(WRONG)
    for report in (None, [], {}, provenance["report"] | {"more": 1}):
        io.save(tmp_path / "bad.npz", arrays, {"report": report})
        assert outcome(tmp_path / "bad.npz", io.load_points) is None


def test_points_of_wrong_columns(tmp_path, points):
    """Each column left out, of another shape, rank or dtype: no points."""
    found, arrays, provenance = points
    changes = {
        "left out": lambda x: None,
        "one row less": lambda x: x[1:],
        "one rank more": lambda x: x[None],
        "a number": lambda x: x.ravel()[0],
        "narrower": lambda x: x.astype(np.int8 if x.dtype.kind == "i" else np.float32),
        "complex": lambda x: x.astype(complex),
        "text": lambda x: x.astype(str),
    }
    for name, (what, change) in itertools.product(arrays, changes.items()):
        changed = {k: v for k, v in (arrays | {name: change(arrays[name])}).items() if v is not None}
        io.save(tmp_path / "bad.npz", changed, provenance)
        assert outcome(tmp_path / "bad.npz", io.load_points) is None, (name, what)
    io.save(tmp_path / "bad.npz", arrays | {"status": np.full(len(found.hidden), 6)}, provenance)
    assert outcome(tmp_path / "bad.npz", io.load_points) is None
    no_inputs = provenance["report"] | {"inputs": None}
    io.save(tmp_path / "bad.npz", arrays, {"report": no_inputs})
    assert outcome(tmp_path / "bad.npz", io.load_points) is None
    io.save(tmp_path / "good.npz", arrays, provenance)
    assert io.load_points(tmp_path / "good.npz").report.n_candidates == 3


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    """What is wrong with the permissions is not blamed on the file."""
    io.save(tmp_path / "w.npz", {"w": EYE}, {})

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    for load in (io.load, io.load_points, lambda path: io.load_array(path, "w")):
        with pytest.raises(ValueError, match=r"cannot read .*w\.npz: Permission denied\.$"):
            load(tmp_path / "w.npz")
