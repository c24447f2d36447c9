"""The same strictness for every test, and trained networks and searches shared by all."""

import os

# Small matrices on many threads: OpenBLAS and XLA would wait for each other's cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
# XLA takes programs that it reads back for those of another machine, at length (jaxfp/cli/cache.py).
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import re
import tempfile

import jax
import pytest

from jaxfp import io
from jaxfp.cli import flip_flop


def pytest_configure(config):
    """One store of compiled programs for all processes of this run: its workers, its command lines, its notebooks.

    It is the run's own: whoever runs the tests keeps the cache folder as it was, and nothing of another commit is read.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:  # of a worker, made by the process that started it
        return
    store = tempfile.TemporaryDirectory(prefix="jaxfp_programs_")
    config.add_cleanup(store.cleanup)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = store.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", store.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


# Where hundreds of programs are compiled to be run once, at toy size. What is searched, proved and linearized, in all
# other files, is compiled as for users.
PLUMBING = re.compile(
    r"test_(\w+_job|docstrings|notebooks|cli|benchmarks|readme|plotting|jslds\w*|lfads|classifier|sentiment\w*|force|train"
    r"|malformed|synthetic\w*|checkpoints)$"
)


@pytest.fixture(scope="module", autouse=True)
def compiled_for_one_run(request):
    """XLA's optimizer is most of the time that these tests take: off, here and in the processes that they start."""
    if not PLUMBING.search(request.module.__name__):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", autouse=True)
def room_for_programs():
    """Programs are dropped in time: each takes memory mappings, and a process on Linux has 65,530."""
    yield
    mappings = pathlib.Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > 25_000:
        jax.clear_caches()


@pytest.fixture(scope="session")
def tanh_network() -> flip_flop.Network:
    """The packaged tanh memory of 100 units."""
    return flip_flop.as_network("tanh", io.load_packaged("flip_flop_tanh")[0])


@pytest.fixture(scope="session")
def tanh_analysis(tanh_network):
    """Its fixed points, as the main job finds them: (analysis, trials, states)."""
    return flip_flop.explore(0, tanh_network, flip_flop.recipe_of("tanh"))


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
