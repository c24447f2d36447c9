"""Whatever is wrong with an argument, the error is one ValueError that names it and says what it must be.

Every public function is given every wrong value of a pool for each of its arguments, the others being right; then pairs
of arguments that do not fit together; then the command line. Nothing is searched, and no wrong value gives an answer.
"""

import contextlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import systems
from flax import linen as nn
from flax import nnx

import jaxfp
from jaxfp import cli, io
from jaxfp.cli import flip_flop, report
from jaxfp.search import wave

KEY = jax.random.key(0)
AFFINE = {"A": np.eye(2) / 2, "b": np.zeros(2), "B": np.ones((2, 1))}

AFFINE_TWICE = {name: np.stack([array, array]) for name, array in AFFINE.items()}


class Unhashable:
    """Callable, yet no static argument."""

    __hash__ = None

    def __call__(self, params, hidden, inputs):
        return hidden


# Wrong values, by what an argument should be.

THINGS = {"None": None, "text": "text", "3": 3, "NaN": np.nan, "list": [], "dict": {}, "object": object(), "key": KEY}
ARRAYS = {
    "number": np.zeros(()), "4 axes": np.zeros((2, 2, 2, 2)), "complex": np.zeros((3, 2), complex),
    "texts": np.full((3, 2), "a"), "objects": np.full((3, 2), None), "keys": jax.random.split(KEY, 3),
}  # fmt: skip


def but(pool, *names):
    return {name: value for name, value in pool.items() if name not in names}


STEP = but(THINGS, "key") | {
    "array": np.zeros(2), "unhashable": Unhashable(), "shorter": systems.loses_a_unit,
    "pair": lambda p, h, u: (h, h), "nothing": lambda p, h, u: None, "two arguments": lambda p, h: h,
    "other params": systems.line, "other width": lambda p, h, u: h @ np.eye(7),
}  # fmt: skip
PARAMS = THINGS | ARRAYS | {
    "missing": but(AFFINE, "A"), "wide": AFFINE | {"A": np.eye(3)}, "text within": AFFINE | {"A": "A"},
    "lambda within": AFFINE | {"b": len}, "list within": AFFINE | {"A": [[0.5, 0.0], [0.0, 0.5]]},
}  # fmt: skip
STATES = THINGS | ARRAYS | {
    "integers": np.zeros((3, 2), int), "booleans": np.zeros((3, 2), bool), "wide": np.zeros((3, 5)),
    "more": np.zeros((5, 2)), "nothing": np.zeros((3, 0)), "nested": [[0.0, 0.0]] * 3,
}  # fmt: skip
HOST_STATES = but(STATES, "integers", "booleans", "nested") | {"ragged": [[0.0], [0.0, 1.0]]}
INPUTS = but(THINGS, "None") | ARRAYS | {"wide": np.zeros((3, 2)), "more": np.zeros((4, 1)), "flat": np.zeros(3)}
WORD = THINGS | {"array": np.zeros(2), "empty": np.zeros(0), "MAP": "MAP", "": "", "True": True}
FLAG = but(THINGS, "None") | {"0": 0, "1": 1, "array": np.zeros(2), "empty": np.zeros(0)}
COUNT = but(THINGS, "None", "3") | {
    "0": 0, "-1": -1, "2.5": 2.5, "2.0": 2.0, "True": True, "infinite": np.inf, "array": np.ones(2, int)
}  # fmt: skip
NUMBER = but(THINGS, "3") | {
    "-1": -1.0, "infinite": np.inf, "1j": 1j, "True": True, "array": np.ones(2), "empty": np.zeros(0), "texts": "1e-3"
}  # fmt: skip
POSITIVE = NUMBER | {"0": 0.0}
SOLVER = but(THINGS, "None") | {"class": jaxfp.gradient, "optimizer": optax.sgd(0.1), "pair": (len, len),
                                "halves": jaxfp.levenberg_marquardt()._replace(step=None),
                                "unhashable": jaxfp.levenberg_marquardt()._replace(init=Unhashable())}  # fmt: skip
DRAWN = {"noisy": systems.noisy}
PROOF = jaxfp.Certificates(np.ones(3, bool), np.full(3, 1e-9), np.ones(3), np.zeros((3, 2)))
INPUTS_OF_EACH = but(INPUTS, "wide") | {"ragged": [[0.0], [0.0, 1.0]]}
INPUTS_OF_CANDIDATES = INPUTS | {"NaNs": np.full(1, np.nan), "ragged": [[0.0], [0.0, 1.0]]}
CANDIDATES = but(STATES, "nested") | {"ragged": [[0.0], [0.0, 1.0]], "none": np.zeros((0, 2)), "flat": np.zeros(2)}
CELL = nnx.GRUCell(2, 3, rngs=nnx.Rngs(0))
LINEN = nn.GRUCell(features=3)
VARIABLES = LINEN.init(KEY, jnp.zeros(3), jnp.zeros(2))
N_INPUTS = but(THINGS, "None", "3") | {"-1": -1, "2.0": 2.0, "True": True, "too many": 7, "too few": 0}

