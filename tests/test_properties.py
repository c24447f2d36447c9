"""Laws that hold for whatever hypothesis comes up with: of deduplication, of files, of the audit."""

import tempfile

import hypothesis
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import jaxfp
from jaxfp import io
from jaxfp.search import dedupe

# The same examples in each run, and no clock: a gate that fails must fail again.
hypothesis.settings.register_profile(
    "gate", derandomize=True, deadline=None, max_examples=60, database=None, print_blob=False
)
hypothesis.settings.load_profile("gate")


# Deduplication


@st.composite
def clouds(draw):
    """Points on a coarse grid, so that many are equal or just as far apart as the tolerance; inputs or none; ties."""
    n_points, n_hidden = draw(st.integers(0, 24)), draw(st.integers(1, 3))
    grid = st.integers(-3, 3).map(lambda i: i / 4)
    hidden = draw(arrays_of.arrays(float, (n_points, n_hidden), elements=grid))
    inputs = draw(st.none() | arrays_of.arrays(float, (n_points, 1), elements=st.sampled_from([0.0, 1.0])))
    q = draw(arrays_of.arrays(float, n_points, elements=st.sampled_from([0.0, 1.0, 2.0])))
    size = draw(st.sampled_from([0.0, 0.2, 0.25, 0.5, 3.0]))
    return hidden, inputs, q, np.full(n_points, size)


@given(clouds(), st.randoms(use_true_random=False))
def test_permuting_points_permutes_the_groups(cloud, random):
    """Which rows represent, and whom, does not depend on the order: equal rows may stand for each other."""
    hidden, inputs, q, tolerance = cloud
    turn = list(range(len(hidden)))
    random.shuffle(turn)
    owner = dedupe.representatives(*cloud)
    turned = dedupe.representatives(hidden[turn], None if inputs is None else inputs[turn], q[turn], tolerance)
    np.testing.assert_array_equal(hidden[turn][turned], hidden[owner][turn])
    np.testing.assert_array_equal(q[turn][turned], q[owner][turn])
    # The same groups, too: two points are together before iff they are together after.
    together = owner[:, None] == owner[None]
    np.testing.assert_array_equal(turned[:, None] == turned[None], together[np.ix_(turn, turn)])


@given(clouds())
def test_deduplication_keeps_to_its_tolerance(cloud):
    """Nobody is merged further than the tolerance or across inputs, none kept could be merged, twice is once."""
    hidden, inputs, q, tolerance = cloud
    owner = dedupe.representatives(*cloud)
    np.testing.assert_array_equal(owner[owner], owner)  # a representative is its own
    away = np.linalg.norm(hidden - hidden[owner], axis=1) if len(hidden) else np.zeros(0)
    assert (away <= tolerance).all()
    assert (q[owner] <= q).all()
    if inputs is not None:
        np.testing.assert_array_equal(inputs[owner], inputs)
    kept = np.unique(owner)
    apart = np.linalg.norm(hidden[kept][:, None] - hidden[kept][None], axis=2) > tolerance[kept][:, None]
    if inputs is not None:
        apart |= (inputs[kept][:, None] != inputs[kept][None]).any(2)
    assert (apart | np.eye(len(kept), dtype=bool)).all()
    again = dedupe.representatives(hidden[kept], None if inputs is None else inputs[kept], q[kept], tolerance[kept])
    np.testing.assert_array_equal(again, np.arange(len(kept)))


@given(clouds(), st.data())
def test_taking_by_a_mask_takes_those_rows(cloud, data):
    """A keep-mask, its indices and two masks one after the other take the same rows, of every column."""
    hidden, inputs, _, _ = cloud
    modes = jaxfp.Linearization(hidden, inputs)  # any result tuple
    keep = data.draw(arrays_of.arrays(bool, len(hidden)))
    taken = jaxfp.take(modes, keep)
    np.testing.assert_array_equal(taken.jacobian, hidden[np.flatnonzero(keep)])
    assert (taken.input_jacobian is None) == (inputs is None)
    np.testing.assert_array_equal(jaxfp.take(modes, np.flatnonzero(keep)).jacobian, taken.jacobian)
    more = data.draw(arrays_of.arrays(bool, int(keep.sum())))
    both = keep.copy()
    both[keep] = more
    np.testing.assert_array_equal(jaxfp.take(taken, more).jacobian, jaxfp.take(modes, both).jacobian)


# Files

