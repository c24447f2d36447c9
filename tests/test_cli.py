"""The command line: a stranger gets all points and files from one command, and from any mistake one line."""

import contextlib
import dataclasses
import functools
import io as stringio
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from systems import fold

from jaxfp import cli, io, pipeline
from jaxfp.analysis import completeness, linearization, modes
from jaxfp.cli import cache, find, flip_flop, flip_flop_force, proofs, report
from jaxfp.models import adapters, equations
from jaxfp.types import FIXED

N, M = 20, 2  # of the networks that `find` is tried on


class MainJob(NamedTuple):
    out: pathlib.Path
    report: dict[str, Any]
    status: int
    printed: str


def run_python(*arguments, cwd=None):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd)


def run_module(*arguments, cwd=None):
    return run_python("-m", "jaxfp", *arguments, cwd=cwd)


def helped(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        cli.main([*arguments, "--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


# Help


def test_module_helps():
    done = run_module("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"flip-flop\s+all fixed points", done.stdout)
    assert re.search(r"find\s+fixed points of your own network", done.stdout)


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("flip-flop", ["--out", "--cell", "--train", "--seed", "fixed_points.npz", "report.json", "example:"]),
        (
            "find",
            ["w_rec", "w_in", "b_rec", "weight_hh", "low_rank", "(h, c)", "npy", "examples:", ".T", "constant input"],
        ),
        ("sine-generator", ["--out", "--train", "--seed", "--duration", "fixed_points.npz", "report.json", "example:"]),
        ("jslds", ["--out", "--train", "--seed", "--trials", "fixed_points.npz", "report.json", "example:"]),
        ("lfads", ["--out", "--train", "--seed", "--data", "--trials", "inferred.npz", "report.json", "example:"]),
        (
            "sentiment",
            ["--out", "--train", "--seed", "--cell", "--data", "fixed_points.npz", "report.json", "example:"],
        ),
        ("moving-average", ["--out", "--train", "--seed", "--states", "fixed_points.npz", "report.json", "example:"]),
    ],
)
def test_commands_help(capsys, monkeypatch, command, needed):
    """Every option has a sentence, the layout of the arrays is there, and no line is wider than 94 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    text = helped(capsys, command)
    assert [what for what in needed if what not in text] == []
    assert max(map(len, text.splitlines())) <= 94
    options = re.findall(r"^  (--[a-z-]+)(.*)$", text, flags=re.MULTILINE)
    assert len(options) >= 8
    for kind in {"find": equations.N_GATES, "flip-flop": flip_flop.CELLS}.get(command, ()):
        assert kind in text


def test_examples_in_help_are_commands(capsys):
    """What the help shows is parsed as shown."""
    parsed = []
    for command in ("flip-flop", "sine-generator", "moving-average", "jslds", "lfads", "sentiment", "find"):
        text = helped(capsys, command).replace("\\\n", " ")
        for line in re.findall(r"python -m jaxfp (.*)", text[text.index("example") :]):
            parsed.append(re.split(r"\s{4,}take", line)[0].split())
            helped(capsys, *parsed[-1])
    assert len(parsed) == 9


# The main job


@pytest.fixture(scope="module")
def main_job(tmp_path_factory):
    """`flip-flop` with the packaged network and few candidates, in a terminal of 80 columns."""
    out = tmp_path_factory.mktemp("main") / "new" / "flip_flop"
    printed = stringio.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("COLUMNS", "80")
        status = cli.main(["flip-flop", "--candidates", "256", "--quiet", "--out", str(out)])
    return MainJob(out, json.loads((out / "report.json").read_text()), status, printed.getvalue())


def test_main_job_finds_all_points(main_job):
    said = main_job.report
    assert main_job.status == 0
    assert said["n_fixed"] == 27
    assert said["fixed_points_by_unstable_dimensions"] == {"0": 8, "1": 12, "2": 6, "3": 1}
    assert said["audit"]["index_sum"] == said["audit"]["expected"] == 1
    stable = [point for point in said["points"] if point["n_unstable"] == 0]
    assert {point["verdict"] for point in stable} == {"stable"}
    assert len({point["readout_signs"] for point in stable}) == 8
    assert sum(point["index"] for point in said["points"]) == 1
    assert said["search"]["counts"]["FIXED"] + said["search"]["counts"]["SLOW"] == 256


def test_main_job_explains_the_memory(main_job):
    """T5, T6: the cube's edges, the task's truth table, and critical pulses that lead to the saddles."""
    said = main_job.report["topology"]
    assert said["edges"]["by_hamming_distance"] == {"1": 12}
    assert said["edges"]["distinct_with_one_bit"] == 12
    assert (said["truth_table"]["right"], said["truth_table"]["of"]) == (48, 48)
    assert said["critical_pulses"]["to_the_saddle_between"] == said["critical_pulses"]["of"] == 24
    assert len(said["connections"]) >= 24 + 6 * 2
    printed = " ".join(main_job.printed.split())
    assert "12 by 1 bit. Of 12 pairs that differ in one bit, 12 are." in printed
    assert "where the task asks in 48 of 48 cases" in printed


def test_main_job_says_with_what(main_job):
    said = main_job.report
    assert said["command"] == "flip-flop"
    assert said["seconds"]["total"] == pytest.approx(said["seconds"]["compile"] + said["seconds"]["run"])
    assert min(said["seconds"].values()) > 0
    assert said["versions"]["jax"] == jax.__version__
    assert said["device"] == jax.devices()[0].device_kind
    assert (said["arguments"]["seed"], said["network"]["seed"]) == ("0", 0)
    assert said["network"]["recipe"]["noise"] == 0.1
    assert said["behaviour"]["memories_held"] == 8


def test_main_job_writes_its_files(main_job):
    out, said = main_job.out, main_job.report
    figures = {"state_space.png", "eigenvalues.png", "q.png", "discovery.png", "trial.png"}
    figures |= {"connections.png", "edges.png", "truth_table.png", "approach.png", "critical_pulse.png"}
    assert {file.name for file in out.iterdir()} == {"fixed_points.npz", "report.json", *figures}
    for name in figures:
        with Image.open(out / name) as image:
            assert min(image.size) > 600
            assert image.convert("L").getextrema()[0] < 100  # something is drawn
    points = io.load_points(out / "fixed_points.npz")
    assert points.hidden.shape == (27, 100)
    assert said["points"][3]["q"] == points.q[3]


def test_main_job_prints_what_it_found(main_job):
    printed = " ".join(main_job.printed.split())
    assert "8 of 8 memories held" in printed
    assert "8 stable, with 8 distinct signs of the readout: +++ ++- +-+ +-- -++ -+- --+ ---" in printed
    assert "27 fixed points, 0 slow points." in printed
    assert "The index sum is +1" in printed
    assert "compiling. Wrote fixed_points.npz, report.json, state_space.png" in printed
    assert str(main_job.out) in printed


def test_tables_fit_a_terminal_of_80_columns(main_job):
    """No header and no number is cut off or broken."""
    lines = [line for line in main_job.printed.splitlines() if str(main_job.out) not in line]
    assert max(map(len, lines)) <= 80
    assert "…" not in main_job.printed
    header = next(line for line in lines if "unstable ┃" in line)
    assert [name.strip() for name in header.strip("┃").split("┃")] == [
        "unstable", "points", "hits", "max q", "|eigenvalue|", "timescale", "verdicts",
    ]  # fmt: skip
    rows = [line.strip("│").split("│") for line in lines if line.startswith("│")]
    assert [[cell.strip() for cell in row[:2] + row[6:]] for row in rows[:4]] == [
        ["0", "8", "8 stable"], ["1", "12", "12 unstable"], ["2", "6", "6 unstable"], ["3", "1", "1 unstable"],
    ]  # fmt: skip
    assert [[cell.strip() for cell in row] for row in rows[4:]] == [
        ["1", "12", "24", "24", "0", "0"], ["2", "6", "384", "384", "0", "0"], ["3", "1", "64", "64", "0", "0"],
    ]  # fmt: skip


def test_slow_points_are_listed():
    """A ghost, h' = h + 0.01 + h^2: its speed of 0.01 stands beside that of the candidates, 0.02 and 0.17."""
    ghost = pipeline.find_fixed_points(fold, 0.01, np.array([[0.1], [-0.4]]))
    linear = linearization.linearize(fold, 0.01, ghost.hidden)
    proof, ghost_radius = proofs.prove(fold, 0.01, ghost, "map")
    audit = completeness.audit(ghost, linear)
    analysis = report.Analysis(ghost, linear, modes.spectrum(linear.jacobian), audit, proof, ghost_radius, np.ones(2))
    console = Console(width=80, file=stringio.StringIO())
    report.show(console, analysis)
    text = console.file.getvalue()
    assert "Slow points, speed per step; the median speed of the candidates is 0.095:" in text
    assert re.search(r"│ +0.01 │ +0.11 │ +2 │ +1e-02 │", text)  # 0.01 + h^2 has no zero at all
    assert "Proved: 0 of 0 fixed points exist." in text
    assert report.summary(analysis)["points"][0]["status"] == "SLOW"


# Training


TINY = flip_flop.Recipe(n_time=10, batch_size=16, n_steps=100, noise=0.0)


def test_training_is_a_function_of_its_seed():
    """The same seed gives the same bits, another one others; and training lowers the loss."""
    arrays, provenance = flip_flop.train_network(1, "tanh", 8, TINY)
    again, _ = flip_flop.train_network(1, "tanh", 8, TINY)
    other, _ = flip_flop.train_network(2, "tanh", 8, TINY)
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], again[name])
    assert not np.array_equal(arrays["w_rec"], other["w_rec"])
    assert {name: array.shape for name, array in arrays.items()} == {
        "w_rec": (8, 8), "w_in": (8, 3), "b": (8,), "w_out": (3, 8), "b_out": (3,),
    }  # fmt: skip
    assert provenance["final_loss"] < 0.5  # saying 0 throughout scores 1
    assert provenance["recipe"]["n_steps"] == 100
    assert provenance["made_by"] == "python -m jaxfp flip-flop --train --cell tanh --n-hidden 8 --seed 1"


