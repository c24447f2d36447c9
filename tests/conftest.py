"""The same strictness for every test, and trained networks and searches shared by all."""

import os

# Small matrices on many threads: OpenBLAS and XLA would wait for each other's cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
# The command line, run in a process of its own, would fill the cache folder of whoever runs the tests.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

import pathlib

import jax
import pytest

from jaxfp import io
from jaxfp.cli import flip_flop


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
