"""Every script in benchmarks/ runs at toy size and resumes; what a side is told to have found is true."""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS.parent))  # benchmarks/ is no part of the installed package

from benchmarks import (  # noqa: E402
    __main__,
    engine,
    first_call,
    flip_flop_seeds,
    force_seeds,
    gemm_floor,
    jslds_seeds,
    jslds_speed,
    kill_and_resume,
    moving_average_seeds,
    networks,
    scaling,
    sides,
    sine_generator_seeds,
    sweeps,
    tables,
    truth,
)
from jaxfp import io  # noqa: E402


@pytest.fixture(autouse=True)
def _as_users_run_them(monkeypatch):
    """Other people's packages do not keep to strict promotion."""
    monkeypatch.delenv("JAX_NUMPY_RANK_PROMOTION", raising=False)
    monkeypatch.delenv("JAX_NUMPY_DTYPE_PROMOTION", raising=False)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def in_process(monkeypatch, tmp_path):
    """Sides are measured in this process: interpreters take seconds to start."""

    def measure(name, side, options):
        numbers = sides._child(name, side, options, str(tmp_path / "result.npz"))
        with np.load(tmp_path / "result.npz") as file:
            return numbers, dict(file)

    monkeypatch.setattr(sides, "measure", measure)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_flip_flop_seeds_writes_each_run_and_resumes(tmp_path, capsys):
    """Each run has its JSON and its row; a second call repeats nothing."""
    sizes = ["--cells", "tanh", "--seeds", "3", "--n-hidden", "8", "--n-steps", "20", "--candidates", "32"]
    flip_flop_seeds.main([*sizes, "--out", str(tmp_path)])
    run = json.loads((tmp_path / "tanh_3.json").read_text())
    assert run["training"]["seed"] == 3
    assert sum(run["counts"].values()) == 32
    assert json.loads((tmp_path / "table.json").read_text())["rows"][0]["by_index"] == run["by_index"]

    written = (tmp_path / "tanh_3.json").stat().st_mtime_ns
    flip_flop_seeds.main([*sizes, "--out", str(tmp_path)])
    assert (tmp_path / "tanh_3.json").stat().st_mtime_ns == written
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("script", "sizes"),
    [
        (force_seeds, ["--n-hidden", "30", "--n-bits", "1", "--n-time", "4000", "--candidates", "4"]),
        (sine_generator_seeds, ["--n-hidden", "6", "--n-steps", "1", "--candidates", "1"]),
        (moving_average_seeds, ["--n-hidden", "8", "--n-steps", "2", "--states", "16"]),
        (
            jslds_seeds,
            ["--n-units", "4", "--n-steps", "1", "--trials", "4", "--candidates", "4", "--baselines", "standard"],
        ),
    ],
)
def test_seeds_of_the_other_tasks_write_each_run_and_resume(script, sizes, tmp_path, capsys):
    """Each run has its JSON, a seed that was not run stands in the table as such, and a second call repeats nothing."""
    command = ["--seeds", "2", "3", "--run", "3", *sizes, "--out", str(tmp_path)]
    script.main(command)
    said = json.loads((tmp_path / "3.json").read_text())
    assert said["seed"] == 3
    assert "versions" in said
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert rows[0] == {"seed": 2, "not_run": True}
    assert set(rows[1]) - {"seed"} <= set(script.COLUMNS)
    assert rows[1]["train_s"] == said["train_s"]

    written = (tmp_path / "3.json").stat().st_mtime_ns
    script.main(command)
    assert (tmp_path / "3.json").stat().st_mtime_ns == written
    assert not (tmp_path / "2.json").exists()
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_jslds_speed_times_both_updates(tmp_path, capsys):
    """A ratio of two times that were taken, beside the number of products."""
    jslds_speed.main(["--cases", "tanh:4:2", "--turns", "2", "--updates", "1", "--out", str(tmp_path / "speed.json")])
    row = json.loads((tmp_path / "speed.json").read_text())["rows"][0]
    assert row["ratio"] == row["least_s"]["jslds"] / row["least_s"]["network"]
    assert row["products"] == 5
    assert json.loads(capsys.readouterr().out) == row


@pytest.mark.parametrize("script", [name for name in __main__.scripts() if name != "flip_flop_seeds"])
def test_says_how_it_is_run(script):
    """The docstring of a benchmark holds the command that runs it."""
    assert f"python -m benchmarks {script}" in (BENCHMARKS / f"{script}.py").read_text()


def test_flip_flop_seeds_says_how_it_is_run():
    """It runs without the package, too."""
    assert "python benchmarks/flip_flop_seeds.py" in (BENCHMARKS / "flip_flop_seeds.py").read_text()