POINTWISE = {
    "step_fn": (systems.affine, STEP),
    "params": (AFFINE, PARAMS),
    "hidden": (np.zeros((3, 2)), STATES),
    "inputs": (np.zeros((3, 1)), INPUTS),
}
WAYS = but(THINGS | ARRAYS, "4 axes") | {
    "integers": np.zeros((1, 2), int), "flat": np.zeros(2), "wide": np.zeros((1, 5)), "more": np.zeros((4, 1, 2))
}  # fmt: skip
AXES = but(THINGS | ARRAYS, "complex", "4 axes") | {"integers": np.zeros(2, int), "wide": np.zeros(5)}
KIND = {"kind": ("map", WORD)}
KRYLOV = {"n_vectors": (8, COUNT | {"None": None}), "damping": (0.01, POSITIVE)}

SLOW_POINTS = {
    "step_fn": (systems.affine, STEP | DRAWN),
    "params": (AFFINE, PARAMS | {"NaN within": AFFINE | {"A": np.full((2, 2), np.nan)}}),
    "hidden": (np.zeros((3, 2)), but(CANDIDATES, "more") | {"NaNs": np.full((3, 2), np.nan)}),
    "inputs": (np.zeros(1), INPUTS | {"NaNs": np.full(1, np.nan), "one each": np.zeros((3, 1))}),
    "dt": (1.0, POSITIVE),
    "step": (None, but(POSITIVE, "None")),
    **KIND,
}
AT_REST = AFFINE | {"A": np.diag([1.0, 0.5])}
LINE = jaxfp.trace_line(systems.affine, AT_REST, np.eye(2)[[0, 0]] * [[1.0], [-1.0]], np.zeros(1), n_points=3)
NO_LINE = jaxfp.trace_line(systems.affine, AFFINE, np.zeros((1, 2)), np.zeros(1))

POINTS = THINGS | {
    "triple": (1, 2, 3), "flat": (np.zeros(2), None), "inputs": (np.zeros((1, 2)), np.zeros((2, 1))),
    "texts": (np.full((1, 2), "a"), None), "Nones": (None, None), "ragged": ([[1], [1, 2]], None),
    "NaN": (np.full((1, 2), np.nan), None),
}  # fmt: skip
HALVES = jaxfp.spectrum(np.eye(2)[None] / 2)
TRACED = {
    "step_fn": (systems.affine, STEP),
    "params": (AFFINE, PARAMS),
    "points": ((np.zeros((1, 2)), None), POINTS),
    "modes": (
        HALVES,
        THINGS | {"more": jaxfp.spectrum(np.zeros((2, 2, 2))), "no vectors": HALVES._replace(verdict=None)},
    ),
    "max_steps": (10, COUNT | {"None": None}),
    "kind": (None, but(WORD, "None")),
}  # fmt: skip
PULSES = (
    THINGS | ARRAYS | {"flat": np.ones((1, 1)), "no time": np.ones((1, 0, 1)), "infinite": np.full((1, 1, 1), np.inf)}
)
ROW = np.zeros(1, int)
GRAPH = {
    "graph": (jaxfp.Connections(ROW, ROW, ROW + jaxfp.REACHED, np.zeros((1, 2)), np.ones(1), ROW + 1, ROW + 2,
              np.zeros((1, 2)), ROW), THINGS | {"tuple": (1, 2)}),
    "codes": (["+"], but(THINGS, "None", "text") | {"ragged": ["+", "++"], "flat": np.zeros(1)}),
}  # fmt: skip

