"""Every interval operation holds the true value, which rationals and mpmath know; what is said to be exact is exact."""

import itertools
import math
from fractions import Fraction

import jax
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp

from jaxfp.proof import interval, rules
from jaxfp.proof.interval import Interval

LARGEST = np.finfo(float).max
SMALLEST = 5e-324
CHECKED = settings(max_examples=60, derandomize=True, deadline=None)
finite = st.floats(allow_nan=False, allow_infinity=False)
moderate = st.floats(-1e9, 1e9)
RNG = np.random.default_rng(0)


def _logistic(x):
    return 1 / (1 + mp.exp(-x))


def _cbrt(x):
    return mp.sign(x) * mp.cbrt(abs(x))


# What each primitive means, and where it is tried.
EVERYWHERE, POSITIVE = (-LARGEST, LARGEST), (SMALLEST, LARGEST)
ELEMENTARY = {
    "tanh": (mp.tanh, EVERYWHERE),
    "logistic": (_logistic, (-720.0, LARGEST)),
    "tanh_slope": (lambda x: mp.sech(x) ** 2, EVERYWHERE),
    "logistic_slope": (lambda x: mp.sech(x / 2) ** 2 / 4, EVERYWHERE),
    "exp": (mp.exp, (-745.0, 709.7)),
    "exp2": (lambda x: mp.mpf(2) ** x, (-1074.0, 1023.9)),
    "expm1": (mp.expm1, (-LARGEST, 709.7)),
    "log": (mp.log, POSITIVE),
    "log1p": (mp.log1p, (-1 + 2**-53, LARGEST)),
    "sin": (mp.sin, (-1e6, 1e6)),
    "cos": (mp.cos, (-1e6, 1e6)),
    "sinh": (mp.sinh, (-710.0, 710.0)),
    "cosh": (mp.cosh, (-710.0, 710.0)),
    "asinh": (mp.asinh, EVERYWHERE),
    "atan": (mp.atan, EVERYWHERE),
    "erf": (mp.erf, EVERYWHERE),
    "sqrt": (mp.sqrt, (0.0, LARGEST)),
    "cbrt": (_cbrt, EVERYWHERE),
    "square": (lambda x: x**2, (-1e154, 1e154)),
    "rsqrt": (lambda x: 1 / mp.sqrt(x), POSITIVE),
    "erfc": (mp.erfc, (-1e9, 1e9)),
    "abs": (abs, EVERYWHERE),
    "neg": (lambda x: -x, EVERYWHERE),
}


@pytest.fixture(autouse=True)
def _sixty_digits():
    with mp.workdps(60), np.errstate(all="ignore"):
        yield


def rule(name, *xs):
    params = {"rounding_method": jax.lax.RoundingMethod.AWAY_FROM_ZERO}
    return rules.RULES[name](*([False] if name in rules.JUMPS else []), params, *xs)