def test_help_lists_every_script(capsys):
    """Every module with a main(argv) is there, with a line that says what it does."""
    with pytest.raises(SystemExit):
        __main__.main(["--help"])
    shown = capsys.readouterr().out
    for name in (
        "engine",
        "networks",
        "scaling",
        "first_call",
        "gemm_floor",
        "tables",
        "kill_and_resume",
        "flip_flop_seeds",
    ):
        assert f"  {name} " in shown
    assert "harness" not in shown


def test_the_committed_table_is_what_readme_says():
    """README: all fifteen networks have the 27 points of the cube, index sum +1, and were called complete."""
    rows = json.loads((BENCHMARKS / "flip_flop_seeds" / "table.json").read_text())["rows"]
    assert len(rows) == 15
    assert all(row["by_index"] == {"0": 8, "1": 12, "2": 6, "3": 1} for row in rows)
    assert all(row["index_sum"] == 1 and row["complete"] and len(row["stable_codes"]) == 8 for row in rows)
    assert all(row["memories_held"] == 8 and row["sign_accuracy"] >= 0.999 for row in rows)


@pytest.mark.parametrize(
    ("script", "meets"),
    [
        ("force_seeds", lambda r: r["memories_held"] == r["stable_codes"] == 8 and r["sign_accuracy"] >= 0.999),
        (
            "sine_generator_seeds",
            lambda r: r["one_point_inside"] == r["index_2_with_one_complex_pair"] == r["certified"] == 51,
        ),
        (
            "moving_average_seeds",
            lambda r: min(r["decoded_last"], r["decoded_second"], r["variance_pc12"]) > 0.95 < r["pulse_last"],
        ),
    ],
)
def test_the_committed_seeds_are_what_readme_says(script, meets):
    """Every run is in the table as its JSON has it, ten rows each, those not run as such; those that were meet it."""
    folder = BENCHMARKS / script
    rows = json.loads((folder / "table.json").read_text())["rows"]
    assert len(rows) == 10
    ran = [row for row in rows if "not_run" not in row]
    assert {path.stem for path in folder.glob("[0-9]*.json")} == {str(row["seed"]) for row in ran}
    assert ran
    for row in ran:
        said = json.loads((folder / f"{row['seed']}.json").read_text())
        assert all(said[name] == value for name, value in row.items())
        assert meets(row)


def test_networks_are_made_once_and_their_memories_hold(tmp_path, capsys):
    """The second load reads the file; fewer candidates are the first of more; memories stay where they are planted."""
    networks.main(["planted128", "--networks", str(tmp_path)])
    said = json.loads(capsys.readouterr().out)
    assert said["does"]["smallest_overlap"] > 0.9
    assert said["does"]["largest_speed"] < 1e-5
    written = (tmp_path / "planted128.npz").stat().st_mtime_ns
    few, many = (networks.load("planted128", tmp_path, k) for k in (4, 1024))
    assert (tmp_path / "planted128.npz").stat().st_mtime_ns == written
    assert np.array_equal(few.candidates, many.candidates[:4])
    with pytest.raises(ValueError, match="take it in with"):
        networks.load("rank2_512", tmp_path)


def test_networks_of_others_are_taken_in(tmp_path):
    """Their layout is turned into ours: the step is theirs."""
    key = jax.random.key(0)
    m, n, w_inp = (
        jax.random.normal(k, s) for k, s in zip(jax.random.split(key, 3), ((6, 2), (2, 6), (3, 6)), strict=True)
    )
    np.savez(tmp_path / "theirs.npz", **{"rnn.m": m, "rnn.n": n, "rnn.w_inp": w_inp})
    networks.take_in("rank2_512", tmp_path / "theirs.npz", tmp_path)
    network = networks.load("rank2_512", tmp_path, 5)
    x = network.candidates[0]
    theirs = 0.9 * x + 0.1 * m @ (n @ np.tanh(x)) / 6
    assert np.allclose(network.step_fn(network.params, x, None), theirs, atol=1e-6)


def test_the_sine_recipe_runs():
    """At toy size; candidate i has input i % 51."""
    arrays, _ = networks._train_sine(4, ((1, 1e-3, 2),))
    step_fn, params = networks._step("sine256", arrays)
    candidates, inputs = networks._draw_sine(step_fn, params, arrays, 53)
    assert candidates.shape == (53, 4)
    assert np.array_equal(inputs[51:], inputs[:2])


