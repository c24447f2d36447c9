import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfp
from jaxfp.search import candidates as seeding

STATES = np.random.default_rng(0).normal(size=(4, 6, 3))


def test_candidates_are_states(key):
    """Without noise every candidate is one of the states, and many draws visit all of them."""
    drawn = jaxfp.sample_candidates(key, STATES, 500)
    rows = {tuple(row) for row in STATES.reshape(-1, 3)}
    assert {tuple(row) for row in drawn} == rows


def test_noise_has_the_standard_deviation_asked_for(key):
    """Noise is Gaussian: mean 0, standard deviation 0.5, kurtosis 3, independent between units."""
    noise = np.asarray(jaxfp.sample_candidates(key, jnp.zeros((1, 3)), 20_000, 0.5))
    # Five standard errors of 60,000 draws: sd / sqrt(2 n), and sqrt(24 / n) for the kurtosis.
    assert noise.std() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(120_000))
    assert abs(noise.mean()) < 5 * 0.5 / np.sqrt(60_000)
    assert np.mean((noise / 0.5) ** 4) == pytest.approx(3, abs=5 * np.sqrt(24 / 60_000))
    assert abs(np.corrcoef(noise.T) - np.eye(3)).max() < 5 / np.sqrt(20_000)


@pytest.mark.parametrize("wide", [False, True])
def test_candidates_keep_dtype_and_do_not_depend_on_x64(key, wide):
    """Float64 NumPy stays float64 NumPy with x64 off, float32 stays float32, and the draws are the same numbers."""
    expected = jaxfp.sample_candidates(key, STATES, 7, 0.1)
    with jax.enable_x64(wide):
        drawn = jaxfp.sample_candidates(key, STATES, 7, 0.1)
        narrow = jaxfp.sample_candidates(key, jnp.asarray(STATES, jnp.float32), 7, 0.1)
    assert isinstance(drawn, np.ndarray)
    assert drawn.dtype == np.float64
    assert narrow.dtype == np.float32
    np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_allclose(narrow, expected, atol=1e-6)
    other = jaxfp.sample_candidates(jax.random.key(1), STATES, 7, 0.1)
    assert abs(other - expected).max() > 0.1


def test_candidates_can_be_drawn_inside_jit(key):
    """sample_candidates is traceable: under jit it draws what it draws eagerly."""
    states = jnp.asarray(STATES, jnp.float32)
    jitted = jax.jit(lambda k, s: jaxfp.sample_candidates(k, s, 5, 0.1))(key, states)
    np.testing.assert_allclose(jitted, jaxfp.sample_candidates(key, states, 5, 0.1), rtol=1e-6)


@pytest.mark.parametrize(
    ("states", "n_candidates", "noise", "wanted"),
    [
        (np.zeros(3), 1, 0.0, r"\(..., n_hidden\)"),
        (np.zeros((2, 3), int), 1, 0.0, "floating"),
        (np.zeros((0, 3)), 1, 0.0, "at least one state"),
        (np.zeros((2, 3)), -1, 0.0, "negative"),
        (np.zeros((2, 3)), 1, -0.1, "0 or more"),
    ],
)
def test_bad_states_are_refused(key, states, n_candidates, noise, wanted):
    """States without a state axis, not floating or empty, and negative numbers, raise ValueError."""
    with pytest.raises(ValueError, match=wanted):
        jaxfp.sample_candidates(key, states, n_candidates, noise)


def test_only_typed_keys():
    """Legacy uint32 keys, batches of keys and integers raise ValueError that names jax.random.key."""
    for bad in (jax.random.PRNGKey(0), jax.random.split(jax.random.key(0)), 0, np.zeros(2, np.uint32)):
        with pytest.raises(ValueError, match=r"jax\.random\.key\(seed\)"):
            jaxfp.sample_candidates(bad, STATES, 1)


SADDLES, UNSTABLE = 5 * np.eye(10)[:2], np.stack([np.diag(np.eye(10)[8]), np.diag(np.eye(10)[9])])