def test_a_second_seed_compiles_nothing():
    flip_flop.train_network(1, "tanh", 8, TINY)
    with report.compile_seconds() as seconds:
        flip_flop.train_network(3, "tanh", 8, TINY)
    assert seconds() < 0.3  # eager operations are traced again; the training loop alone would take seconds


def test_trained_network_is_kept_whatever_follows(tmp_path, monkeypatch, capsys):
    """`--train` writes weights.npz before anything else can fail."""

    def stop(*arguments, **keywords):
        raise ValueError("what follows failed")

    monkeypatch.setattr(flip_flop, "recipe_of", lambda cell: TINY)
    monkeypatch.setattr(flip_flop, "behaviour", stop)
    status = cli.main(["flip-flop", "--train", "--n-hidden", "8", "--quiet", "--out", str(tmp_path)])
    assert one_line(capsys, status) == "jaxfp: error: what follows failed"
    arrays, provenance = io.load(tmp_path / "weights.npz")
    assert flip_flop.as_network("tanh", arrays).params["w_rec"].shape == (8, 8)
    assert provenance["recipe"]["n_steps"] == 100


def test_other_numbers_of_lines_are_trained(tmp_path, monkeypatch, capsys):
    """--n-bits 2, of a discrete network and of one trained by FORCE."""

    def stop(*arguments, **keywords):
        raise ValueError("enough")

    monkeypatch.setattr(flip_flop, "recipe_of", lambda cell: TINY)
    monkeypatch.setattr(flip_flop_force, "train_network", functools.partial(_briefly, flip_flop_force.train_network))
    for place in (flip_flop, flip_flop_force):
        monkeypatch.setattr(place, "behaviour", stop)
    for cell in ("tanh", "force"):
        command = ["flip-flop", "--train", "--n-hidden", "8", "--n-bits", "2", "--cell", cell, "--quiet"]
        assert one_line(capsys, cli.main([*command, "--out", str(tmp_path)])) == "jaxfp: error: enough"
        arrays, provenance = io.load(tmp_path / "weights.npz")
        assert (arrays["w_in"].shape, arrays["w_out"].shape) == ((8, 2), (2, 8))
        assert provenance["made_by"].endswith(f"--cell {cell} --n-hidden 8 --seed 0 --n-bits 2")


