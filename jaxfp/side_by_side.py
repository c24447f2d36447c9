"""Host programs side by side, their compiled programs called once for all of them.

A search decides on the host what to compute next and calls one compiled program after the other. The searches of an
ensemble differ in their numbers alone, so mostly they want the same program at the same time. Each runs in a thread of
its own until it calls a program of `compiling.jit`. When all wait, the program that most of them wait for is called
once, under `vmap`, and those that waited for it go on, each with its own slice:

    network 0    host |        | host |                   | host
    network 1    host | rounds | host | residuals         | host
    network 2    host |        | host | (waits)           | ...

What is called, and for whom, follows from the numbers and never from the clock, so that a repeated run ends in the same
bits. Each network has its own place in the batch, and free places are filled with a copy of another network's numbers:
the program is the same whoever takes part, and what one network holds changes no bit of another.
"""

import functools
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import compiling


class _Program(NamedTuple):
    """What calls must have in common to be one; hashable."""

    function: Callable
    static: tuple[tuple[int, Any], ...]  # (position, argument)
    tree: Any  # structure of the other arguments, a tuple
    shapes: tuple[tuple[Any, Any], ...]  # shape and dtype of each leaf; of a Python number, type and value


class _Call(NamedTuple):
    place: int
    program: _Program
    leaves: list[Any]


def run(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run all tasks, calling what they compile together, in float64 scope.

    Args:
      tasks: functions without arguments; each runs in a thread of its own, where JAX's settings are those of the
        process.

    Returns:
      Their results, in their order.

    Raises:
      Exception: that of the first task that raised one, once all have ended.

    Example:
      >>> double = compiling.jit(lambda x: 2 * x, static_argnums=())
      >>> [float(y) for y in run([lambda x=x: double(np.float64(x)) for x in (1.0, 2.0)])]
      [2.0, 4.0]
    """
    said: queue.SimpleQueue = queue.SimpleQueue()  # calls, and None from a task that ended
    replies: list[queue.SimpleQueue] = [queue.SimpleQueue() for _ in tasks]
    results: list[Any] = [None] * len(tasks)
    errors: dict[int, BaseException] = {}

    def work(place: int) -> None:
        def call(function: Callable, static_argnums: tuple[int, ...], arguments: tuple[Any, ...]) -> Any:
            said.put(_as_call(place, function, static_argnums, arguments))
            reply = replies[place].get()
            if isinstance(reply, BaseException):
                raise reply
            return reply

        try:
            with compiling.called_by(call):
                results[place] = tasks[place]()
        except BaseException as error:
            errors[place] = error
        said.put(None)

    threads = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(len(tasks))]
    waiting: dict[int, _Call] = {}
    try:
        for thread in threads:
            thread.start()
        n_working = len(tasks)
        while True:
            while n_working:
                call = said.get()
                n_working -= 1
                if call is not None:
                    waiting[call.place] = call
            if not waiting:
                break
            calls = _most_wanted(waiting)
            for call, reply in zip(calls, _called(calls, len(tasks)), strict=True):
                del waiting[call.place]
                n_working += 1
                replies[call.place].put(reply)
    finally:  # where the loop was interrupted, be it before a call was noted: nobody may wait for ever
        for thread, reply in zip(threads, replies, strict=True):
            while thread.is_alive():
                reply.put(InterruptedError())
                thread.join(0.1)
    if errors:
        raise errors[min(errors)]
    return results


def _as_call(place: int, function: Callable, static_argnums: tuple[int, ...], arguments: tuple[Any, ...]) -> _Call:
    static = tuple((i, arguments[i]) for i in static_argnums)
    leaves, tree = jax.tree.flatten(tuple(x for i, x in enumerate(arguments) if i not in static_argnums))
    shapes = tuple((type(x), x) if _is_number(x) else (np.shape(x), jnp.result_type(x)) for x in leaves)
    return _Call(place, _Program(function, static, tree, shapes), leaves)


def _is_number(leaf: Any) -> bool:
    """Python numbers are settings, the same for all that call together."""
    return isinstance(leaf, bool | int | float) and not isinstance(leaf, np.generic)


def _most_wanted(waiting: dict[int, _Call]) -> list[_Call]:
    """The calls of the program that most wait for; of several such, that of the first place."""
    calls = [waiting[place] for place in sorted(waiting)]
    wanted = Counter(call.program for call in calls).most_common(1)[0][0]
    return [call for call in calls if call.program == wanted]


def _called(calls: list[_Call], n_places: int) -> list[Any]:
    """What each gets: its slice of the result, or the error."""
    program = calls[0].program
    at = {call.place: call.leaves for call in calls}
    rows = [at.get(place, calls[0].leaves) for place in range(n_places)]
    try:
        with jax.enable_x64(True):
            leaves = [column[0] if _is_number(column[0]) else _stacked(column) for column in zip(*rows, strict=True)]
            result = jax.tree.map(np.asarray, _compiled(program)(*leaves))
    except Exception as error:  # it is theirs
        return [error] * len(calls)
    return [jax.tree.map(lambda x, place=call.place: x[place, ...], result) for call in calls]


def _stacked(column: tuple[Any, ...]) -> Any:
    if jnp.issubdtype(jnp.result_type(column[0]), jax.dtypes.prng_key):
        return jnp.stack(column)
    return np.stack([np.asarray(x) for x in column])  # on the host: in JAX it would be compiled


@functools.cache
def _compiled(program: _Program) -> Callable:
    axes = tuple(0 if isinstance(shape, tuple) else None for shape, _ in program.shapes)

    def one(*leaves: Any) -> Any:
        arguments = list(jax.tree.unflatten(program.tree, leaves))
        for position, argument in program.static:
            arguments.insert(position, argument)
        return program.function(*arguments)

    return jax.jit(jax.vmap(one, in_axes=axes), compiler_options=compiling.options())
