"""Cycles have the period, the place and the multipliers that closed forms give them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import systems

import jaxfp
from jaxfp.analysis import cycles


def logistic(r, hidden, inputs):
    return r * hidden * (1 - hidden)


def steered(params, hidden, inputs):
    """The logistic map with r from the input."""
    return inputs[0] * hidden * (1 - hidden)


def hopf(params, hidden, inputs):
    """Flow z' = (mu + i w) z - |z|^2 z (Stuart-Landau): radius sqrt(mu), period 2 pi / w, multiplier exp(-2 mu T)."""
    mu, w = params["mu"], params["w"]
    return (mu - hidden @ hidden) * hidden + w * jnp.stack([-hidden[1], hidden[0]])


def euler_hopf(params, hidden, inputs):
    """Its Euler steps, a map of its own."""
    return hidden + params["dt"] * hopf(params, hidden, inputs)


def driven_hopf(params, hidden, inputs):
    return hopf({"mu": 0.25, "w": inputs[0]}, hidden, None)


def van_der_pol(mu, hidden, inputs):
    x, y = hidden
    return jnp.stack([y, mu * (1 - x**2) * y - x])


STARTS = np.linspace(0.05, 0.95, 19)[:, None]


def test_logistic_2_cycle():
    """States (r + 1 +- sqrt((r - 3)(r + 1))) / 2 r, multiplier 4 + 2 r - r^2."""
    r = 3.2
    found = jaxfp.find_cycles(logistic, r, STARTS, 2)
    assert found.period.tolist()[-1] == 2
    assert (found.period == 2).sum() == 1
    wanted = (r + 1 + np.array([-1, 1]) * np.sqrt((r - 3) * (r + 1))) / (2 * r)
    np.testing.assert_allclose(np.sort(found.hidden[-1, :, 0]), wanted, atol=1e-14)
    np.testing.assert_allclose(found.multipliers[-1], [4 + 2 * r - r**2], atol=1e-12)
    fixed = found.hidden[found.period == 1]  # 0 and 1 - 1/r also come back after two steps
    assert {*fixed[:, 0, 0].round(10)} <= {0.0, round(1 - 1 / r, 10)}
    np.testing.assert_array_equal(fixed[:, 0], fixed[:, 1])


def test_a_4_cycle_that_is_a_2_cycle_is_said_to_be_one():
    r = 3.5
    found = jaxfp.find_cycles(logistic, r, STARTS, 4)
    assert {1, 2, 4} >= {*found.period.tolist()} >= {2, 4}
    assert (np.bincount(found.period)[[2, 4]] == 1).all()  # each once, whichever state the search began with
    two, four = found.hidden[found.period == 2][0], found.hidden[found.period == 4][0]
    np.testing.assert_allclose(two[:2], two[2:], atol=1e-12)
    np.testing.assert_allclose(logistic(r, four, None), np.roll(four, -1, axis=0), atol=1e-14)
    slopes = np.prod(r * (1 - 2 * four[:, 0]))
    np.testing.assert_allclose(found.multipliers[found.period == 4], [[slopes]], atol=1e-12)
    np.testing.assert_allclose(found.multipliers[found.period == 2], [[4 + 2 * r - r**2]], atol=1e-12)


def test_chaotic_logistic_has_the_3_cycles_it_must():
    """At r = 4, x = sin^2(a) with a = pi m / 7 and pi m / 9: two 3-cycles, multipliers 8 and -8."""
    found = jaxfp.find_cycles(logistic, 4.0, np.linspace(0.01, 0.99, 60)[:, None], 3)
    three = found.period == 3
    assert sorted(found.multipliers[three].real.ravel().round(6)) == [-8.0, 8.0]
    wanted = np.sort(np.sin(np.pi * np.array([[1, 2, 3], [1, 2, 4]]) / [[7], [9]]) ** 2, axis=1)
    found_states = np.sort(found.hidden[three][:, :, 0], axis=1)
    np.testing.assert_allclose(
        found_states[np.argsort(found_states[:, 0])], wanted[np.argsort(wanted[:, 0])], atol=1e-12
    )


def test_each_input_has_its_own_cycle():
    inputs = np.array([[3.1], [3.2], [3.3]])
    found = jaxfp.find_cycles(steered, None, np.full((3, 1), 0.4), 2, inputs)
    two = found.period == 2
    r = np.sort(found.inputs[two, 0])
    np.testing.assert_array_equal(r, inputs[:, 0])
    np.testing.assert_allclose(np.sort(found.multipliers[two, 0].real), np.sort(4 + 2 * r - r**2), atol=1e-12)