def _briefly(train, seed, n_units, recipe):
    return train(seed, n_units, dataclasses.replace(recipe, n_time=100))


# Your own network


def own(kind, **options):
    """Random weights of a network of this kind, in its file's layout."""
    arrays = equations.init_arrays(jax.random.key(1), kind, N, M, gain=1.5, **options)
    return {name: np.asarray(array) for name, array in arrays.items()}


def one_line(capsys, status):
    """The one line of an error; fails if there is more, or a traceback."""
    error = capsys.readouterr().err
    assert status == 2
    assert error.count("\n") == 1
    assert error.startswith("jaxfp: error: ")
    return error.strip()


@pytest.fixture
def caught(monkeypatch):
    """What `find` hands to the search, instead of searching."""
    calls = []

    def analyze(step_fn, params, starts, inputs, **keywords):
        calls.append((step_fn, params, starts, inputs, keywords))
        raise ValueError("caught")

    monkeypatch.setattr(report, "analyze", analyze)
    return calls


@pytest.mark.parametrize(
    ("kind", "options", "flags"),
    [
        ("tanh", {}, []),
        ("relu", {}, []),
        ("gru", {}, []),
        ("lstm", {}, []),
        ("ugrnn", {}, []),
        ("euler", {"alpha": 0.2}, ["--alpha", "0.2"]),
        ("euler", {"alpha": 0.2, "form": "current"}, ["--alpha", "0.2", "--form", "current"]),
        ("low_rank", {"alpha": 0.1}, ["--alpha", "0.1"]),
    ],
)
def test_find_reads_every_cell(tmp_path, caught, capsys, kind, options, flags):
    """The network searched is that of from_arrays, at the input given; the candidates are those of the file."""
    arrays = own(kind, **({"rank": 2} if kind == "low_rank" else {}))
    io.save(tmp_path / "w.npz", arrays, {"seed": 1})
    n_hidden = 2 * N if kind == "lstm" else N
    states = np.random.default_rng(0).normal(size=(7, n_hidden))
    np.save(tmp_path / "states.npy", states)
    command = ["find", str(tmp_path / "w.npz"), "--cell", kind, *flags, "--out", str(tmp_path / "out")]
    command += ["--candidates", str(tmp_path / "states.npy"), "--inputs", "0.5", "-0.25"]
    assert one_line(capsys, cli.main(command)).endswith("caught")
    step_fn, params, starts, inputs, _ = caught[0]
    wanted, wanted_params = adapters.from_arrays(kind, arrays, **options)
    assert step_fn == wanted
    assert sorted(params) == sorted(wanted_params)
    for name in params:
        np.testing.assert_array_equal(params[name], wanted_params[name])
    np.testing.assert_array_equal(starts, states)
    np.testing.assert_array_equal(inputs, [0.5, -0.25])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["relu", "lstm"])