# Right values and wrong ones of every argument of every public function.
FUNCTIONS = {
    "residual": POINTWISE | KIND,
    "q": POINTWISE | KIND,
    "speed": POINTWISE | KIND,
    "linearize": POINTWISE,
    "fixed_point": {
        "step_fn": (systems.affine, STEP),
        "params": (AFFINE, PARAMS),
        "hidden0": (np.zeros((3, 2)), STATES),
        "inputs": (np.zeros((3, 1)), INPUTS),
        "max_steps": (5, COUNT | {"None": None}),
        "has_aux": (False, FLAG | {"None": None}),
        **KIND,
    },
    "eigenvalue": {
        "step_fn": (systems.affine, STEP),
        "params": (AFFINE, PARAMS),
        "hidden": (np.zeros(2), but(STATES, "more") | {"two": np.zeros((2, 2))}),
        "inputs": (np.zeros(1), INPUTS),
        "left": (np.ones(2), AXES),
        "right": (np.ones(2), AXES),
        **KIND,
    },
    "taylor_terms": POINTWISE | {"displacements": (np.ones((1, 2)), WAYS)} | KIND,
    "linear_prediction": POINTWISE | {
        "displacements": (np.ones((1, 2)), WAYS),
        "n_steps": (2, COUNT | {"None": None}),
        "dt": (0.01, POSITIVE),
        **KIND,
    },
    "validity_radius": POINTWISE | {
        "directions": (np.ones((1, 2)), WAYS),
        "tolerance": (0.1, POSITIVE),
        "n_steps": (2, COUNT | {"None": None}),
        "max_radius": (10.0, POSITIVE),
        "dt": (0.01, POSITIVE),
        **KIND,
    },
    "non_normality": {
        "jacobian": (np.zeros((1, 2, 2)), but(THINGS | ARRAYS, "4 axes") | {"4 axes": np.zeros((2, 2, 2, 2)),
                     "oblong": np.zeros((2, 3)), "none": np.zeros((1, 0, 0)), "nested": [[0.5]]}),
        "n_steps": (10, COUNT | {"None": None}),
        **KIND,
    },
    "certify": {
        "step_fn": (systems.affine, STEP),
        "params": (AFFINE, PARAMS),
        "hidden": (np.zeros((3, 2)), HOST_STATES),
        "inputs": (np.zeros((3, 1)), INPUTS | {"ragged": [[0.0], [0.0, 1.0]]}),
        **KIND,
    },
    "excludes": {
        "step_fn": (systems.affine, STEP),
        "params": (AFFINE, PARAMS),
        "center": (np.zeros((3, 2)), HOST_STATES),
        "radius": (1e-3, but(THINGS, "3") | {"-1": -1.0, "infinite": np.inf, "1j": 1j, "more": np.ones(4)}),
        "inputs": (np.zeros((3, 1)), INPUTS | {"ragged": [[0.0], [0.0, 1.0]]}),
        **KIND,
    },
    "certified_jacobian": {
        "step_fn": (systems.affine, STEP),
        "params": (AFFINE, PARAMS),
        "proof": (PROOF, but(THINGS, "3") | {"tuple": tuple(PROOF), "array": np.zeros((3, 2))}),
        "inputs": (np.zeros((3, 1)), INPUTS),
    },
    "tell_apart": {
        "proof": (PROOF, but(THINGS, "3") | {"tuple": tuple(PROOF), "array": np.zeros((3, 2))}),
        "inputs": (None, INPUTS_OF_EACH),
    },
    "simulate": {
        "step_fn": (systems.affine, STEP),
        "params": (AFFINE, PARAMS),
        "hidden0": (np.zeros((3, 2)), STATES),
        "inputs": (np.zeros((3, 4, 1)), but(INPUTS, "wide", "more") | {"wide": np.zeros((3, 4, 2)),
                   "more": np.zeros((4, 4, 1))}),
        "n_time": (None, COUNT | {"both": 4}),
    },
    "find_fixed_points": {
        "step_fn": (systems.affine, STEP | DRAWN),
        "params": (AFFINE, PARAMS | {"NaN within": AFFINE | {"A": np.full((2, 2), np.nan)}}),
        "candidates": (np.zeros((3, 2)), CANDIDATES),
        "inputs": (np.zeros((3, 1)), INPUTS_OF_CANDIDATES),
        "solver": (None, SOLVER),
        "max_steps": (10, COUNT | {"None": None}),
        "tolerance": (0.0, NUMBER),
        "slow_tolerance": (None, but(NUMBER, "None")),
        "unique_tolerance": (None, but(NUMBER, "None")),
        "until": ("all", WORD),
        "bounded": (None, FLAG),
        "chunk_size": (16, COUNT),
        "checkpoint": (None, but(THINGS, "None", "text") | {"": "", "zero byte": "a\0b", "True": True}),
        "sharding": (None, but(THINGS, "None") | {"mesh": (), "device": jax.devices()[0]}),
        "progress": (False, FLAG | {"None": None}),
        "key": (None, but(THINGS, "None", "key") | {"legacy": jax.random.PRNGKey(0), "keys": jax.random.split(KEY)}),
        **KIND,
    },
    "find_fixed_points_ensemble": {
        "step_fn": (systems.affine, STEP | DRAWN),
        "params": (AFFINE_TWICE, PARAMS),
        "candidates": (np.zeros((2, 3, 2)), but(STATES, "nested", "4 axes") | {"ragged": [[0.0], [0.0, 1.0]],
                       "none": np.zeros((2, 0, 2)), "flat": np.zeros(2), "of one": np.zeros((3, 2))}),
        "inputs": (np.zeros(1), but(INPUTS, "flat") | {"NaNs": np.full(1, np.nan), "of one": np.zeros((3, 1)),
                   "wide": np.zeros(7)}),
        "solver": (None, SOLVER),
        "max_steps": (10, COUNT | {"None": None}),
        "tolerance": (0.0, NUMBER),
        "slow_tolerance": (None, but(NUMBER, "None")),
        "unique_tolerance": (None, but(NUMBER, "None")),
        "until": ("all", WORD),
        "bounded": (None, FLAG),
        "chunk_size": (16, COUNT),
        "key": (None, but(THINGS, "None", "key") | {"legacy": jax.random.PRNGKey(0), "keys": jax.random.split(KEY)}),
        **KIND,
    },
    "sample_candidates": {
        "key": (KEY, but(THINGS, "key") | {"legacy": jax.random.PRNGKey(0), "keys": jax.random.split(KEY)}),
        "states": (np.zeros((3, 2)), but(STATES, "4 axes", "wide", "more") | {"flat": np.zeros(2),
                   "none": np.zeros((0, 2))}),
        "n_candidates": (2, but(COUNT, "0") | {"None": None}),
        "noise": (0.1, NUMBER),
    },
    "spectrum": {
        "jacobian": (np.zeros((1, 2, 2)), but(THINGS | ARRAYS, "4 axes") | {"4 axes": np.zeros((2, 2, 2, 2)),
                     "oblong": np.zeros((2, 3)), "none": np.zeros((1, 0, 0)), "nested": [[0.5]]}),
        "dt": (1.0, POSITIVE),
        "vectors": (True, FLAG | {"None": None}),
        "k": (None, COUNT | {"more": 3}),
        "jacobian_error": (None, but(NUMBER, "None", "array", "infinite") | {"more": np.ones(2)}),
        **KIND,
    },
    "audit": {
        "points": ((np.zeros((1, 2)), None), THINGS | {"triple": (1, 2, 3), "flat": (np.zeros(2), None),
                   "inputs": (np.zeros((1, 2)), np.zeros((2, 1))), "inputs flat": (np.zeros((1, 2)), np.zeros(1)),
                   "texts": (np.full((1, 2), "a"), None), "Nones": (None, None), "ragged": ([[1], [1, 2]], None)}),
        "linear": (np.zeros((1, 2, 2)), THINGS | ARRAYS | {"more": np.zeros((2, 2, 2)), "oblong": np.zeros((1, 2, 3)),
                   "flat": np.zeros((2, 2))}),
        "kind": (None, but(WORD, "None")),
        "bounded": (None, FLAG),
    },
    "connections": TRACED | {
        "n_samples": (2, COUNT | {"None": None, "1": 1, "odd": 3}),
        "key": (None, but(THINGS, "None", "key") | {"legacy": jax.random.PRNGKey(0), "keys": jax.random.split(KEY)}),
    },
    "memory_graph": GRAPH,
    "to_networkx": GRAPH,
    "transitions": TRACED | {"pulses": (np.ones((1, 1, 1)), PULSES), "dt": (1.0, POSITIVE)},
    "basins": TRACED | {
        "starts": (np.zeros((3, 2)), but(THINGS | ARRAYS, "3") | {"wide": np.zeros((3, 5)), "none": np.zeros((0, 2)),
                   "flat": np.zeros(2), "ragged": [[0.0], [0.0, 1.0]]}),
        "inputs": (np.zeros(1), INPUTS),
    },
    "critical_amplitude": TRACED | {
        "memory": ([0], THINGS | {"beyond": [1], "before": [-1], "floats": [0.0], "matrix": [[0]], "booleans": [True]}),
        "pulses": (np.ones((1, 1, 1)), PULSES | {"more": np.ones((2, 1, 1))}),
        "low": (0.0, NUMBER | {"more": 2.0}),
        "high": (1.0, POSITIVE),
        "dt": (1.0, POSITIVE),
    },
    "take": {
        "rows": (jaxfp.Linearization(np.zeros((3, 2, 2)), None), THINGS | {"array": np.zeros((3, 2)),
                 "pair": (np.zeros(3), np.zeros(3)), "unequal": jaxfp.Linearization(np.zeros((3, 2, 2)), np.zeros(2)),
                 "numbers": jaxfp.Linearization(np.zeros(()), None)}),
        "keep": (np.array([True, False, True]), but(THINGS, "list") | {"0": 0, "True": True, "long": np.ones(4, bool),
                 "beyond": [0, 3], "before": [-4], "floats": np.zeros(3), "matrix": np.ones((3, 1), int), "dots": ...}),
    },
    "from_arrays": {
        "kind": ("euler", THINGS | {"array": np.zeros(2), "EULER": "EULER", "": ""}),
        "arrays": ({"w_rec": np.eye(2)}, THINGS | {"array": np.eye(2), "pairs": [("w_rec", np.eye(2))],
                   "integers": {"w_rec": np.eye(2, dtype=int)}, "complex": {"w_rec": np.eye(2) * 1j},
                   "texts": {"w_rec": np.full((2, 2), "a")}, "ragged": {"w_rec": [[1.0], [1.0, 2.0]]},
                   "oblong": {"w_rec": np.zeros((2, 3))}, "more": {"w_rec": np.eye(2), "bias": np.zeros(2)},
                   "NaN": {"w_rec": np.full((2, 2), np.nan)}, "number keys": {3: np.eye(2)},
                   "bias": {"w_rec": np.eye(2), "b": np.zeros(3)}, "None within": {"w_rec": None},
                   "w_in": {"w_rec": np.eye(2), "w_in": np.zeros((3, 2))}}),
        "alpha": (0.5, POSITIVE),
        "form": ("rate", but(WORD, "None") | {"0": 0}),
    },
    "from_torch": {
        "state_dict": ({"weight_hh_l0": np.eye(2)}, THINGS | {"array": np.eye(2), "others": {"w_rec": np.eye(2)},
                       "two": {"a.weight_hh_l0": np.eye(2), "b.weight_hh_l0": np.eye(2)},
                       "texts": {"weight_hh_l0": np.full((2, 2), "a")}, "None within": {"weight_hh_l0": None},
                       "oblong": {"weight_hh_l0": np.zeros((2, 3))}, "NaN": {"weight_hh_l0": np.full((2, 2), np.nan)},
                       "bias": {"weight_hh_l0": np.eye(2), "bias_ih_l0": np.zeros(3)},
                       "unequal": {"weight_hh_l0": np.eye(2), "bias_ih_l0": np.zeros(3), "bias_hh_l0": np.zeros(2)}}),
        "cell": ("tanh", THINGS | {"array": np.zeros(2), "GRU": "GRU", "": ""}),
        "layer": (0, THINGS | {"array": np.zeros(2), "-1": -1, "1": 1, "half": 0.5}),
        "prefix": (None, but(THINGS, "None") | {"array": np.zeros(2), "rnn": "rnn."}),
    },
    "from_keras": {
        "weights": ([np.ones((1, 2)), np.eye(2)], THINGS | {"array": np.eye(2), "one": [np.eye(2)],
                    "four": [np.eye(2)] * 4, "texts": [np.full((2, 2), "a")] * 2, "vectors": [np.ones(2)] * 2,
                    "oblong": [np.ones((1, 2)), np.ones((3, 2))], "NaN": [np.full((2, 2), np.nan)] * 2,
                    "bias": [np.ones((1, 2)), np.eye(2), np.zeros(3)], "None within": [None, np.eye(2)]}),
        "cell": ("tanh", THINGS | {"array": np.zeros(2), "GRU": "GRU", "": ""}),
        "reset_after": (None, {"True": True, "text": "yes"}),
    },
    "from_nnx": {
        "cell": (CELL, THINGS | {"class": nnx.GRUCell, "linen": LINEN, "no cell": nnx.Linear(2, 2, rngs=nnx.Rngs(0))}),
        "n_inputs": (None, N_INPUTS),
    },
    "from_linen": {
        "cell": (LINEN, THINGS | {"class": nn.GRUCell, "nnx": CELL, "no cell": nn.Dense(2)}),
        "variables": (VARIABLES, THINGS | {"inner": VARIABLES["params"], "empty": {"params": {}},
                      "of others": nn.LSTMCell(3).init(KEY, (jnp.zeros(3), jnp.zeros(3)), jnp.zeros(2)),
                      "NaN": jax.tree.map(lambda x: x * jnp.nan, VARIABLES)}),
        "n_inputs": (None, N_INPUTS),
    },
    "newton_krylov": KRYLOV,
    "gauss_newton_krylov": KRYLOV,
    "truncated_newton": KRYLOV,
    "levenberg_marquardt": {"damping": (0.01, POSITIVE)},
    "gradient": {"optimizer": (optax.sgd(0.1), THINGS | {"class": optax.sgd, "solver": jaxfp.levenberg_marquardt()})},
    "build_search": {
        "step_fn": (systems.affine, but(THINGS, "key") | {"array": np.zeros(2)}),
        "solver": (jaxfp.levenberg_marquardt(), SOLVER | {"None": None}),
        **KIND,
    },
    "sweep": {
        "step_fn": (systems.affine, STEP),
        "params": (AFFINE, PARAMS | {"NaN within": AFFINE | {"A": np.full((2, 2), np.nan)}}),
        "points": ((np.zeros((3, 2)), np.zeros((3, 1))), THINGS | {"triple": (1, 2, 3), "flat": (np.zeros(2), None),
                   "inputs": (np.zeros((3, 2)), np.zeros((2, 1))), "texts": (np.full((3, 2), "a"), None),
                   "Nones": (None, None), "ragged": ([[1], [1, 2]], None), "NaNs": (np.full((3, 2), np.nan), None),
                   "no units": (np.zeros((3, 0)), None), "wide": (np.zeros((3, 5)), np.zeros(1)),
                   "complex": (np.zeros((3, 2), complex), None), "NaN inputs": (np.zeros((3, 2)), np.full(1, np.nan)),
                   "off the path": (np.zeros((3, 2)), np.ones(1)), "more inputs": (np.zeros((3, 2)), np.zeros(2))}),
        "inputs_path": (np.zeros((4, 1)), THINGS | ARRAYS | {"flat": np.zeros(4), "one sample": np.zeros((1, 1)),
                        "wide": np.zeros((4, 2)), "more": np.zeros((4, 4, 1)), "NaNs": np.full((4, 1), np.nan),
                        "ragged": [[0.0], [0.0, 1.0]], "nothing": np.zeros((0, 1))}),
        "params_path": (None, but(THINGS, "None") | {"missing": but(AFFINE, "A"), "wide": AFFINE | {"A": np.eye(3)},
                        "text within": AFFINE | {"A": "A"}, "lambda within": AFFINE | {"b": len},
                        "NaN within": AFFINE | {"b": np.full((4, 2), np.nan)}, "other length": AFFINE | {
                        "b": np.zeros((3, 2))}, "ragged": AFFINE | {"b": [[0.0], [0.0, 1.0]]}}),
        "start": (None, but(THINGS, "None", "3") | {"-1": -1, "beyond": 4, "0.0": 0.0, "True": True,
                  "two": np.zeros(2, int), "floats": np.zeros(3), "column": np.zeros((3, 1), int),
                  "texts": np.full(3, "a")}),
        "network": (None, but(THINGS, "None") | {"-1": -1, "0.0": 0.0, "True": True, "two": np.zeros(2, int),
                    "beyond": np.full(3, 9), "floats": np.zeros(3), "texts": np.full(3, "a")}),
        "stability": (True, FLAG | {"None": None}),
        "max_step": (None, but(POSITIVE, "None")),
        "max_samples": (2000, COUNT | {"None": None}),
        "kind": ("map", but(WORD, "None")),
    },
    "trace_line": SLOW_POINTS | {
        "n_points": (5, COUNT | {"None": None, "two": 2}),
        "max_speed": (None, but(POSITIVE, "None")),
        "beyond": (0.0, NUMBER),
        "toward": (None, but(AXES, "None", "integers")),
        "max_samples": (9, COUNT | {"None": None}),
    },
    "trace_plane": SLOW_POINTS | {
        "n_points": (5, COUNT | {"None": None}), "reach": (None, but(POSITIVE, "None")),
    },
    "dimension": POINTWISE | {
        "hidden": (np.zeros((3, 2)), CANDIDATES), "n_neighbors": (10, COUNT | {"None": None}), **KIND,
    },
    "project": {
        "line": (LINE, THINGS | {"array": np.zeros((3, 2)), "none": NO_LINE}),
        "states": (np.zeros((3, 2)), but(STATES, "integers", "booleans", "more", "nested") | {"flat": np.zeros(2)}),
    },
    "alignment": {
        "step_fn": (systems.affine, STEP),
        "params": (AFFINE, PARAMS),
        "line": (LINE, THINGS | {"array": np.zeros((3, 2)), "none": NO_LINE}),
        "readout": (None, but(AXES, "None", "integers")),
        "probes": (None, but(THINGS, "None") | {"flat": np.zeros(1), "wide": np.zeros((3, 2)), "texts": [["a"]]}),
    },
    "find_cycles": {
        "step_fn": (systems.affine, STEP),
        "params": (AFFINE, PARAMS | {"NaN within": AFFINE | {"A": np.full((2, 2), np.nan)}}),
        "candidates": (np.zeros((3, 2)), CANDIDATES),
        "k": (2, COUNT | {"None": None}),
        "inputs": (np.zeros((3, 1)), INPUTS_OF_CANDIDATES),
        "max_steps": (10, COUNT | {"None": None}),
    },
    "find_limit_cycles": {
        "step_fn": (systems.affine, STEP),
        "params": (AFFINE, PARAMS | {"NaN within": AFFINE | {"A": np.full((2, 2), np.nan)}}),
        "candidates": (np.zeros((3, 2)), CANDIDATES),
        "inputs": (np.zeros((3, 1)), INPUTS_OF_CANDIDATES),
        "dt": (0.1, POSITIVE),
        "period": (1.0, but(POSITIVE, "None") | {"one is 0": np.array([1.0, 1.0, 0.0]), "column": np.ones((3, 1))}),
        "n_segments": (8, COUNT | {"None": None}),
        "n_settle": (0, but(COUNT, "0") | {"None": None}),
        "n_time": (4, COUNT | {"None": None}),
        **KIND,
    },
    "floquet_multipliers": {
        "jacobians": (np.zeros((3, 2, 2)), but(THINGS | ARRAYS, "4 axes") | {"4 axes": np.zeros((2, 2, 2, 2)),
                      "oblong": np.zeros((3, 2, 3)), "none": np.zeros((0, 2, 2)), "flat": np.zeros((2, 2)),
                      "no units": np.zeros((3, 0, 0)), "NaNs": np.full((3, 2, 2), np.nan)}),
    },
    "lyapunov_exponents": POINTWISE | {
        "n_time": (4, COUNT | {"None": None}),
        "n_settle": (0, but(COUNT, "0") | {"None": None}),
        "k": (2, COUNT | {"more": 3}),
        "dt": (0.1, POSITIVE),
        **KIND,
    },
}  # fmt: skip
CASES = [
    (function, argument, what)
    for function, arguments in FUNCTIONS.items()
    for argument, (_, wrong) in arguments.items()
    for what in wrong
]
ALSO_CALLED = {  # what a message may call an argument: by what it lies in, or by what it does not fit
    "arrays": ("w_rec", "w_in", "b must"),
    "state_dict": ("weight_hh", "bias_ih", "w_rec", "b must"),
    "weights": ("kernel", "w_in", "bias must", "b must"),
    "candidates": ("hidden",),
    "hidden": ("displacements", "directions"),
    "hidden0": ("hidden",),
    "points": ("hidden", "inputs"),
    "params_path": ("params",),
    "center": ("hidden",),
    "n_inputs": ("inputs",),
    "cell": ("carry", "n_inputs"),  # what it is asked for
    "variables": ("n_inputs", "weights"),
}


