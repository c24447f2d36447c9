"""Every script in benchmarks/ runs at toy size and resumes."""

import json
import pathlib
import runpy

import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"


def test_flip_flop_seeds_writes_each_run_and_resumes(tmp_path, capsys):
    """Each run has its JSON and its row; a second call repeats nothing."""
    main = runpy.run_path(str(BENCHMARKS / "flip_flop_seeds.py"))["main"]
    sizes = ["--cells", "tanh", "--seeds", "3", "--n-hidden", "8", "--n-steps", "20", "--candidates", "32"]
    main([*sizes, "--out", str(tmp_path)])
    run = json.loads((tmp_path / "tanh_3.json").read_text())
    assert run["training"]["seed"] == 3
    assert sum(run["counts"].values()) == 32
    assert json.loads((tmp_path / "table.json").read_text())["rows"][0]["by_index"] == run["by_index"]

    written = (tmp_path / "tanh_3.json").stat().st_mtime_ns
    main([*sizes, "--out", str(tmp_path)])
    assert (tmp_path / "tanh_3.json").stat().st_mtime_ns == written
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_says_how_it_is_run(script):
    """The docstring of a benchmark holds the command that runs it."""
    assert f"python benchmarks/{script.name}" in script.read_text()


def test_the_committed_table_is_what_readme_says():
    """README: all fifteen networks have the 27 points of the cube, index sum +1, and were called complete."""
    rows = json.loads((BENCHMARKS / "flip_flop_seeds" / "table.json").read_text())["rows"]
    assert len(rows) == 15
    assert all(row["by_index"] == {"0": 8, "1": 12, "2": 6, "3": 1} for row in rows)
    assert all(row["index_sum"] == 1 and row["complete"] and len(row["stable_codes"]) == 8 for row in rows)
    assert all(row["memories_held"] == 8 and row["sign_accuracy"] >= 0.999 for row in rows)
