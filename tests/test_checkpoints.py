"""A search that was killed, at any moment, ends in the bits of one that was not; nothing else is ever taken for it."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
import systems

import jaxfp
from jaxfp import checkpoints, io
from jaxfp.search import settling, wave

DRIVEN = {"W": 1.5 * np.eye(2), "B": np.array([[1.0], [0.0]])}
STARTS = np.random.default_rng(0).uniform(-1, 1, (96, 2))
DRIVES = np.tile([[0.0], [0.5]], (48, 1))  # at 0.5 there are slow points, which no lane shares
SEARCH = {
    "step_fn": systems.driven,
    "params": DRIVEN,
    "candidates": STARTS,
    "inputs": DRIVES,
    "until": "complete",
    "bounded": True,
    "chunk_size": 16,
}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(wave, "_BLOCK", 16)


def search(folder=None, **changes):
    return jaxfp.find_fixed_points(**SEARCH | {"checkpoint": folder} | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished search: its points and the folder of its pieces; to be copied, never changed."""
    folder = tmp_path_factory.mktemp("finished") / "search"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wave, "_BLOCK", 16)
        points = search(folder)
    assert {jaxfp.FIXED, jaxfp.SLOW} == set(points.status)
    return points, folder


@pytest.fixture
def copied(finished, tmp_path):
    """A finished checkpoint of one's own."""
    return shutil.copytree(finished[1], tmp_path / "search")


def assert_same_bits(points, reference):
    for name, left, right in zip(points._fields[:-1], points[:-1], reference[:-1], strict=True):
        assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes()), name
    left, right = (io.plain(p.report._replace(seconds={})._asdict()) for p in (points, reference))
    assert left == right


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# What is finished is not done again, and what is not is done as if nothing had happened.


def test_a_checkpoint_changes_nothing(finished):
    """The same bits with and without; one file a piece: blocks, lanes that share nothing, verdicts, of each wave."""
    assert_same_bits(search(), finished[0])
    names = {path.name for path in finished[1].iterdir()}
    assert {f"own-0-candidates-{start}-{start + 16}.npz" for start in range(0, 96, 16)} <= names
    assert {"search.json", "own-0-alone-0-16.npz", "own-0-verdicts.npz", "seeded-0-verdicts.npz"} <= names
    assert not [name for name in names if name.startswith(".")]


def test_a_finished_search_is_read(copied, finished, monkeypatch):
    """Nothing is searched or settled, and no file is written."""
    before = contents(copied)
    monkeypatch.setattr(wave, "_search_block", lambda *a: 1 / 0)
    monkeypatch.setattr(settling, "settled", lambda *a: 1 / 0)
    monkeypatch.setattr(io, "write_whole", None)
    assert_same_bits(search(copied), finished[0])
    assert contents(copied) == before


@pytest.mark.parametrize("when", ["before", "within", "after"])
def test_interrupted_at_every_piece(finished, tmp_path, monkeypatch, when):
    """Each run writes two pieces more and is interrupted before, within or after the next; the last has the bits."""
    replace, written = os.replace, []

    def interrupted(source, target):
        if when == "after":
            replace(source, target)
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(target)
        if when != "after":
            replace(source, target)

    runs = 0
    while True:
        runs += 1
        written.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", interrupted)
            if when == "before":
                save = io.save
                patch.setattr(io, "save", lambda *a, save=save, **k: _or_interrupt(written) or save(*a, **k))
            try:
                points = search(tmp_path / "search")
                break
            except KeyboardInterrupt:
                assert runs < 30
    assert_same_bits(points, finished[0])
    assert contents(tmp_path / "search").keys() == contents(finished[1]).keys()
    assert runs >= 5


def _or_interrupt(written):
    if len(written) == 2:
        raise KeyboardInterrupt


KILLED = """
import os, signal, sys
from jaxfp.search import wave
import test_checkpoints

folder, n_pieces, when = sys.argv[1:]
wave._BLOCK = 16
replace, written = os.replace, []
def killed(source, target):
    if when == "within" and len(written) == int(n_pieces):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    written.append(target)
    if when == "after" and len(written) == int(n_pieces):
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = killed
test_checkpoints.search(folder)
"""


