import jax
import jax.numpy as jnp
import numpy as np
import pytest
import systems

import jaxfp
from jaxfp.search import engine
from jaxfp.types import CONVERGED, MAX_STEPS, NONFINITE

SOLVER = jaxfp.levenberg_marquardt()
WEIGHTS = systems.suite_weights(4).astype(np.float32)
STARTS = np.random.default_rng(0).uniform(-1, 1, (512, 4)).astype(np.float32)
SEARCH = jax.jit(jaxfp.build_search(systems.tanh_row, SOLVER))


def search(candidates, weights=WEIGHTS, tolerance=0.0, max_steps=200):
    return SEARCH(weights, jnp.asarray(candidates), None, tolerance=tolerance, max_steps=max_steps)


def wave(candidates, step_fn=systems.tanh_row, params=WEIGHTS, **keywords):
    options = {"solver": SOLVER, "kind": "map", "tolerance": 0.0, "max_steps": 200, "chunk_size": 128, **keywords}
    return engine.run_wave(step_fn, params, candidates, None, **options)


@pytest.fixture(scope="module")
def batch():
    return search(STARTS)


def test_lanes_end_at_minima_of_q_and_say_where_they_are(batch):
    """Every lane of the analytic suite is CONVERGED at a zero of r to the float32 floor, q is that of its state."""
    hidden, q = np.asarray(batch.hidden), np.asarray(batch.q)
    assert hidden.dtype == q.dtype == np.float32
    assert (batch.status == CONVERGED).all()
    r = np.tanh(hidden.astype(float) @ WEIGHTS.astype(float)) - hidden
    # What rounding a state of length 2 and a sum of four products leave, 8 eps sqrt(n) ||h||.
    assert np.linalg.norm(r, axis=1).max() < 8 * np.finfo(np.float32).eps * 2 * 2
    np.testing.assert_allclose(np.sqrt(2 * q), np.linalg.norm(r, axis=1), atol=1e-6)


def test_a_candidate_alone_is_the_candidate_in_a_batch(batch):
    """Lanes never mix: alone and among 512, a candidate ends at the same point to 2e-7 in float32."""
    hits = 0
    for i in (0, 77, 511):
        alone = search(STARTS[i : i + 1])
        np.testing.assert_allclose(alone.hidden[0], batch.hidden[i], rtol=0, atol=2e-7)
        assert alone.status[0] == batch.status[i]
        hits += np.linalg.norm(batch.hidden[i]) > 0.1
    assert hits  # the three do not all end at the origin


def test_a_nan_lane_leaves_the_others_bit_equal(batch):
    """A candidate that is NaN, and one that is infinite, are NONFINITE alone; every other lane is the same bits."""
    spoiled = STARTS.copy()
    spoiled[3], spoiled[400, 2] = np.nan, np.inf
    lanes = search(spoiled)
    others = np.delete(np.arange(512), (3, 400))
    assert lanes.status[3] == lanes.status[400] == NONFINITE
    for spoiled_column, column in zip(lanes, batch, strict=True):
        np.testing.assert_array_equal(np.asarray(spoiled_column)[others], np.asarray(column)[others])


def test_each_lane_stops_for_itself():
    """Lanes take different numbers of steps; a budget of 8 leaves MAX_STEPS after 8, a tolerance ends lanes early."""
    lanes = search(STARTS)
    assert len(np.unique(lanes.n_steps)) > 5
    short = search(STARTS, max_steps=8)
    assert set(np.unique(short.status)) == {CONVERGED, MAX_STEPS}
    assert (np.asarray(short.n_steps)[np.asarray(short.status) == MAX_STEPS] == 8).all()
    early = search(STARTS, tolerance=1e-3)
    assert (early.status == CONVERGED).all()
    assert (early.q <= 1e-3).all()
    assert np.mean(early.n_steps) < np.mean(lanes.n_steps) - 2
    before = search(STARTS, tolerance=1e-3, max_steps=np.asarray(early.n_steps).max() - 1)
    assert (before.status == MAX_STEPS).any()  # no lane goes on after its tolerance, and none stops before
    none = search(STARTS, max_steps=0)
    np.testing.assert_array_equal(none.hidden, STARTS)


@pytest.mark.parametrize("n_candidates", [1, 16, 17, 200, 512])
def test_work_queue_fills_every_row_once(batch, n_candidates):
    """The host's queue gives each candidate the lane of the traceable search, however many there are."""
    lanes = wave(STARTS[:n_candidates])
    assert (lanes.status == CONVERGED).all()
    # Another program of the same arithmetic: to rounding, except where a basin's border lies between two roundings.
    apart = np.abs(lanes.hidden - batch.hidden[:n_candidates]).max(1)
    assert np.mean(apart > 4 * np.finfo(np.float32).eps) < 0.01  # an accelerator rounds three or four times
    np.testing.assert_array_equal(STARTS, np.random.default_rng(0).uniform(-1, 1, (512, 4)).astype(np.float32))


@pytest.mark.parametrize("block", [1, 8, 128])
def test_lanes_in_blocks_end_where_they_do_together(batch, block):
    """However many step together, and however the last few are moved into few blocks."""
    lanes = wave(STARTS, block=block)
    apart = np.abs(lanes.hidden - batch.hidden).max(1)
    assert np.mean(apart > 4 * np.finfo(np.float32).eps) < 0.01