@pytest.mark.parametrize("n", [3, 4])
def test_tanh_suite(n):
    """FixedPointFinder's networks: what comes back after two steps solves the equations, and fixed points are told."""
    w = systems.suite_weights(n)
    candidates = np.random.default_rng(n).uniform(-1, 1, size=(64, n))
    found = jaxfp.find_cycles(systems.tanh_row, w, candidates, 2)
    moved = np.tanh(found.hidden @ w)
    np.testing.assert_allclose(moved, np.roll(found.hidden, -1, axis=1), atol=1e-13)
    apart = np.abs(found.hidden[:, 0] - found.hidden[:, 1]).max(axis=1)
    np.testing.assert_array_equal(found.period == 1, apart < 1e-6)
    assert (found.period == 2).any()
    for orbit, values in zip(found.hidden[found.period == 2], found.multipliers[found.period == 2], strict=True):
        one, two = ((1 - np.tanh(h @ w) ** 2)[:, None] * w.T for h in orbit)
        np.testing.assert_allclose(np.sort_complex(values), np.sort_complex(np.linalg.eigvals(two @ one)), atol=1e-12)


def test_multipliers_of_a_long_product_keep_their_digits():
    """Sixty Jacobians whose product loses everything but its largest multiplier."""
    rng = np.random.default_rng(0)
    bases = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(60)]
    bases.append(bases[0])
    chain = np.stack([b @ np.diag([1.01, 0.9, 1e-3]) @ a.T for a, b in itertools.pairwise(bases)])
    wanted = np.array([1.01, 0.9, 1e-3]) ** 60
    np.testing.assert_allclose(jaxfp.floquet_multipliers(chain), wanted, rtol=1e-9)
    product = np.linalg.eigvals(np.linalg.multi_dot(chain[::-1]))
    assert np.abs(np.sort(np.abs(product))[0] / wanted[2] - 1) > 0.1  # the control: what everybody does


def test_multipliers_of_a_pair():
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    values = jaxfp.floquet_multipliers(np.stack([0.9 * turn] * 5))
    np.testing.assert_allclose(np.sort_complex(values), 0.9**5 * np.exp(1j * np.array([-1.5, 1.5])), atol=1e-14)


def test_stuart_landau():
    params = {"mu": 0.25, "w": 1.3}
    found = jaxfp.find_limit_cycles(hopf, params, np.array([[0.1, 0.0], [0.0, 0.0], [2.0, 1.0]]), dt=0.05, kind="flow")
    period = 2 * np.pi / 1.3
    np.testing.assert_allclose(found.period, [period], atol=1e-9)
    assert found.period_error[0] < 1e-9
    np.testing.assert_allclose(found.multipliers[0], [1, np.exp(-2 * 0.25 * period)], atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(found.hidden[0], axis=1), 0.5, atol=1e-9)
    assert found.cycle_of_candidate.tolist() == [0, -1, 0]  # the fixed point is no cycle
    assert found.n_hits.tolist() == [2]


def test_unstable_limit_cycle_from_a_guess():
    """Time reversed, the cycle repels; no simulation finds it."""
    params = {"mu": 0.25, "w": 1.3}

    def reversed_(params, hidden, inputs):
        return -hopf(params, hidden, inputs)

    near = np.array([[0.503, 0.0]])
    found = jaxfp.find_limit_cycles(reversed_, params, near, dt=0.05, kind="flow", period=4.82)
    period = 2 * np.pi / 1.3
    np.testing.assert_allclose(found.period, [period], atol=1e-9)
    np.testing.assert_allclose(found.multipliers[0].real, [np.exp(2 * 0.25 * period), 1], rtol=1e-8)


def test_van_der_pol():
    found = jaxfp.find_limit_cycles(van_der_pol, 1.0, np.array([[0.1, 0.0]]), dt=0.02, kind="flow")
    np.testing.assert_allclose(found.period, [6.663286859], atol=2e-9)
    assert found.period_error[0] < 1e-8
    np.testing.assert_allclose(found.multipliers[0, 0], 1, atol=1e-8)


def test_invariant_circle_of_a_map_is_the_maps_own():
    """Euler steps z (1 + dt (mu - r^2 + i w)): |.| = 1 on the circle, which turns by arctan2(dt w, .) a step."""
    dt, mu, w = 0.05, 0.25, 1.3
    found = jaxfp.find_limit_cycles(euler_hopf, {"mu": mu, "w": w, "dt": dt}, np.array([[0.1, 0.0]]), dt=dt)
    real = np.sqrt(1 - (dt * w) ** 2)  # 1 + dt (mu - r^2)
    rho = np.arctan2(dt * w, real)
    np.testing.assert_allclose(found.period, [2 * np.pi * dt / rho], rtol=1e-11)
    np.testing.assert_allclose(np.sum(found.hidden[0] ** 2, axis=1), mu - (real - 1) / dt, rtol=1e-11)
    growth = 1 - 2 * dt * (mu - (real - 1) / dt) * real  # d|z'|/d|z| on the circle
    np.testing.assert_allclose(found.multipliers[0].real, [1, growth ** (2 * np.pi / rho)], rtol=1e-8)
    assert abs(found.period[0] - 2 * np.pi / w) > 1e-3  # the flow's is another