def test_killed_three_times(finished, tmp_path):
    """SIGKILL within a write, after one, within one again, each in a process that goes on from the one before it.

    `python -m benchmarks kill_and_resume` does it twenty times at random moments.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    folder, n_finished = tmp_path / "search", 0
    for n_pieces, when in ((3, "within"), (4, "after"), (5, "within")):
        command = [sys.executable, "-c", KILLED, str(folder), str(n_pieces), when]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
        assert len(left) == (when == "within")  # what it was writing; the next one clears that away
        assert len(list(folder.glob("[a-z]*.npz"))) > n_finished
        n_finished = len(list(folder.glob("[a-z]*.npz")))
    assert_same_bits(search(folder), finished[0])
    assert contents(folder).keys() == contents(finished[1]).keys()


def test_a_search_of_all_candidates_is_prolonged(finished, tmp_path):
    """until="all", then "complete": one folder serves both, and neither disturbs the other's pieces."""
    search(tmp_path / "search", until="all")
    first = contents(tmp_path / "search")
    assert_same_bits(search(tmp_path / "search"), finished[0])
    assert first.items() < contents(tmp_path / "search").items()


# Another search.


def driven(params, hidden, inputs):
    """Another step by the same name."""
    return jax.numpy.tanh(params["W"] @ hidden + 2 * params["B"] @ inputs)