def test_find_draws_candidates(tmp_path, caught, kind):
    """As many as asked for, finite, spread, and the same again for the same seed, for bounded cells and others."""
    io.save(tmp_path / "w.npz", own(kind), {})
    command = ["find", str(tmp_path / "w.npz"), "--cell", kind, "--n-candidates", "16", "--out", str(tmp_path / "out")]
    for seed in ("0", "0", "1"):
        cli.main([*command, "--seed", seed])
    first, again, other = (np.asarray(call[2]) for call in caught)
    assert first.shape == (16, 2 * N if kind == "lstm" else N)
    assert np.isfinite(first).all()
    assert first.std(axis=0).min() > 0
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_find_takes_arrays_by_any_name(tmp_path, caught, capsys):
    arrays = own("tanh")
    np.savez(
        tmp_path / "theirs.npz",
        **{"rnn.W": arrays["w_rec"].T, "in": arrays["w_in"], "b": arrays["b"], "a.T": np.ones(1)},
    )
    command = ["find", str(tmp_path / "theirs.npz"), "--cell", "tanh", "--out", str(tmp_path / "out")]
    cli.main([*command, "--array", "w_rec=rnn.W.T", "--array", "w_in=in"])
    assert "Not used from theirs.npz: a.T." in capsys.readouterr().out
    _, params, _, inputs, _ = caught[0]
    for name in arrays:
        np.testing.assert_array_equal(params[name], arrays[name])
    assert inputs is None


