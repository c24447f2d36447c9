"""Maps and flows with known answers, named functions so that they compile once."""

import jax
import jax.numpy as jnp
import numpy as np


def tanh_row(params, hidden, inputs):
    """FixedPointFinder's test networks in row form: h' = tanh(h W)."""
    return jnp.tanh(hidden @ params)


def suite_weights(n: int) -> np.ndarray:
    """W[i] = -roll(linspace(-1, 1, n), -i)."""
    return np.stack([-np.roll(np.linspace(-1, 1, n), -i) for i in range(n)])


def scalar_tanh(params, hidden, inputs):
    """One step: h' = tanh(w h): one point for w <= 1, three after the pitchfork at w = 1."""
    return jnp.tanh(params * hidden)


def affine(params, hidden, inputs):
    """One step: h' = A h + b (+ B u): the one point is (I - A)^-1 (b + B u)."""
    drive = params["b"] if inputs is None else params["b"] + params["B"] @ inputs
    return params["A"] @ hidden + drive


def identity(params, hidden, inputs):
    """One step: h' = h: everything is fixed, nothing is isolated."""
    return hidden


def line(params, hidden, inputs):
    """One step: h' = w (w . h) with |w| = 1: a line of fixed points along w."""
    return params * (params @ hidden)


def fold(params, hidden, inputs):
    """One step: h' = h + eps + h^2: two points for eps < 0, a double one at 0, a ghost, q = eps^2 / 2, for eps > 0."""
    return hidden + params + hidden**2


def gated(params, hidden, inputs):
    """One step: h' = z h + (1 - z) tanh(W h) with z = sigmoid(V h + c): a GRU without a reset gate."""
    z = jax.nn.sigmoid(params["V"] @ hidden + params["c"])
    return z * hidden + (1 - z) * jnp.tanh(params["W"] @ hidden)