OTHERS = {
    "program of step_fn": {"step_fn": driven},
    "params['W']": {"params": DRIVEN | {"W": np.nextafter(DRIVEN["W"], 2)}},
    "params['b']": {"params": DRIVEN | {"b": np.zeros(2)}},
    "candidates": {"candidates": STARTS[:-1], "inputs": DRIVES[:-1]},
    "candidates was float64": {"candidates": STARTS.astype(np.float32)},
    "inputs": {"inputs": DRIVES[::-1]},
    "kind": {"kind": "flow", "bounded": None},
    "solver": {"solver": jaxfp.levenberg_marquardt()},
    "max_steps": {"max_steps": 199},
    "tolerance": {"tolerance": 1e-3},
    "slow_tolerance": {"slow_tolerance": 1e-3},
    "unique_tolerance": {"unique_tolerance": 1e-3},
    "bounded": {"bounded": None},
    "chunk_size": {"chunk_size": 32},
    "key": {"key": jax.random.key(1)},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_search_is_refused(finished, copied, monkeypatch, what):
    """In words that say what differs, before anything is computed; the checkpoint stays as it was."""
    monkeypatch.setattr(wave, "search_wave", None)
    before = contents(copied)
    with pytest.raises(ValueError, match="holds another search") as refused:
        search(copied, **OTHERS[what])
    assert f"{what} was" in str(refused.value) or str(refused.value).count(what) == 1
    assert contents(copied) == before


def test_two_solvers_of_other_numbers_are_other_searches(tmp_path, monkeypatch):
    """An optax optimizer is known by what it computes."""
    optax = pytest.importorskip("optax")
    monkeypatch.setattr(wave, "search_wave", lambda *a, **k: 1 / 0)
    with jax.numpy_dtype_promotion("standard"):
        for rate, error in ((0.1, ZeroDivisionError), (0.1, ZeroDivisionError), (0.2, ValueError)):
            with pytest.raises(error, match="solver was" if error is ValueError else None):
                search(tmp_path / "search", solver=jaxfp.gradient(optax.sgd(rate)))


def test_another_version_is_refused(copied):
    """Pieces of another jaxfp need not fit those of this one."""
    said = json.loads((copied / "search.json").read_text())
    said["search"]["jaxfp"] = "0.0.1"
    (copied / "search.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"jaxfp was 0\.0\.1, is"):
        search(copied)


# Damage, full disks, places that cannot be written to.


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x10
    path.write_bytes(content)


def _of_another_name(path):
    shutil.copy(path.parent / "own-0-candidates-16-32.npz", path)


def _of_another_search(path):
    arrays, provenance = io.load(path)
    io.save(path, arrays, provenance | {"search": "another"})


def _of_another_layout(path):
    arrays, provenance = io.load(path)
    io.save(path, arrays, provenance | {"layout": ["tuple", ["Popen", "array"]]})


def _pickled(path):
    np.savez(path, w=np.array([{}], object))


@pytest.mark.parametrize("damage", [_cut, _flip, _of_another_name, _of_another_search, _of_another_layout, _pickled])
def test_a_damaged_piece_is_named_and_costs_itself_alone(copied, finished, damage):
    """One error that names the file and says what to do; the others stay, and without it the search has its bits."""
    piece = copied / "own-0-candidates-32-48.npz"
    damage(piece)
    before = contents(copied)
    with pytest.raises(ValueError, match=r"cannot read .*own-0-candidates-32-48\.npz: .* Delete it and run again"):
        search(copied)
    assert contents(copied) == before
    piece.unlink()
    assert_same_bits(search(copied), finished[0])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', '{"schema": 2, "search": {}}', "[" * 100_000])
def test_a_damaged_manifest_is_named(copied, text):
    (copied / "search.json").write_text(text)
    with pytest.raises(ValueError, match=r"cannot read .*search\.json: it is damaged, or of another version"):
        search(copied)
    (copied / "search.json").unlink()
    with pytest.raises(ValueError, match="must be a folder of its own, it holds"):
        search(copied)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_full_disk_is_one_error_and_loses_nothing(finished, tmp_path, monkeypatch, error):
    """The fourth write fails as on a full disk: three files stay, nothing half, and a rerun ends in the bits."""
    fsync, written = os.fsync, []

    def full(handle):
        written.append(handle)
        if len(written) == 4:
            raise OSError(error, os.strerror(error))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ValueError, match=f"cannot write .*npz: {os.strerror(error)}"):
            search(tmp_path / "search")
    assert len(list((tmp_path / "search").iterdir())) == 3
    assert_same_bits(search(tmp_path / "search"), finished[0])


def test_places_that_cannot_be_a_checkpoint(tmp_path, monkeypatch):
    """A file, a folder below one, one with other things in it, no path at all: before anything is searched."""
    monkeypatch.setattr(wave, "search_wave", None)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("mine")
    cases = {
        tmp_path / "file": "is no folder",
        tmp_path / "file" / "below": "is no folder",
        tmp_path / "home": r"must be a folder of its own, it holds \['thesis\.tex'\]",
        3: "checkpoint must be the path of a folder, got 3",
        True: "checkpoint must be the path of a folder, got True",
    }
    for path, said in cases.items():
        with pytest.raises(ValueError, match=said):
            search(path)
    assert contents(tmp_path / "home") == {"thesis.tex": b"mine"}


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_error(tmp_path):
    tmp_path.chmod(0o500)
    try:
        for path in (tmp_path, tmp_path / "new"):
            with pytest.raises(ValueError, match="cannot be written to"):
                search(path)
    finally:
        tmp_path.chmod(0o700)


def test_what_a_piece_may_be(tmp_path):
    """Nested tuples, numbers that JSON has not, text, None, and the memory order that LAPACK wants, all come back."""
    factors = wave.zeros.Factors(np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(2), np.inf, float("nan"))
    value = ([factors, factors], None, (np.array(["", "why"], object), 3, True), np.zeros((0, 2)))
    keep = checkpoints.keep_in(tmp_path / "search", {}, (wave.zeros.Factors,))
    assert keep("piece", lambda: value) is value
    read = keep("piece", None)
    assert type(read) is tuple
    assert type(read[0]) is list
    assert type(read[0][1]) is wave.zeros.Factors
    lu = read[0][1].lu
    assert lu.flags.f_contiguous
    np.testing.assert_array_equal(lu, factors.lu)
    assert read[0][0].rcond == np.inf
    assert np.isnan(read[0][0].size)
    assert read[2][0].dtype == object
    assert (read[1], read[2][0].tolist(), *read[2][1:]) == (None, ["", "why"], 3, True)
    assert read[3].shape == (0, 2)