def test_each_input_has_its_own_limit_cycle():
    inputs = np.array([[0.8], [1.0], [1.5]])
    found = jaxfp.find_limit_cycles(driven_hopf, None, np.full((3, 2), 0.3), inputs, dt=0.05, kind="flow")
    np.testing.assert_allclose(found.period, 2 * np.pi / inputs[:, 0], rtol=1e-9)
    np.testing.assert_array_equal(found.inputs, inputs)


def test_no_cycle_is_an_empty_result():
    found = jaxfp.find_limit_cycles(hopf, {"mu": -0.1, "w": 1.0}, np.ones((2, 2)), dt=0.05, kind="flow")
    assert found.hidden.shape == (0, 8, 2)
    assert found.cycle_of_candidate.tolist() == [-1, -1]


def test_lyapunov_exponents():
    """It is ln 2 of the logistic map at r = 4; ln |eigenvalue| of a linear map; Re eigenvalue of a linear flow."""
    chaos = jaxfp.lyapunov_exponents(logistic, 4.0, np.array([0.3456]), n_time=20_000)
    np.testing.assert_allclose(chaos, [np.log(2)], atol=1e-3)
    matrix = np.array([[0.5, 1.0, 0.0], [0.0, -1.2, 0.3], [0.0, 0.0, 0.1]])
    linear = {"A": matrix, "b": np.zeros(3)}
    exponents = jaxfp.lyapunov_exponents(systems.affine, linear, np.zeros(3), n_time=200)
    np.testing.assert_allclose(exponents, np.log([1.2, 0.5, 0.1]), atol=1e-9)
    driven = linear | {"B": np.ones((3, 1))}
    first = jaxfp.lyapunov_exponents(systems.affine, driven, np.zeros((2, 3)), np.ones(1), n_time=200, k=1)
    np.testing.assert_allclose(first, np.full((2, 1), np.log(1.2)), atol=1e-9)
    flow = jaxfp.lyapunov_exponents(
        systems.affine, linear, np.zeros(3), n_time=2000, n_settle=8000, dt=0.01, kind="flow"
    )
    np.testing.assert_allclose(flow, [0.5, 0.1, -1.2], atol=1e-6)


def test_exponents_at_an_input_held_constant():
    """Of h' = u h, ln u, for one input and for one each."""

    def grow(params, hidden, inputs):
        return params * inputs[0] * hidden

    one = jaxfp.lyapunov_exponents(grow, 1.0, np.zeros(1), np.array([0.5]), n_time=10, n_settle=1)
    assert one == pytest.approx(np.log(0.5))
    each = jaxfp.lyapunov_exponents(grow, 1.0, np.zeros((2, 1)), np.array([[0.5], [3.0]]), n_time=10, n_settle=1)
    assert each[:, 0] == pytest.approx(np.log([0.5, 3.0]))


def test_exponents_of_a_cycle_are_those_of_its_multiplier():
    r = 3.2
    exponent = jaxfp.lyapunov_exponents(logistic, r, np.array([0.3]), n_time=100)
    np.testing.assert_allclose(exponent, [np.log(abs(4 + 2 * r - r**2)) / 2], atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxfp.find_cycles(logistic, 3.2, STARTS[0], 2), "candidates must be"),
        (lambda: jaxfp.find_cycles(logistic, 3.2, STARTS, 0), "k must be"),
        (lambda: jaxfp.find_cycles(logistic, 3.2, STARTS, 2, np.ones((3, 1))), "inputs must be"),
        (lambda: jaxfp.find_limit_cycles(logistic, 3.2, STARTS, dt=0.0), "dt must be"),
        (lambda: jaxfp.find_limit_cycles(logistic, 3.2, STARTS[0], dt=1.0), "candidates must be"),
        (lambda: jaxfp.floquet_multipliers(np.eye(2)), "jacobians must be"),
        (lambda: jaxfp.lyapunov_exponents(logistic, 3.2, np.zeros(1), k=2), "k must be"),
        (lambda: jaxfp.lyapunov_exponents(logistic, 3.2, np.zeros(1), kind="flaw"), "kind must be"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_runge_kutta_is_of_order_4():
    with jax.enable_x64(True):
        errors = [abs(float(cycles.runge_kutta(lambda x: x, jnp.ones(()), h)) - np.exp(h)) for h in (0.1, 0.05)]
    assert 4.9 < np.log2(errors[0] / errors[1]) < 5.1
