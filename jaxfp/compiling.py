"""One jit for the host's programs, that compiles fast.

A first call spends most of its time in the compiler. On a CPU, XLA's older code generator for fusions saves a quarter
to a third of it, and LLVM's optimization level 1 instead of 3 again a third. The price is in what the older generator
makes of elementwise work: searches of tanh networks, which live in matrix products, run as fast as before, those of
LSTMs a little slower. On a GPU, XLA tries every way to compute each matrix product before the first; searches take as
long without, and a first call a quarter. Elsewhere, and where XLA no longer knows the options, nothing is changed.

A host program that runs beside others (`side_by_side`) has its programs called for it, together with theirs.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

_WANTED: dict[str, dict[str, Any]] = {
    "cpu": {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 1},
    "gpu": {"xla_gpu_autotune_level": 0},
}
Caller = Callable[[Callable, tuple[int, ...], tuple[Any, ...]], Any]
_here = threading.local()


def jit(function: Callable, *, static_argnums: tuple[int, ...], quick: bool = True) -> Callable:
    """`jax.jit` with the compiler options of `options`.

    Args:
      function: to compile.
      static_argnums: as in `jax.jit`.
      quick: False for a program that is nearly all elementwise work: no options.

    Returns:
      The compiled function; the backend is asked for when it is first called, not on import.

    Example:
      >>> import jax.numpy as jnp
      >>> float(jit(lambda n, x: n * x, static_argnums=(0,))(2, jnp.ones(())))
      2.0
    """

    @functools.cache
    def compiled() -> Callable:
        wanted = options() if quick else {}
        return jax.jit(function, static_argnums=static_argnums, compiler_options=wanted)

    @functools.wraps(function)
    def wrapped(*arguments: Any) -> Any:
        call: Caller | None = getattr(_here, "call", None)
        return compiled()(*arguments) if call is None else call(function, static_argnums, arguments)

    return wrapped


@contextlib.contextmanager
def called_by(call: Caller) -> Iterator[None]:
    """In this thread, leave it to another to call the programs made by `jit`.

    Args:
      call: `(function, static_argnums, arguments) -> result`.

    Returns:
      Context manager.

    Example:
      >>> double = jit(lambda x: 2 * x, static_argnums=())
      >>> with called_by(lambda function, static_argnums, arguments: arguments):
      ...     double(3.0)
      (3.0,)
    """
    _here.call = call
    try:
        yield
    finally:
        _here.call = None


@functools.cache
def options() -> dict[str, Any]:
    """What to tell the compiler.

    Returns:
      Options for `jax.jit`, none where they are not known.

    Example:
      >>> isinstance(options(), dict)
      True
    """
    wanted = _WANTED.get(jax.default_backend(), {})
    try:
        jax.jit(lambda x: x, compiler_options=wanted).lower(0.0).compile()
    except Exception:  # XLA's flags come and go, and its error for an unknown one is not part of any interface
        return {}
    return wanted