def wide_range(lowest, highest, n):
    """Numbers of every size between two, with both ends, 0, denormals and multiples of pi / 2 where they fit."""
    sizes = np.concatenate([10.0 ** RNG.uniform(-320, 308.2, n), RNG.uniform(0, 50, n), 10.0 ** RNG.uniform(-3, 3, n)])
    turns = np.pi / 2 * np.concatenate([np.arange(8), RNG.integers(0, 600_000, n // 4)])
    near = np.concatenate([np.nextafter(turns, np.inf), turns, [0.0, SMALLEST, 2.3e-308, 1e-300, 1e-155]])
    x = np.concatenate([sizes, near, -sizes, -near, 1 + 10.0 ** RNG.uniform(-16, -1, n), [lowest, highest]])
    return x[(x >= lowest) & (x <= highest)]


def holds(x, exact, at=()):
    """Does it hold the exact number? NaN, nothing known, is no error."""
    low, high = float(x.lower[at]), float(x.upper[at])
    if math.isnan(low) or math.isnan(high):
        return True
    low, high = (Fraction(end) if math.isfinite(end) and isinstance(exact, Fraction) else end for end in (low, high))
    return (low == -math.inf or low <= exact) and (high == math.inf or exact <= high)


@pytest.mark.parametrize("name", sorted(ELEMENTARY))
def test_half_of_the_error_assumed_is_enough(monkeypatch, name):
    """Over the whole range, denormals and thresholds of overflow included, 4 of 8 units in the last place would do."""
    monkeypatch.setattr(interval, "ULPS", 4)
    exact, (lowest, highest) = ELEMENTARY[name]
    x = wide_range(lowest, highest, 300)
    out = rule(name, interval.thin(x))
    assert [t for i, t in enumerate(x.tolist()) if not holds(out, exact(mpmath.mpf(t)), i)] == []
    assert np.isfinite(out).all()


@pytest.mark.parametrize("exponent", [3, 5, 9, -2, 0.37, -6.3])
def test_half_of_the_error_assumed_is_enough_for_powers(monkeypatch, exponent):
    monkeypatch.setattr(interval, "ULPS", 4)
    x = wide_range(1e-30, 1e30, 200)
    out = interval.power(interval.thin(x), interval.thin(exponent))
    exact = [mpmath.mpf(t) ** mpmath.mpf(exponent) for t in x.tolist()]
    assert [t for i, t in enumerate(x.tolist()) if not holds(out, exact[i], i)] == []


@pytest.mark.parametrize("name", sorted(ELEMENTARY))
@CHECKED
@given(
    ends=st.lists(st.tuples(finite, finite, st.floats(0, 1)), min_size=1, max_size=6), scale=st.sampled_from([1, 1e-3])
)
def test_values_over_an_interval_are_held(name, ends, scale):
    """The value at both ends and at a point between them, for intervals of any position and width."""
    exact, (lowest, highest) = ELEMENTARY[name]
    squeezed = np.array([[a, b] for a, b, _ in ends])
    squeezed = np.where(scale == 1, squeezed, scale * np.sign(squeezed) * np.log1p(np.abs(squeezed)))
    x = np.sort(np.clip(squeezed, lowest, highest), axis=1)
    points = [
        (low, high, min(max(low, low * (1 - t) + high * t), high))
        for (low, high), (_, _, t) in zip(x, ends, strict=True)
    ]
    out = rule(name, Interval(x[:, 0], x[:, 1]))
    assert all(holds(out, exact(mpmath.mpf(p)), i) for i, three in enumerate(points) for p in map(float, three))
    assert not (out.lower > out.upper).any()


@CHECKED
@given(x=st.tuples(finite, finite), y=st.tuples(finite, finite), small=st.booleans())
def test_sums_products_and_quotients_are_held(x, y, small):
    """Against rationals, every pair of ends; division by an interval around 0 is unbounded."""
    x, y = (np.sort(np.array(ends) * (1e-300 if small else 1.0)) for ends in (x, y))
    a, b = Interval(x[:1], x[1:]), Interval(y[:1], y[1:])
    operations = {
        "add": Fraction.__add__,
        "sub": Fraction.__sub__,
        "mul": Fraction.__mul__,
        "div": Fraction.__truediv__,
    }
    for name, operation in operations.items():
        out = rule(name, a, b)
        for s, t in itertools.product(map(Fraction, x.tolist()), map(Fraction, y.tolist())):
            assert (name == "div" and t == 0) or holds(out, operation(s, t), 0)
        thin = rule(name, interval.thin(x[:1]), interval.thin(y[:1]))
        if name != "div" or y[0]:
            assert holds(thin, operation(Fraction(float(x[0])), Fraction(float(y[0]))), 0)


@CHECKED
@given(x=st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), y=st.tuples(st.floats(-9, 9), st.floats(-9, 9)))
def test_powers_are_held(x, y):
    x, y = np.sort(x), np.sort(y)
    out = interval.power(Interval(x[0], x[1]), Interval(y[0], y[1]))
    assert all(holds(out, mpmath.mpf(float(s)) ** mpmath.mpf(float(t))) for s, t in itertools.product(x, y))


@CHECKED
@given(x=st.tuples(moderate, moderate), n=st.integers(-7, 8), t=st.floats(0, 1))
def test_integer_powers_are_held(x, n, t):
    """Of either sign, also written as a floating exponent that is one integer."""
    x = np.sort(x)
    points = [*x, min(max(x[0], x[0] * (1 - t) + x[1] * t), x[1])]
    for out in (
        interval.integer_pow(Interval(x[0], x[1]), n),
        interval.power(Interval(x[0], x[1]), interval.thin(float(n))),
    ):
        assert all(holds(out, Fraction(float(p)) ** n) for p in points if p or n >= 0)


@CHECKED
@given(x=st.lists(st.tuples(finite, st.floats(0, 1e300)), min_size=1, max_size=7))
def test_sums_along_an_axis_are_held(x):
    x = np.array(x) / 8
    box = Interval(x[:, 0], x[:, 0] + x[:, 1])
    lows, highs = ([Fraction(v) for v in end.tolist()] for end in box)
    whole, running = interval.total(box, (0,)), interval.running_total(box, 0)
    assert holds(whole, sum(lows))
    assert holds(whole, sum(highs))
    for k in range(len(x)):
        assert holds(running, sum(lows[: k + 1]), k)
        assert holds(running, sum(highs[: k + 1]), k)


def test_long_sums_that_cancel_are_held():
    """The error of 400 additions is more than the rounding of the last: 100 sums whose terms nearly cancel."""
    x = RNG.normal(size=(100, 400)) * 10.0 ** RNG.uniform(-6, 6, (100, 400))
    x[:, 200:] = -x[:, 199::-1] * (1 + 1e-13)
    whole, running = interval.total(interval.thin(x), (1,)), interval.running_total(interval.thin(x), 1)
    for i, row in enumerate(x.tolist()):
        exact = list(itertools.accumulate(map(Fraction, row)))
        assert holds(whole, exact[-1], i)
        assert all(holds(running, total, (i, k)) for k, total in enumerate(exact))


@pytest.mark.parametrize("scale", [0, 30, 150])
@pytest.mark.parametrize("width", [0.0, 1e-12, 1.0])
def test_matrix_products_are_held(scale, width):
    """Against rationals at every pair of ends, entries of all sizes and signs, cancellation included."""
    a, b = (RNG.normal(size=s) * 10.0 ** RNG.uniform(-scale, scale, s) for s in ((20, 3, 5), (20, 5, 2)))
    a[:, :, 4], b[:, 4] = a[:, :, 0], -b[:, 0]  # cancels
    a[:, :, 3] = np.where(RNG.uniform(size=(20, 3)) < 0.5, 0.0, a[:, :, 3])
    boxes = [Interval(m - width * np.abs(m), m + width * np.abs(m)) if width else interval.thin(m) for m in (a, b)]
    out = interval.matmul(*boxes)
    for ends in itertools.product((0, 1), repeat=2):
        (s, t) = (np.vectorize(Fraction, otypes=[object])(box[end]) for box, end in zip(boxes, ends, strict=True))
        exact = (s[..., None] * t[:, None]).sum(axis=2)
        assert all(holds(out, exact[at], at) for at in np.ndindex(exact.shape))
    assert width or (out.upper - out.lower <= 1e-14 * (np.abs(a) @ np.abs(b)) + 1e-298).all()


def test_a_matrix_product_with_endless_and_unknown_entries():
    """An infinite end times a weight of 0 is 0; times another weight it is unbounded; what is unknown stays unknown."""
    endless = Interval(np.array([[0.0, 1.0]]), np.array([[np.inf, 1.0]]))
    unknown = Interval(np.array([[np.nan, 1.0]]), np.array([[np.nan, 1.0]]))
    weights = interval.thin(np.array([[0.0, 2.0], [3.0, 3.0]]))
    out = interval.matmul(endless, weights)
    assert out.lower[0, 0] == pytest.approx(3, abs=1e-14)
    assert out.upper[0].tolist() == [pytest.approx(3, abs=1e-14), np.inf]
    for found in (
        interval.matmul(unknown, weights),
        Interval(
            *(
                m.swapaxes(0, 1)
                for m in interval.matmul(
                    Interval(weights.lower.T, weights.upper.T), Interval(unknown.lower.T, unknown.upper.T)
                )
            )
        ),
    ):
        assert np.isfinite([found.lower[0, 0], found.upper[0, 0]]).all()
        assert np.isnan([found.lower[0, 1], found.upper[0, 1]]).all()


def test_what_is_exact_stays_exact():
    """Sums without error, products with 0, 1 and -1, squares of nothing: the proofs of boxes need 1 to stay 1."""
    one, three, tenth = (interval.thin(np.array([x])) for x in (1.0, 3.0, 0.1))
    endless = Interval(np.array([-np.inf]), np.array([np.inf]))
    for out, value in [
        (interval.add(one, three), 4.0),
        (interval.sub(one, three), -2.0),
        (interval.mul(interval.neg(one), tenth), -0.1),
        (interval.mul(interval.thin(np.zeros(1)), endless), 0.0),
        (interval.mul(endless, interval.sub(one, one)), 0.0),
    ]:
        assert out.lower.tolist() == out.upper.tolist() == [value]
    rounded = interval.add(tenth, three)
    assert rounded.lower[0] < rounded.upper[0]
    assert Fraction(rounded.lower[0]) < Fraction(0.1) + 3 < Fraction(rounded.upper[0])


@CHECKED
@given(x=finite)
def test_rounded_outward_by_at_least_one_neighbor(x):
    x = np.array([x])
    assert (interval.down(x) <= np.nextafter(x, -np.inf)).all()
    assert (interval.up(x) >= np.nextafter(x, np.inf)).all()
    assert (interval.up(x) - x <= 2 * np.spacing(np.abs(x)) + 1e-300).all()


def test_division_by_an_interval_around_0_is_unbounded_and_keeps_what_is_unknown():
    """A jump divided by 0 was once bounded again by the next tanh: a certificate of a point that was none."""
    around = Interval(np.array([-1.0]), np.array([2.0]))
    assert [end.tolist() for end in interval.div(interval.thin(np.ones(1)), around)] == [[-np.inf], [np.inf]]
    unknown = interval.thin(np.full(1, np.nan))
    assert np.isnan(interval.div(unknown, around)).all()
    assert np.isnan(interval.div(Interval(np.zeros(1), unknown.lower), interval.thin(np.zeros(1)))).all()


@pytest.mark.parametrize("shift", [-300_001, -3, 0, 2, 77])
def test_cosine_and_sine_know_their_extremes(shift):
    """1 and -1 are reached where a multiple of pi lies inside, and only there."""
    turn = shift * np.pi
    top = interval.cosine(Interval(turn - 0.1, turn + 0.2))
    sign = 1 - 2 * (shift % 2)
    assert (top.upper if sign > 0 else -top.lower) == 1
    assert sign * (top.lower if sign > 0 else top.upper) == pytest.approx(math.cos(0.2), abs=1e-9)
    aside = interval.cosine(Interval(turn + 0.1, turn + 0.2))
    assert max(np.abs(aside)) < math.cos(0.1) + 1e-9
    full = interval.sine(Interval(turn - 1.0, turn + 6.0))
    assert (full.lower, full.upper) == (-1, 1)
    assert interval.cosine(Interval(np.array(-np.inf), np.array(3.0))) == (-1, 1)


def test_cosine_far_out_is_between_minus_1_and_1():
    far = interval.cosine(interval.thin(np.array([1e7, -1e300])))
    assert (far.lower == -1).all()
    assert (far.upper == 1).all()


@pytest.mark.parametrize(("name", "top"), [("tanh_slope", 1.0), ("logistic_slope", 0.25)])
def test_slopes_are_largest_at_0_and_vanish_far_out(name, top):
    out = rule(name, Interval(np.array([-1e308, 800.0, -2.0]), np.array([3.0, np.inf, -1.0])))
    assert out.upper[0] == top
    assert out.lower[:2].tolist() == [0, 0]
    assert out.upper[1] <= (1e-299 if name == "tanh_slope" else 1e-280)
    assert 0 < out.lower[2] < out.upper[2] < top


def test_ranges_are_kept():
    """However wide the argument: tanh within [-1, 1], the logistic function and exp above 0."""
    wide = Interval(np.array([-np.inf, 30.0]), np.array([np.inf, 40.0]))
    for name, low, high in [("tanh", -1, 1), ("logistic", 0, 1), ("erf", -1, 1)]:
        out = rule(name, wide)
        assert (out.lower >= low).all()
        assert (out.upper <= high).all()
    assert rule("exp", Interval(np.array([-1e9]), np.array([-1e3]))).lower == 0


@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "eq", "ne"])
def test_comparisons_are_decided_only_where_all_values_agree(name):
    compare = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal}
    compare = compare.get(name, np.not_equal)
    ends = [(a, b) for a in range(4) for b in range(a, 4)]
    for (a, b), (c, d) in itertools.product(ends, repeat=2):
        values = {bool(compare(s, t)) for s in np.arange(a, b + 0.5, 0.5) for t in np.arange(c, d + 0.5, 0.5)}
        x, y = (Interval(np.array([float(low)]), np.array([float(high)])) for low, high in ((a, b), (c, d)))
        out = rules.as_interval(rule(name, x, y))
        assert {bool(out.lower[0]), bool(out.upper[0])} == values
    unknown = interval.thin(np.full(1, np.nan))
    out = rule(name, unknown, interval.thin(np.zeros(1)))
    assert (out.lower.tolist(), out.upper.tolist()) == ([False], [True])