@pytest.fixture(autouse=True)
def _nothing_is_searched(monkeypatch):
    def searched(*_, **__):
        pytest.fail("searched in spite of the mistake")

    monkeypatch.setattr(wave, "search_wave", searched)
    monkeypatch.setattr(report, "analyze", searched)
    monkeypatch.setattr(flip_flop, "behaviour", searched)


def test_no_public_function_is_left_out():
    """A new one finds its row here first; and each row has all arguments."""
    public = {name for name in jaxfp.__all__ if inspect.isfunction(getattr(jaxfp, name))}
    assert public == set(FUNCTIONS)
    for name, arguments in FUNCTIONS.items():
        assert set(inspect.signature(getattr(jaxfp, name)).parameters) == set(arguments), name
    assert len(CASES) >= 200


@pytest.mark.parametrize(("function", "argument"), sorted({case[:2] for case in CASES}))
def test_a_wrong_argument_is_named(function, argument):
    """One ValueError; it names the argument, says what it must be, and shows no page of numbers."""
    right = {name: value for name, (value, _) in FUNCTIONS[function].items()}
    for what, wrong in FUNCTIONS[function][argument][1].items():
        try:
            answer = getattr(jaxfp, function)(**right | {argument: wrong})
        except ValueError as error:
            said = str(error)
        else:
            pytest.fail(f"{what}: {answer}")
        assert any(name in said for name in (argument, *ALSO_CALLED.get(argument, ()))), f"{what}: {said}"
        assert any(word in said for word in ("must", "cannot", "needs", "draws", "not known", "fit")), f"{what}: {said}"
        assert len(said) < 1500, f"{what}: {said}"