@pytest.fixture(scope="module")
def mixtures():
    """Mixtures of ten attractors and two saddles at multiples of unit vectors: a mixture shows its own weights."""
    return seeding.seed_candidates(jax.random.key(0), 1536, np.eye(10), SADDLES, UNSTABLE, 1e-9)[0]


def test_a_third_of_the_seeds_are_means_of_2_4_8_and_all_attractors(mixtures):
    """Weights are 1/2, 1/4, 1/8 or 1/10 of that many attractors, each size about as often."""
    assert mixtures.dtype == np.float64
    assert mixtures.shape == (1024, 10)
    ours = mixtures[:512]
    np.testing.assert_allclose(ours.sum(1), 1, atol=1e-8)  # the noise here is 1e-10 a unit
    sizes = (ours > 0.05).sum(1)
    for row, size in zip(ours, sizes, strict=True):
        np.testing.assert_allclose(np.sort(row)[-size:], 1 / size, atol=1e-8)
    found, counts = np.unique(sizes, return_counts=True)
    assert found.tolist() == [2, 4, 8, 10]
    assert abs(counts - 128).max() < 5 * np.sqrt(512 * 0.25 * 0.75)
    assert len({tuple(np.flatnonzero(row > 0.05)) for row in ours[sizes == 2]}) > 35  # of the 45 pairs


def test_a_third_are_means_of_2_or_4_points_saddles_too(mixtures):
    """The second third mixes all twelve points: the saddles at 5 e_0 and 5 e_1 stand out in about as many as chance."""
    theirs = mixtures[512:]
    with_saddle = (theirs[:, :2] > 1.2).any(1)  # 5/4 at least, an attractor gives at most 1/2
    chance = 0.5 * (1 - (10 * 9) / (12 * 11)) + 0.5 * (1 - (10 * 9 * 8 * 7) / (12 * 11 * 10 * 9))
    assert abs(with_saddle.mean() - chance) < 5 * np.sqrt(chance * (1 - chance) / 512)


def test_pairs_of_a_cube_are_its_edges():
    """Extremal pairs of the corners of a cube are neighbors, where random pairs mostly are diagonals: 12 of 28."""
    corners = np.array([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)])
    seeds, _ = seeding.seed_candidates(jax.random.key(0), 600, corners, np.zeros((0, 3)), np.zeros((0, 3, 3)), 0.0)
    extremal = seeds[:300].round(6)
    n_zeros = (extremal == 0).sum(1)  # the middle of an edge has one, of a face two, of the cube three
    assert len({tuple(row) for row in extremal[n_zeros == 1]}) == 12
    assert len({tuple(row) for row in extremal[n_zeros == 2]}) == 6
    assert (n_zeros == 2).sum() > 10  # random sets of four are faces in 6 of 70


def test_a_third_steps_off_the_saddles_both_ways():
    """Steps stay in the unstable span, no longer than `scale`, and go both ways from every saddle."""
    steps = seeding.seed_candidates(jax.random.key(0), 384, np.eye(10), SADDLES, UNSTABLE, 0.25)[1]
    assert len(steps) == 128
    which = steps[:, :2].argmax(1)
    move = steps - SADDLES[which]
    for saddle in (0, 1):
        along = move[which == saddle][:, 8 + saddle]
        assert (along > 0).any()
        assert (along < 0).any()
        assert 0.2 < abs(along).max() <= 0.25
        assert len(along) > 40
    move[np.arange(len(move)), 8 + which] = 0
    np.testing.assert_allclose(move, 0, atol=1e-15)


def test_seeds_depend_on_the_key_alone():
    """The same key gives the same seeds, another key others; without saddles all are mixtures."""
    one = np.eye(3)
    none = np.zeros((0, 3)), np.zeros((0, 3, 3))
    first, second, other = (seeding.seed_candidates(jax.random.key(k), 8, one, *none, 0.0)[0] for k in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert abs(first - other).max() > 0.1
    np.testing.assert_allclose(first.sum(1), 1, rtol=1e-15)