DTYPES = st.one_of(
    arrays_of.boolean_dtypes(),
    arrays_of.integer_dtypes(endianness="?"),
    arrays_of.unsigned_integer_dtypes(endianness="?"),
    arrays_of.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    arrays_of.complex_number_dtypes(endianness="?", sizes=(64, 128)),
    arrays_of.unicode_string_dtypes(max_len=5),
    arrays_of.byte_string_dtypes(max_len=5),
    arrays_of.datetime64_dtypes(),
)
ANY_ARRAY = DTYPES.flatmap(
    lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name.isprintable() and name != "provenance")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(NAMES, ANY_ARRAY, max_size=4),
    st.dictionaries(st.text().filter(lambda name: name not in ("schema", "members")), JSON, max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_what_is_saved_is_what_is_loaded(arrays, provenance, compressed, fortran):
    """Every plain dtype, byte order, shape (empty, too), memory order and name; any JSON beside them; to the bit."""
    arrays = {name: np.asarray(array, order="F") if fortran else array for name, array in arrays.items()}
    with tempfile.TemporaryDirectory() as folder:
        io.save(f"{folder}/w.npz", arrays, provenance, compressed=compressed)
        loaded, said = io.load(f"{folder}/w.npz")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
        assert loaded[name].tobytes() == array.tobytes()
    assert said == {"schema": io.SCHEMA, **provenance}


# The audit


@given(
    st.lists(st.floats(-50, 50).filter(lambda a: min(abs(a - 1), abs(a)) > 1e-2), min_size=1, max_size=6),
    st.integers(0, 1000),
)
def test_the_index_sum_of_affine_systems(slopes, seed):
    """One point of h' = A h, A with these eigenvalues in any directions: its index is prod sign(1 - a), or of -a."""
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(slopes), len(slopes))))
    jacobian = (turn * slopes) @ turn.T
    origin = (np.zeros((1, len(slopes))), None)
    assert jaxfp.audit(origin, jacobian[None]).index_sum == np.prod(np.sign(1 - np.array(slopes)))
    assert jaxfp.audit(origin, jacobian[None], kind="flow").index_sum == np.prod(np.sign(-np.array(slopes)))


@given(st.floats(0.1, 4).filter(lambda a: abs(a - 1) > 1e-2), st.floats(-2, 2))
def test_the_index_sum_of_tanh_systems_is_one(slope, offset):
    """All points of h' = tanh(a h + b), by bisection, have indices that sum to +1, sign by sign as 1 - F'."""
    grid = np.linspace(-1.0012, 1.0007, 20_001)  # no point of it is a zero
    r = np.tanh(slope * grid + offset) - grid
    left, right = grid[:-1][r[:-1] * r[1:] < 0], grid[1:][r[:-1] * r[1:] < 0]
    for _ in range(60):
        middle = (left + right) / 2
        below = np.sign(np.tanh(slope * middle + offset) - middle) == np.sign(np.tanh(slope * left + offset) - left)
        left, right = np.where(below, middle, left), np.where(below, right, middle)
    hidden = ((left + right) / 2)[:, None]
    gradients = slope * (1 - np.tanh(slope * hidden + offset) ** 2)
    hypothesis.assume(np.abs(1 - gradients).min() > 1e-3)  # a fold: what has nearly met has no sign
    audit = jaxfp.audit((hidden, None), gradients[:, :, None], bounded=True)
    assert audit.signs.tolist() == np.sign(1 - gradients[:, 0]).astype(int).tolist()
    assert audit.index_sum == audit.expected == 1


@given(
    arrays_of.arrays(float, (5, 2), elements=st.floats(-3, 3)),
    arrays_of.arrays(float, (5, 2, 2), elements=st.floats(-3, 3)),
    st.none() | arrays_of.arrays(float, (5, 1), elements=st.sampled_from([0.0, 0.5, 1.0])),
    st.permutations(range(5)),
)
def test_the_order_of_the_points_plays_no_role_in_the_audit(hidden, jacobians, inputs, turn):
    """Index sums and counts are those of the set; signs and rows turn together."""
    audit = jaxfp.audit((hidden, inputs), jacobians)
    turned = jaxfp.audit((hidden[turn], None if inputs is None else inputs[turn]), jacobians[turn])
    assert turned.index_sums == audit.index_sums
    assert turned.signs.tolist() == audit.signs[turn].tolist()
    assert (turned.n_fixed, turned.complete, turned.summary()) == (audit.n_fixed, audit.complete, audit.summary())