PAIRS = {
    "width": (lambda: jaxfp.q(systems.affine, AFFINE, np.zeros((3, 3)), np.zeros(1)), r"hidden \(3,\)"),
    "rows": (lambda: jaxfp.q(systems.affine, AFFINE, np.zeros((3, 2)), np.zeros((2, 1))), "one row for each of 3"),
    "one state": (lambda: jaxfp.q(systems.affine, AFFINE, np.zeros(2), np.zeros((2, 1))), "hidden must be"),
    "no inputs": (lambda: jaxfp.q(systems.driven, {"W": np.eye(2), "B": np.eye(2)}, np.zeros(2)), "inputs None"),
    "dtype": (
        lambda: jaxfp.simulate(systems.affine, jax.tree.map(jnp.asarray, AFFINE), jnp.zeros(2, jnp.float16), n_time=2),
        "must return the dtype of hidden0, float16, it returned float32|no.*type promotion",
    ),
    "integers": (lambda: jaxfp.linearize(systems.affine, AFFINE, np.zeros(2), np.zeros(1, int)), "inputs must be"),
    "no time": (lambda: jaxfp.simulate(systems.affine, AFFINE, np.zeros(2)), "needs inputs or n_time"),
    "k": (lambda: jaxfp.spectrum(np.eye(2), vectors=False, k=1), "k= needs vectors=True"),
    "alpha": (lambda: jaxfp.from_arrays("tanh", {"w_rec": np.eye(2)}, alpha=0.1), "alpha goes with"),
    "no alpha": (lambda: jaxfp.from_arrays("euler", {"w_rec": np.eye(2)}), "alpha = dt/tau must be"),
    "form": (lambda: jaxfp.from_arrays("gru", {"w_rec": np.zeros((6, 2))}, form="rate"), "form goes with"),
    "gates": (lambda: jaxfp.from_arrays("gru", {"w_rec": np.eye(2)}), r"\(3 \* n_hidden, n_hidden\)"),
    "rank": (lambda: jaxfp.from_arrays("low_rank", {"m": np.ones((3, 1)), "n": np.ones((3, 2))}, alpha=1), "m and n"),
    "devices": (
        lambda: jaxfp.find_fixed_points(
            systems.affine, AFFINE, np.zeros((3, 2)), None, chunk_size=7,
            sharding=type("Two", (jax.sharding.Sharding,), {"device_set": {1, 2}, "__hash__": object.__hash__,
                          "__abstractmethods__": frozenset()})(),
        ),
        "its 2 devices must divide chunk_size, got 7",
    ),
    "in a search": (
        lambda: jaxfp.build_search(systems.affine, jaxfp.levenberg_marquardt())(
            AFFINE, [[0.0, 0.0]], None, tolerance=0.0, max_steps=3
        ),
        "hidden must be floating",
    ),
    "the user's own": (lambda: jaxfp.q(systems.breaks, None, np.zeros(2)), "a mistake in the user's step"),
}  # fmt: skip


