"""`python -m jaxfp toys`: both planar systems beside their closed form, nothing else in the square, and the ghost."""

import contextlib
import io as stringio
import json

import jax
import numpy as np
import pytest
from PIL import Image

from jaxfp import cli, io
from jaxfp.cli import report
from jaxfp.cli import toys as job
from jaxfp.tasks import toys


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The command: (folder, report, what it printed)."""
    out = tmp_path_factory.mktemp("toys")
    printed = stringio.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("COLUMNS", "80")
        assert cli.main(["toys", "--quiet", "--out", str(out)]) == 0
    return out, json.loads((out / "report.json").read_text()), " ".join(printed.getvalue().split())


def test_three_points_and_no_others(done):
    """T1: three points, errors < 1e-10, indices {1, 0, 0}, each certified, and no other in the square."""
    said = done[1]["three_points"]
    assert said["fixed_points_by_unstable_dimensions"] == {"0": 2, "1": 1}
    assert max(said["known"].values()) < 1e-10
    assert all(point["certified"] for point in said["points"])
    assert said["undecided"] == 0


def test_the_ghost_is_no_fixed_point(done):
    """T2: q = a^2 / 4 to 1e-8, the eigenvalue 0 to 1e-4, never FIXED; and the square is proved to hold none at all."""
    _, said, printed = done
    for one in said["family"]["slow"]:
        assert one["q_relative_error"] < 1e-8
        assert abs(one["largest_eigenvalue"]) < 1e-4
    ghost = said["ghost"]
    assert (ghost["n_fixed"], ghost["n_slow"], ghost["undecided"]) == (0, 1, 0)
    assert ghost["points"][0]["no_fixed_point_within"] == 0.01
    assert "a = 0.1: 0 FIXED, 1 SLOW." in printed
    assert "is proved to hold no fixed point." in printed


def test_node_and_saddle_meet(done):
    """One fold at a = 0 to 1e-8; before it x1 = 1/2 +- sqrt(-a), unstable in 0 and 1 dimensions, after it nothing."""
    family = done[1]["family"]
    (event,) = family["events"]
    assert event["kind"] == "fold"
    assert abs(event["a"]) < 1e-8
    # the state at a fold is known to the root of what a is known to
    np.testing.assert_allclose(event["hidden"], 0.5, atol=1e-4)
    x1, path = np.array(family["x1"], float), np.array(family["path"])
    order = np.argsort(x1[:, 0])
    root = np.sqrt(-path[path < 0])
    np.testing.assert_allclose(x1[order][:, path < 0], [0.5 - root, 0.5 + root], atol=1e-9)
    assert np.isnan(x1[:, path > 0]).all()
    assert np.array(family["n_unstable"])[order][:, path < 0].tolist() == [[1] * len(root), [0] * len(root)]
    before = done[1]["before"]
    assert before["fixed_points_by_unstable_dimensions"] == {"0": 1, "1": 1}
    assert max(before["known"].values()) < 1e-10
    assert before["undecided"] == 0


def test_a_point_left_out_is_missed():
    """The proof that there is no other fails where one of the points is taken away: around it, and nowhere else."""
    analysis = report.analyze(
        toys.three_points, None, job.grid(), None, kind="flow", until="all", key=jax.random.key(0), progress=False
    )
    exists = analysis.proof.exists.copy()
    exists[0] = False
    left, _ = job.undecided(toys.three_points, None, analysis.proof._replace(exists=exists))
    assert 0 < left < 1e-6
    with pytest.raises(ValueError, match="1 points are known, 3 were found"):
        job.compare(analysis, toys.known_ghost(0.1))


def test_it_writes_what_it_found(done):
    out, said, _ = done
    names = {"three_points", "before", "ghost"}
    figures = {f"{name}.png" for name in (*names, "saddle_node")}
    assert {file.name for file in out.iterdir()} == {"report.json", *(f"{name}.npz" for name in names), *figures}
    assert said["command"] == "toys"
    assert len(io.load_points(out / "three_points.npz").hidden) == 3
    for name in figures:
        with Image.open(out / name) as image:
            assert image.convert("L").getextrema()[0] < 100  # something is drawn


@pytest.mark.parametrize("a", ["0", "-0.1", "0.3", "nan"])
def test_a_out_of_range_is_one_line(a, tmp_path, capsys):
    assert cli.main(["toys", "--a", a, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("jaxfp: error: --a must be from 0.001 to 0.2")
    assert list(tmp_path.iterdir()) == []