def test_find_takes_candidates_of_an_npz(tmp_path, caught):
    io.save(tmp_path / "w.npz", own("tanh"), {})
    states = np.random.default_rng(0).normal(size=(7, N))
    np.savez(tmp_path / "states.npz", candidates=states, other=np.ones(2))
    command = ["find", str(tmp_path / "w.npz"), "--cell", "tanh", "--out", str(tmp_path / "out")]
    cli.main([*command, "--candidates", str(tmp_path / "states.npz")])
    np.testing.assert_array_equal(caught[0][2], states)


def test_find_searches(tmp_path, capsys):
    """From somebody's file to the report: the 27 points of the packaged network, from states in its box.

    The arrays have other names and are transposed; timescales are in the unit of --dt. The main job has compiled these
    programs already.
    """
    arrays, _ = io.load_packaged("flip_flop_tanh")
    theirs = {"W": arrays["w_rec"].T, "kernel": arrays["w_in"].T, "b": arrays["b"], "w_out": arrays["w_out"]}
    io.save(tmp_path / "w.npz", theirs, {"seed": 1})
    command = ["find", str(tmp_path / "w.npz"), "--cell", "tanh", "--array", "w_rec=W.T", "--array", "w_in=kernel.T"]
    command += ["--dt", "2", "--quiet", "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    said = json.loads((tmp_path / "out" / "report.json").read_text())
    assert said["fixed_points_by_unstable_dimensions"] == {"0": 8, "1": 12, "2": 6, "3": 1}
    assert said["audit"]["index_sum"] == 1
    assert said["network"] == {"schema": io.SCHEMA, "seed": 1}
    for point in said["points"]:
        assert point["timescales"][0] == pytest.approx(-2 / np.log(abs(complex(*point["eigenvalues"][0]))))
    hidden = io.load_points(tmp_path / "out" / "fixed_points.npz").hidden
    w_rec, b = arrays["w_rec"].astype(float), arrays["b"].astype(float)
    assert np.abs(np.tanh(hidden @ w_rec.T + b) - hidden).max() < 1e-13
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "fixed_points.npz", "report.json", "state_space.png", "eigenvalues.png", "q.png", "discovery.png",
    }  # fmt: skip
    assert "Not used from w.npz: w_out." in capsys.readouterr().out