@pytest.mark.parametrize("what", PAIRS)
def test_arguments_that_do_not_fit_together(what):
    """What was wanted and what came; a mistake inside the user's step stays the user's."""
    call, said = PAIRS[what]
    with pytest.raises(RuntimeError if what == "the user's own" else ValueError, match=said):
        call()


def test_a_users_jit_sees_the_same_errors():
    """Shapes are checked while tracing."""
    with pytest.raises(ValueError, match="hidden must be floating"):
        jax.jit(lambda h: jaxfp.q(systems.affine, AFFINE, h, jnp.zeros(1)))(jnp.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="must return the shape of hidden"):
        jax.vmap(lambda h: jaxfp.linearize(systems.loses_a_unit, None, h).jacobian)(jnp.zeros((2, 2)))


# The command line.

TANH = ["find", "w.npz", "--cell", "tanh"]
COMMANDS = {
    "no command": [],
    "unknown command": ["search"],
    "unknown option": [*TANH, "--fast"],
    "no weights": ["find", "--cell", "tanh"],
    "no cell": ["find", "w.npz"],
    "unknown cell": ["find", "w.npz", "--cell", "TANH"],
    "no file": ["find", "nowhere.npz", "--cell", "tanh"],
    "no name": ["find", "", "--cell", "tanh"],
    "long name": ["find", "n" * 5000, "--cell", "tanh"],
    "a zero byte": ["find", "w\0.npz", "--cell", "tanh"],
    "a folder": ["find", ".", "--cell", "tanh"],
    "weights of text": ["find", "text", "--cell", "tanh"],
    "weights of a pickle": ["find", "pickle.npz", "--cell", "tanh"],
    "weights cut off": ["find", "cut.npz", "--cell", "tanh"],
    "weights of others": ["find", "others.npz", "--cell", "tanh"],
    "weights NaN": ["find", "nan.npz", "--cell", "tanh"],
    "weights integer": ["find", "integer.npz", "--cell", "tanh"],
    "another cell": ["find", "w.npz", "--cell", "lstm"],
    **{
        f"array {a}": [*TANH, "--array", a]
        for a in ("", "=", "w_rec", "w_rec=", "=W", "x=w_rec", "w_rec=X", "w_rec=X.T")
    },
    **{f"alpha {a}": ["find", "w.npz", "--cell", "euler", "--alpha", a] for a in ("0", "-1", "nan", "inf", "x", "")},
    **{f"form {a}": ["find", "w.npz", "--cell", "euler", "--alpha", "1", "--form", a] for a in ("", "Rate", "x")},
    **{f"inputs {a}": [*TANH, "--inputs", *a.split()] for a in ("", "1", "1 2 3", "x y", "nan 0", "inf 0", "1,2")},
    **{f"candidates {a}": [*TANH, "--candidates", a] for a in ("no", "text", ".", "flat.npy", "pickle.npz", "w.npz")},
    **{f"n-candidates {a}": [*TANH, "--n-candidates", a] for a in ("0", "-1", "2.5", "x", "")},
    **{f"dt {a}": [*TANH, "--dt", a] for a in ("0", "-1", "nan", "inf", "x", "1/2")},
    **{f"seed {a}": [*TANH, "--seed", a] for a in ("-1", "x", "0.5", str(2**32), "1e3", "")},
    **{f"out {a}": [*TANH, "--out", a] for a in ("text", "text/below")},
    **{f"checkpoint {a}": [*TANH, "--checkpoint", a] for a in ("text", "text/below")},
    **{f"flip-flop seed {a}": ["flip-flop", "--seed", a] for a in ("-1", "x", str(2**64))},
    **{f"flip-flop noise {a}": ["flip-flop", "--noise", a] for a in ("-1", "nan", "inf", "x")},
    **{f"flip-flop candidates {a}": ["flip-flop", "--candidates", a] for a in ("0", "-1", "1.5", "x")},
    **{f"flip-flop n-hidden {a}": ["flip-flop", "--train", "--n-hidden", a] for a in ("0", "-1", "x")},
    **{f"flip-flop {a}": ["flip-flop", f"--{a}", "text"] for a in ("out", "checkpoint")},
    "flip-flop n-hidden": ["flip-flop", "--n-hidden", "8"],
    "flip-flop cell": ["flip-flop", "--cell", "relu"],
    "flip-flop argument": ["flip-flop", "w.npz"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files, one right, the others each wrong in its way."""
    place = tmp_path_factory.mktemp("files")
    io.save(place / "w.npz", {"w_rec": np.eye(4), "w_in": np.zeros((4, 2))}, {})
    (place / "cut.npz").write_bytes((place / "w.npz").read_bytes()[:-30])
    (place / "text").write_text("mine")
    np.savez(place / "pickle.npz", w_rec=np.array([{}], object), candidates=np.array([{}], object))
    np.savez(place / "others.npz", weight_hh_l0=np.eye(4))
    np.savez(place / "nan.npz", w_rec=np.full((4, 4), np.nan))
    np.savez(place / "integer.npz", w_rec=np.eye(4, dtype=int))
    np.save(place / "flat.npy", np.zeros(4))
    return place


@pytest.mark.parametrize("what", COMMANDS)
def test_a_wrong_command_is_one_line(folder, capsys, monkeypatch, what):
    """Status 2, nothing on the standard output, one line with `error:` after argparse's usage, no file written."""
    monkeypatch.chdir(folder)
    before = sorted(path.name for path in folder.iterdir())
    status = None
    with contextlib.suppress(SystemExit) as _:
        status = cli.main(COMMANDS[what])
    printed = capsys.readouterr()
    assert status in (None, 2)
    assert printed.out == ""
    assert "Traceback" not in printed.err
    lines = [line for line in printed.err.splitlines() if "error: " in line]
    assert len(lines) == 1
    assert printed.err.splitlines()[-1] == lines[0]
    assert len(lines[0].partition("error: ")[2]) > 15
    assert sorted(path.name for path in folder.iterdir()) == before


def test_how_many():
    """What the note says: at least 200 wrong calls in Python, and the command line."""
    assert len(CASES) + len(PAIRS) >= 200
    assert len(COMMANDS) >= 50