@pytest.mark.parametrize("name", ["tanh16", "tanh64", "gru64_slow"])
def test_committed_networks_are_small(name):
    """Weights only, well below what a repository minds."""
    path = networks.PACKAGED / f"{name}.npz"
    assert path.stat().st_size < 150_000
    assert "candidates" not in io.load(path)[0]


def test_engine_measures_judges_and_resumes(tmp_path, in_process, capsys):
    """Both sides are judged by one truth; a second call repeats nothing; the table and the plots are made."""
    common = ["--out", str(tmp_path), "--networks", str(tmp_path), "--repeats", "1"]
    command = ["--cases", "tanh16", "--candidates", "24", "--sides", "adam", "scipy hybr", *common]
    engine.main(command)
    adam, hybr = lines(tmp_path / "engine.jsonl")
    assert (adam["side"], hybr["side"]) == ("adam", "scipy hybr")
    assert adam["n_true"] == hybr["n_true"] >= max(adam["n_found"], hybr["n_found"]) > 0
    assert adam["n_missed"] == adam["n_true"] - adam["n_found"]
    assert adam["share_fixed"] == 1.0
    assert adam["n_spurious"] == hybr["n_spurious"] == 0
    assert hybr["lane_q"]["0.5"] < 1e-24 < adam["lane_q"]["0.5"] < 1e-10
    assert {"device", "versions", "date", "seed", "first_s", "memory_peak_mib"} <= set(adam)

    engine.main(command)
    assert lines(tmp_path / "engine.jsonl")[0]["date"] == adam["date"]
    capsys.readouterr()
    tables.main([str(tmp_path)])
    assert "scipy hybr" in capsys.readouterr().out
    assert (tmp_path / "work_against_precision.png").exists()


def test_only_times_of_one_run_are_divided():
    """A ratio to FixedPointFinder needs its row of the same run."""
    ours = {"network": "a", "k": 1, "run": "x", "device": "cpu", "side": "jaxfp", "warm_median_s": 1.0}
    theirs = ours | {"side": "fpf", "warm_median_s": 10.0}
    assert tables.ratio(ours, [ours, theirs]) == 10.0
    assert tables.ratio(ours, [ours, theirs | {"run": "y"}]) is None
    assert tables.ratio(ours, [ours, theirs | {"missing": "no checkout"}]) is None


def test_a_side_has_its_own_process(tmp_path):
    """Memory is of that process alone; what cannot run says why."""
    options = sides.Options(str(tmp_path), n_candidates=2, n_repeats=1)
    numbers, arrays = sides.measure("tanh16", "scipy hybr", options)
    assert arrays["lanes"].shape == (2, 16)
    assert numbers["memory_delta_mib"] == numbers["memory_peak_mib"] - numbers["memory_before_mib"]
    assert sides.measure("tanh16", "fpf", options)[0] == {"missing": "no checkout of FixedPointFinder given (--fpf)"}


def test_truth_confirms_points_and_nothing_else():
    """Two units of h' = tanh(1.5 h), nine points: near one of them is confirmed, between them is not."""
    step_fn, params = networks.jaxfp.from_arrays("tanh", {"w_rec": 1.5 * np.eye(2)})
    network = networks.Network("toy", step_fn, params, np.zeros((1, 2), np.float32), None)
    high = 0.8585599  # tanh(1.5 h) = h
    reported = truth.Points(np.array([[high, 1e-4], [high, 0.0], [0.5, 0.5], [-high, high]]), None)
    refined, good = truth.refine(network, reported)
    assert good.tolist() == [True, True, False, True]
    assert truth.merge(truth.take(refined, good), np.full(3, 1e-6)).tolist() == [0, 0, 2]
    assert truth.index_signs(network, truth.take(refined, good)).tolist() == [-1, -1, 1]
    arrays = {"points": reported.hidden, "lane_q": np.zeros(4)}
    row = engine.judge(network, [arrays, {"points": reported.hidden[:1]}], 4)
    assert [(r["n_true"], r["n_found"], r["n_missed"], r["n_spurious"]) for r in row] == [(2, 2, 0, 1), (2, 1, 1, 0)]


def test_truth_merges_at_equal_inputs_only():
    """The same state at another input is another point."""
    points = truth.Points(np.zeros((3, 2)), np.array([[0.0], [1.0], [0.0]]))
    assert truth.merge(points, np.full(3, 1e-3)).tolist() == [0, 1, 0]