@pytest.mark.parametrize("name", ["sign", "floor", "ceil", "round"])
def test_what_jumps_is_unknown_across_the_jump(name):
    """In F; in the Jacobian it is the hull, since the slopes on both sides bound the difference."""
    across, beside = Interval(np.array([-0.6]), np.array([0.6])), Interval(np.array([0.6]), np.array([0.9]))
    params = {"rounding_method": jax.lax.RoundingMethod.TO_NEAREST_EVEN}
    function = {"sign": np.sign, "floor": np.floor, "ceil": np.ceil, "round": np.round}[name]
    assert np.isnan(rules.RULES[name](False, params, across)).all()
    assert [e.tolist() for e in rules.RULES[name](False, params, beside)] == [[function(0.7)]] * 2
    assert [e.tolist() for e in rules.RULES[name](True, params, across)] == [[function(-0.6)], [function(0.6)]]


def test_halves_are_rounded_as_jax_rounds_them():
    x = np.array([-2.5, -0.5, 0.5, 1.5, 2.5, 0.49999999999999994])
    for method in jax.lax.RoundingMethod:
        with jax.enable_x64(True):
            expected = np.asarray(jax.lax.round(x, method))
        np.testing.assert_array_equal(
            rules.RULES["round"](False, {"rounding_method": method}, interval.thin(x)).lower, expected
        )