def test_find_searches_a_network_in_the_layout_of_others(tmp_path, capsys):
    """Low rank as mackelab/phase-limit-cycle-RNNs saves it: m (N, R), n (R, N), w_inp (M, N), at an input."""
    rng = np.random.default_rng(3)
    m, n, into = rng.normal(size=(N, 2)), rng.normal(size=(N, 2)), rng.normal(size=(3, N))
    n += 2 * m  # an attractor or two
    theirs = {"rnn.m": m, "rnn.n": n.T, "rnn.w_inp": into, "rnn.w_out": np.ones((N, 1)), "x0": np.zeros((1, N))}
    theirs = {name: array.astype(np.float32) for name, array in theirs.items()}
    np.savez(tmp_path / "phase.npz", **theirs)
    command = ["find", str(tmp_path / "phase.npz"), "--cell", "low_rank", "--alpha", "0.1", "--quiet"]
    command += [
        "--array",
        "m=rnn.m",
        "--array",
        "n=rnn.n.T",
        "--array",
        "w_in=rnn.w_inp.T",
        "--inputs",
        "0.1",
        "0",
        "0",
    ]
    command += ["--n-candidates", "128", "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    said = json.loads((tmp_path / "out" / "report.json").read_text())
    summary = " ".join(said["audit"]["summary"])
    if said["audit"]["index_sum"] == 1:
        assert "The index sum is +1" in summary
    else:
        assert "certainly missing" in summary or "undecided" in summary
    points = io.load_points(tmp_path / "out" / "fixed_points.npz")
    assert len(points.hidden) > 1
    np.testing.assert_array_equal(points.inputs, np.tile([0.1, 0, 0], (len(points.hidden), 1)))
    m, n, into = (theirs[name].astype(float) for name in ("rnn.m", "rnn.n", "rnn.w_inp"))
    moved = 0.9 * points.hidden + 0.1 * (np.tanh(points.hidden) @ n.T @ m.T / N + 0.1 * into[0])
    assert np.abs(moved - points.hidden)[points.status == FIXED].max() < 1e-13
    assert "Not used from phase.npz: rnn.w_out, x0." in capsys.readouterr().out


def test_checkpoints_are_handed_on(tmp_path, caught, monkeypatch):
    """--checkpoint FOLDER: the search's pieces lie below it, those of training beside them; without it nothing is."""
    io.save(tmp_path / "w.npz", own("tanh"), {})
    command = ["find", str(tmp_path / "w.npz"), "--cell", "tanh", "--out", str(tmp_path / "out"), "--n-candidates", "4"]
    cli.main([*command, "--checkpoint", str(tmp_path / "kept")])
    cli.main(command)
    assert [call[4]["checkpoint"] for call in caught] == [tmp_path / "kept" / "search", None]

    trained = []

    def train_network(*_, checkpoint, **__):
        trained.append(checkpoint)
        return io.load_packaged("flip_flop_tanh")

    monkeypatch.setattr(flip_flop, "train_network", train_network)
    monkeypatch.setattr(flip_flop, "behaviour", lambda *_: {"sign_accuracy": 1, "memories_held": 8, "memories": 8})
    command = ["flip-flop", "--train", "--out", str(tmp_path / "out"), "--candidates", "4", "--quiet"]
    cli.main([*command, "--checkpoint", str(tmp_path / "kept")])
    cli.main(command)
    assert trained == [tmp_path / "kept" / "training", None]
    assert [call[4]["checkpoint"] for call in caught[2:]] == [tmp_path / "kept" / "search", None]


def test_paths_of_the_figure_stay_in_view():
    """Trajectories that run away, and candidates that are not finite, are left out of the picture."""
    step_fn, params = adapters.from_arrays("relu", {"w_rec": np.diag([2.0, 0.5])})
    starts = np.array([[0.0, 1.0], [1.0, 1.0], [np.nan, 1.0]])
    paths = find._paths(step_fn, params, starts, None)
    assert paths.shape == (1, 64, 2)
    np.testing.assert_array_equal(paths[0, 0], [0.0, 0.5])
    assert find._paths(step_fn, params, starts[1:], None) is None


# Mistakes


def bad_file(tmp_path, arrays):
    io.save(tmp_path / "bad.npz", arrays, {})
    return str(tmp_path / "bad.npz")


def candidates_file(tmp_path, array):
    np.save(tmp_path / "bad.npy", array)
    return ["--candidates", str(tmp_path / "bad.npy")]


TANH = ["--cell", "tanh"]
MISTAKES = {
    "missing file": (lambda p: ["nowhere.npz", *TANH], "cannot read nowhere.npz: there is no such file"),
    "foreign file": (lambda p: [str(p / "text.npz"), *TANH], "it is not an npz of plain arrays"),
    "wrong keys": (lambda p: [bad_file(p, {"W": np.eye(3)}), *TANH], "the file holds ['W'] (see --array)"),
    "missing array": (lambda p: [bad_file(p, {"b": np.zeros(3)}), *TANH], "must be ['w_rec'] and optionally"),
    "transposed": (lambda p: [bad_file(p, {"w_rec": np.ones((3, 9))}), "--cell", "gru"], "(is it transposed?)"),
    "transposed input": (
        lambda p: [bad_file(p, {"w_rec": np.eye(3), "w_in": np.ones((2, 3))}), *TANH],
        "w_in must be (n_hidden, n_inputs) = (3, n_inputs), got (2, 3) (is it transposed?)",
    ),
    "NaN weights": (lambda p: [bad_file(p, {"w_rec": np.diag([1, np.nan])}), *TANH], "NaN weights: ['w_rec']"),
    "integer weights": (lambda p: [bad_file(p, {"w_rec": np.eye(3, dtype=int)}), *TANH], "floating dtype, got int64"),
    "no alpha": (lambda p: [str(p / "w.npz"), "--cell", "euler"], "alpha = dt/tau must be a positive finite number"),
    "alpha of tanh": (lambda p: [str(p / "w.npz"), *TANH, "--alpha", "0.1"], "alpha goes with kind"),
    "form of gru": (lambda p: [str(p / "w.npz"), "--cell", "gru", "--form", "rate"], "form goes with kind"),
    "array not in file": (lambda p: [str(p / "w.npz"), *TANH, "--array", "b=B"], "there is no array 'B' in the file"),
    "array unknown": (lambda p: [str(p / "w.npz"), *TANH, "--array", "m=b"], "must be NAME=KEY with NAME one of"),
    "array without key": (lambda p: [str(p / "w.npz"), *TANH, "--array", "b"], "--array must be NAME=KEY"),
    "inputs too many": (lambda p: [str(p / "w.npz"), *TANH, "--inputs", "1", "2", "3"], "--inputs must be 2 finite"),
    "inputs too few": (lambda p: [str(p / "w.npz"), *TANH, "--inputs", "1"], "--inputs must be 2 finite numbers"),
    "inputs NaN": (lambda p: [str(p / "w.npz"), *TANH, "--inputs", "nan", "0"], "--inputs must be 2 finite numbers"),
    "candidates flat": (
        lambda p: [str(p / "w.npz"), *TANH, *candidates_file(p, np.ones(N))], "n_hidden = 20, got (20,)",
    ),
    "candidates narrow": (
        lambda p: [str(p / "w.npz"), *TANH, *candidates_file(p, np.ones((5, 3)))], "n_hidden = 20, got (5, 3)",
    ),
    "candidates none": (
        lambda p: [str(p / "w.npz"), *TANH, *candidates_file(p, np.ones((0, N)))], "got (0, 20)",
    ),
    "candidates integer": (
        lambda p: [str(p / "w.npz"), *TANH, *candidates_file(p, np.ones((5, N), int))], "floating, the search runs in",
    ),
    "candidates pickled": (
        lambda p: [str(p / "w.npz"), *TANH, *candidates_file(p, np.array([None]))], "it is no npy of plain numbers",
    ),
    "candidates missing": (lambda p: [str(p / "w.npz"), *TANH, "--candidates", "no.npy"], "there is no such file"),
    "candidates unnamed": (
        lambda p: [str(p / "w.npz"), *TANH, "--candidates", str(p / "w.npz")], "must hold an array 'candidates'",
    ),
    "no candidates": (lambda p: [str(p / "w.npz"), *TANH, "--n-candidates", "0"], "must be positive"),
    "no time": (lambda p: [str(p / "w.npz"), *TANH, "--dt", "nan"], "must be positive"),
    "out is a file": (lambda p: [str(p / "w.npz"), *TANH, "--out", str(p / "text.npz")], "is no folder"),
    "out is below a file": (lambda p: [str(p / "w.npz"), *TANH, "--out", str(p / "text.npz" / "x")], "is no folder"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch, mistake):
    """Exit status 2, one line that says what was wanted, before any search, and nothing already there is touched."""
    monkeypatch.setattr(report, "analyze", lambda *a, **k: pytest.fail("searched in spite of the mistake"))
    monkeypatch.chdir(tmp_path)
    io.save(tmp_path / "w.npz", own("tanh"), {})
    (tmp_path / "text.npz").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("of last week")
    arguments, said = MISTAKES[mistake]
    assert said in one_line(capsys, cli.main(["find", *arguments(tmp_path)]))
    assert (tmp_path / "text.npz").read_text() == "mine"
    assert (tmp_path / "out" / "report.json").read_text() == "of last week"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--n-hidden", "8"], "--n-hidden goes with --train"),
        (["--candidates", "0"], "must be at least 1"),
        (["--n-bits", "2"], "--n-bits goes with --train"),
        (["--noise", "-1"], "--noise must be a finite number, 0 or more"),
        (["--train", "--n-hidden", "0"], "must be at least 1"),
        (["--out", "file"], "is no folder"),
    ],
)
def test_mistakes_in_flip_flop_are_one_line(tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert said in one_line(capsys, cli.main(["flip-flop", *arguments]))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_mistake_leaves_with_status_2(tmp_path):
    done = run_module("find", "nowhere.npz", "--cell", "tanh", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "jaxfp: error: cannot read nowhere.npz: there is no such file.\n"
    assert list(tmp_path.iterdir()) == []


def test_unknown_arguments_are_argparse_errors(capsys):
    for arguments in ([], ["nothing"], ["find"], ["find", "w.npz", "--cell", "spiking"], ["flip-flop", "--seed", "x"]):
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        assert left.value.code == 2
        assert "error:" in capsys.readouterr().err


# Seconds


def test_compile_seconds_count_what_compiles():
    with report.compile_seconds() as seconds:
        double = jax.jit(lambda x: jnp.sin(x) * 2)
        double(jnp.ones(3)).block_until_ready()
        compiled = seconds()
        double(jnp.ones(3)).block_until_ready()
        assert seconds() == compiled > 0
    jax.jit(lambda x: x - 1)(1.0)
    assert seconds() == compiled


def test_compile_seconds_are_counted_once():
    """A function traced within another: the outer 30 ms hold the inner 10 ms, which the inner reports first."""
    with report.compile_seconds() as seconds:
        time.sleep(0.03)
        jax.monitoring.record_event_duration_secs("/jax/core/compile/jaxpr_trace_duration", 0.01)
        jax.monitoring.record_event_duration_secs("/jax/core/compile/jaxpr_trace_duration", 0.03)
        jax.monitoring.record_event_duration_secs("/jax/something/else", 5.0)
        assert seconds() == pytest.approx(0.03, abs=0.005)


# Compiled programs


def test_next_process_compiles_nothing(tmp_path, monkeypatch):
    """What the command line compiled lies in the user's cache folder, and the next one takes it from there."""
    code = """
from jaxfp import cli
cli.main(["find", "nowhere.npz", "--cell", "tanh"])
import jax
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
jax.jit(lambda x: x + 1)(1.0)
print(sum(event.endswith("cache_misses") for event in events), sum(event.endswith("cache_hits") for event in events))
"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    first, second = (run_python("-c", code).stdout.split() for _ in range(2))
    n_files = str(len(list((tmp_path / "jaxfp" / "xla").iterdir())))
    assert n_files != "0"
    assert (first, second) == ([n_files, "0"], ["0", n_files])


KEPT = {
    "JAX_COMPILATION_CACHE_DIR": "/nowhere/jaxfp/xla",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@pytest.mark.parametrize(
    ("users", "becomes"),
    [
        ({}, KEPT),
        ({"JAX_COMPILATION_CACHE_DIR": "/mine"}, KEPT | {"JAX_COMPILATION_CACHE_DIR": "/mine"}),
        ({"JAX_COMPILATION_CACHE_DIR": ""}, KEPT | {"JAX_COMPILATION_CACHE_DIR": ""}),
        ({"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "2", "TF_CPP_MIN_LOG_LEVEL": "0"},
         KEPT | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "2", "TF_CPP_MIN_LOG_LEVEL": "0"}),
        ({"JAX_ENABLE_COMPILATION_CACHE": "False"}, {}),
        ({"XDG_CACHE_HOME": "relative"}, {}),
        ({"XDG_CACHE_HOME": __file__}, {}),
    ],
)  # fmt: skip
def test_users_setting_of_the_cache_stays(tmp_path, monkeypatch, users, becomes):
    """And nothing is set where the cache is off, or its folder cannot be made, or JAX is there already."""
    users = {"XDG_CACHE_HOME": str(tmp_path)} | users
    becomes = {name: value.replace("/nowhere", str(tmp_path)) for name, value in becomes.items()}
    environment = dict(users)
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", environment)
        cache.keep_programs()
        assert environment == users
        patch.delitem(sys.modules, "jax")
        cache.keep_programs()
    assert environment == users | becomes
    ours = becomes.get("JAX_COMPILATION_CACHE_DIR") == str(tmp_path / "jaxfp" / "xla")
    assert [path.name for path in tmp_path.iterdir()] == ["jaxfp"] * ours


@pytest.mark.parametrize(
    ("platform", "environment", "wanted"),
    [
        ("linux", {}, "/me/.cache"),
        ("darwin", {}, "/me/Library/Caches"),
        ("win32", {}, "/me/AppData/Local"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg"),
        ("linux", {"XDG_CACHE_HOME": ""}, "/me/.cache"),
    ],
)
def test_cache_folder_is_that_of_the_platform(monkeypatch, platform, environment, wanted):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", platform)
        patch.setattr(os, "environ", {"HOME": "/me"} | environment)
        found = cache.folder()
    assert found == pathlib.Path(wanted, "jaxfp", "xla")


def test_help_says_where_programs_are_kept(capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    text = " ".join(helped(capsys).split())
    for what in ("/caches/jaxfp/xla", "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE=false"):
        assert what in text
