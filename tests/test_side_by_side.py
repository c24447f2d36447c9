"""Host programs side by side: what they compile is called once for all that want it, and nobody waits for ever."""

import _thread
import functools
import signal
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from jaxfp import compiling, side_by_side

TRACED = []


@functools.partial(compiling.jit, static_argnums=(1,))
def power(x, n):
    TRACED.append(n)
    return {"power": x**n}


@functools.partial(compiling.jit, static_argnums=())
def shifted(x, by):
    return x + by


def record_calls(monkeypatch):
    """A list that gets the places of the tasks in each call."""
    calls = []
    called = side_by_side._called

    def recorded(group, n_places):
        calls.append([call.place for call in group])
        return called(group, n_places)

    monkeypatch.setattr(side_by_side, "_called", recorded)
    return calls


def test_what_all_want_is_called_once(monkeypatch):
    """Three tasks, one call, one trace; each gets its own slice, of its dtype; a second run traces nothing."""
    calls = record_calls(monkeypatch)
    tasks = [lambda x=x: power(np.full(2, x), 3) for x in (1.0, 2.0, 3.0)]
    results = side_by_side.run(tasks)
    assert calls == [[0, 1, 2]]
    assert [r["power"].tolist() for r in results] == [[1.0, 1.0], [8.0, 8.0], [27.0, 27.0]]
    assert {r["power"].dtype for r in results} == {np.dtype(np.float64)}
    n_traced = len(TRACED)
    assert n_traced >= 1
    side_by_side.run(tasks)
    assert len(TRACED) == n_traced


def test_what_most_want_comes_first_and_others_may_join(monkeypatch):
    """One that went ahead waits until others want the same; static arguments and Python numbers tell calls apart."""
    calls = record_calls(monkeypatch)

    def behind(x):
        return shifted(power(x, 2)["power"], 1.0)

    def ahead(x):
        return shifted(x, 1.0)

    results = side_by_side.run([functools.partial(f, np.float64(3)) for f in (behind, ahead, behind)])
    assert [float(r) for r in results] == [10.0, 4.0, 10.0]
    assert calls == [[0, 2], [0, 1, 2]]
    calls.clear()
    results = side_by_side.run([lambda by=by: shifted(np.float64(0), by) for by in (1.0, 1, 2.0, 1.0)])
    assert [float(r) for r in results] == [1.0, 1.0, 2.0, 1.0]
    assert calls == [[0, 3], [1], [2]]


def test_an_error_is_of_those_that_called(monkeypatch):
    """A program that cannot be traced raises in the tasks that called it; the first error is raised once all ended."""
    ended = []

    def wrong():
        shifted(np.zeros(2), np.zeros(3))

    def right():
        ended.append(float(shifted(np.float64(1), 1.0)))

    with pytest.raises((TypeError, ValueError), match="shape"):
        side_by_side.run([right, wrong, right])
    assert ended == [2.0, 2.0]

    def caught():
        with pytest.raises((TypeError, ValueError), match="shape"):
            wrong()
        return "went on"

    assert side_by_side.run([caught]) == ["went on"]


def test_an_interrupt_ends_all_threads(monkeypatch):
    """Ctrl-C while a program runs: it is raised, and no thread is left waiting."""

    def interrupted(group, n_places):
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "_called", interrupted)
    before = set(threading.enumerate())

    def stubborn():
        for _ in range(3):
            try:
                shifted(jnp.ones(()), 1.0)
            except InterruptedError:
                continue

    with pytest.raises(KeyboardInterrupt):
        side_by_side.run([lambda: shifted(np.float64(0), 1.0), stubborn])
    assert set(threading.enumerate()) <= before  # one of those may have ended by itself


@pytest.fixture
def _ctrl_c():
    """SIGINT is Ctrl-C: a job in the background of a shell ignores it, and then `interrupt_main` does nothing."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("_ctrl_c")
def test_an_interrupt_while_a_call_comes_in_loses_nobody():
    """Ctrl-C that takes effect between the arrival of a call and its being noted: its thread ends all the same."""
    before = set(threading.enumerate())

    def interrupting():
        time.sleep(0.2)  # until the main thread waits: it sees the signal once it has been given what it waits for
        _thread.interrupt_main()
        return shifted(np.float64(0), 1.0)

    with pytest.raises(KeyboardInterrupt):
        side_by_side.run([interrupting, lambda: shifted(np.float64(0), 1.0)])
    assert set(threading.enumerate()) <= before  # one of those may have ended by itself


def test_outside_nothing_is_different():
    """After a run, and in this thread during one, programs are called as they stand."""
    assert side_by_side.run([]) == []
    assert float(shifted(jnp.ones(()), 1.0)) == 2.0