def test_scaling_fits_exponents(tmp_path, in_process):
    """Exponents of a known law, and a file with the rows of both sweeps."""
    law = [{"k": k, "s": 3.0 * k**2} for k in (1, 10, 100)]
    assert scaling.exponent(law, "k", "s") == pytest.approx(2.0)
    assert scaling.exponent(law[:1], "k", "s") is None
    sizes = ["--units", "128", "--at", "128", "--candidates", "2", "4", "--per-units", "2", "--side", "scipy hybr"]
    scaling.main([*sizes, "--networks", str(tmp_path), "--out", str(tmp_path), "--repeats", "1"])
    written = json.loads((tmp_path / "scaling.json").read_text())
    assert [row["k"] for row in written["by_candidates"]] == [2, 4]
    assert written["exponents"]["with_k"] is not None


def test_first_call_times_a_process_and_resumes(tmp_path, monkeypatch, capsys):
    """The median of fresh processes, and the program of ours does what it says."""
    program = first_call.OURS
    monkeypatch.setattr(first_call, "OURS", "import time; print(time.time(), 0)")
    command = ["--cases", "tanh16", "--processes", "2", "--candidates", "8"]
    command += ["--networks", str(tmp_path), "--out", str(tmp_path)]
    first_call.main(command)
    first_call.main(command)
    rows = lines(tmp_path / "first_call.jsonl")
    assert [row["side"] for row in rows] == ["jaxfp cold", "jaxfp cached"]
    assert all(len(row["seconds"]) == 2 and row["median_s"] > 0 for row in rows)
    capsys.readouterr()
    sides.write_network(networks.load("tanh16", None, 8), str(tmp_path / "network.npz"))
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "network.npz")])
    exec(program, {})
    assert int(capsys.readouterr().out.split()[1]) > 0


def test_kill_and_resume_searches_and_compares(tmp_path):
    """At toy size: what a trial runs, and that a search is told from another one."""
    for name in ("one", "again", "other"):
        folder, seed = (tmp_path / "one", "0") if name != "other" else (tmp_path / "other", "1")
        command = ["--candidates", "64", "--seed", seed, "--search", str(folder), str(tmp_path / f"{name}.npz")]
        kill_and_resume.main(command)
    assert kill_and_resume.same_bits(tmp_path / "one.npz", tmp_path / "again.npz")
    assert not kill_and_resume.same_bits(tmp_path / "one.npz", tmp_path / "other.npz")


def test_all_committed_kills_ended_in_the_same_bits():
    """README: 20 of 20, at moments all over the search."""
    said = json.loads((BENCHMARKS / "kill_and_resume" / "kill_and_resume.json").read_text())
    assert said["n_trials"] == len(said["trials"]) == said["n_identical"] == 20
    assert all(row["identical"] for row in said["trials"])
    assert len({row["n_pieces_at_kill"] for row in said["trials"]}) > 3
    assert {"device", "versions", "date", "seed"} <= set(said)


def test_gemm_floor_times_search_and_products(tmp_path):
    """One line a network, times positive; efficiency wherever products are counted."""
    command = ["--cases", "tanh16", "--candidates", "8", "--lanes", "8", "--budget", "0.1"]
    gemm_floor.main([*command, "--networks", str(tmp_path), "--out", str(tmp_path)])
    (row,) = lines(tmp_path / "gemm_floor.jsonl")
    assert row["search_s"] > 0
    assert row["product_s"] > 0
    assert (row["efficiency"] is None) == (row["products_per_candidate"] is None)


def test_sweeps_find_what_searches_find_and_keep_identities(tmp_path, capsys):
    sizes = ["--units", "12", "--inputs", "4", "--conditions", "2", "--searched", "1", "--repeats", "1"]
    sweeps.main([*sizes, "--candidates", "32", "--out", str(tmp_path)])
    [row] = lines(tmp_path / "sweeps.jsonl")
    assert row["of_these_swept"] == row["points_of_searches"] == row["points_of_sweep"] == row["of_these_searched"] > 0
    assert row["folds"] > 0
    assert row["followed_back"] > 0
    assert row["wrong"] == row["swapped"] == row["lost"] == 0


def test_readme_shows_the_committed_measurements():
    """README's table of times is what `python -m benchmarks tables benchmarks/engine --markdown` prints."""
    table = tables.markdown(tables.read_lines(BENCHMARKS / "engine" / "engine.jsonl"))
    assert table in (BENCHMARKS.parent / "README.md").read_text()


def test_a_search_until_complete_misses_nothing_that_any_side_found():
    """Of the committed rows: until="complete" has every true point of every side, none spurious, none lost."""
    rows = [r for r in tables.read_lines(BENCHMARKS / "engine" / "engine.jsonl") if r["side"] == "jaxfp complete"]
    assert len(rows) >= 6
    assert all(row["n_missed"] == row["n_spurious"] == 0 for row in rows)