def test_a_block_without_lanes_is_not_stepped():
    """One lane costs as many evaluations of the step in 512 places as in the 16 of its block."""
    calls = []

    def counted(params, hidden, inputs):
        jax.debug.callback(lambda: calls.append(None))
        return jnp.tanh(params * hidden)

    n_calls = {}
    for chunk_size in (16, 512):
        lanes = wave(STARTS[:1], counted, np.float32(1.5), chunk_size=chunk_size)
        jax.effects_barrier()
        n_calls[chunk_size] = len(calls)
        calls.clear()
        assert lanes.status.tolist() == [CONVERGED]
    assert n_calls[512] == n_calls[16] > 0


def test_empty_wave():
    """No candidates give no lanes and no error."""
    assert wave(STARTS[:0]).hidden.shape == (0, 4)


def test_an_ensemble_is_a_vmap_over_params(batch):
    """The traceable search under jit and vmap over weights equals a loop over the networks."""
    scales = jnp.array([0.3, 1.0], jnp.float32)
    ensemble = scales[:, None, None] * WEIGHTS[None]
    run = jax.jit(jax.vmap(lambda w: SEARCH(w, jnp.asarray(STARTS[:64]), None, tolerance=0.0, max_steps=200)))
    lanes = run(ensemble)
    assert (lanes.status == CONVERGED).all()
    # Scaled by 0.3, W has spectral radius 0.57 < 1 and ||h'|| < ||h|| far out: the origin is the only point.
    np.testing.assert_allclose(lanes.hidden[0], 0, atol=1e-6)
    apart = np.abs(np.asarray(lanes.hidden[1]) - np.asarray(batch.hidden)[:64]).max(1)
    assert np.mean(apart > 1e-6) < 0.05  # basin borders, as above
    assert np.abs(lanes.hidden[1]).max() > 0.9


def counted(params, hidden, inputs):
    counted.calls += 1
    return jnp.tanh(params @ hidden)


counted.calls = 0


def test_new_numbers_of_the_same_shapes_trace_nothing():
    """A second wave with other weights, states, tolerance and budget calls the step function of the user 0 times."""
    small = STARTS[:20, :3]
    wave(small, counted, WEIGHTS[:3, :3])
    assert counted.calls > 0
    before = counted.calls
    wave(2 * small, counted, 2 * WEIGHTS[:3, :3], tolerance=1e-6, max_steps=77)
    wave(small[:5], counted, WEIGHTS[:3, :3])  # fewer candidates, too
    assert counted.calls == before
    wave(small[:, :2], counted, WEIGHTS[:2, :2])
    assert counted.calls > before  # other shapes do: the count counts


def test_inputs_go_to_their_lanes():
    """With inputs (n_candidates, n_inputs) each lane solves its own equation, (I - A)^-1 (b + B u)."""
    rng = np.random.default_rng(1)
    params = {"A": 0.2 * rng.normal(size=(3, 3)), "b": rng.normal(size=3), "B": rng.normal(size=(3, 2))}
    params = {name: x.astype(np.float32) for name, x in params.items()}
    drives = rng.normal(size=(40, 2)).astype(np.float32)
    with jax.numpy_dtype_promotion("strict"):
        lanes = jaxfp.build_search(systems.affine, SOLVER)(
            params, jnp.zeros((40, 3)), jnp.asarray(drives), tolerance=0.0, max_steps=50
        )
    expected = np.linalg.solve(np.eye(3) - params["A"], (params["b"] + drives @ params["B"].T).T).T
    np.testing.assert_allclose(lanes.hidden, expected, atol=1e-5)
    with pytest.raises(ValueError, match="one row for each of 40 states"):
        jaxfp.build_search(systems.affine, SOLVER)(
            params, jnp.zeros((40, 3)), jnp.zeros((39, 2)), tolerance=0.0, max_steps=50
        )


def test_all_candidates_are_in_flight_at_once_where_they_fit():
    """200 candidates of 4,096 places go together, not in the narrow program of the last few."""
    asked = []

    def ends(rows, lanes, residuals):
        asked.append(len(rows))
        return lanes.status

    with jax.enable_x64(True):
        engine.run_wave(
            systems.scalar_tanh, 1.5, np.linspace(-2, 2, 200)[:, None], None, solver=SOLVER, kind="map", tolerance=0.0,
            max_steps=200, chunk_size=4096, ends=ends,
        )  # fmt: skip
    assert asked[0] == 200


@pytest.mark.parametrize("n_candidates", [1, 64, 65, 300])
def test_an_accelerator_finishes_most_lanes_in_one_call(monkeypatch, n_candidates):
    """There lanes are asked once in twelve steps and go on in one program, to where they would end on a CPU."""
    here = wave(STARTS[:n_candidates])
    asked, widths = [], set()

    def ends(rows, lanes, residuals):
        asked.append(len(rows))
        return lanes.status

    def counted(*given):
        widths.add(len(given[6]))
        return rounds(*given)

    rounds = engine._round
    monkeypatch.setattr(engine, "_on_accelerator", lambda: True)
    monkeypatch.setattr(engine, "_round", counted)
    there = wave(STARTS[:n_candidates], ends=ends, chunk_size=512)
    assert asked == [n_candidates]  # none takes more than twelve steps
    assert widths == {{1: 64, 64: 64, 65: 256, 300: 512}[n_candidates]}
    assert np.mean(np.abs(there.hidden - here.hidden).max(1) > 4 * np.finfo(np.float32).eps) < 0.01
