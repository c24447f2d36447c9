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


def driven(params, hidden, inputs):
    """One step: h' = tanh(W h + B u)."""
    return jnp.tanh(params["W"] @ hidden + params["B"] @ inputs)


def quartic(params, hidden, inputs):
    """Flow x' = a + x^2 in the first unit, y' = -y in the others: minimum of q at 0 for a > 0, maximum for a < 0."""
    return jnp.concatenate([params + hidden[:1] ** 2, -hidden[1:]])


def narrow(params, hidden, inputs):
    """One step: h' = tanh(W h), its product in float32 whatever it is given."""
    product = params.astype(jnp.float32) @ hidden.astype(jnp.float32)
    return jnp.tanh(product).astype(hidden.dtype)


def noisy(params, hidden, inputs):
    """No map: h' = a h + noise."""
    return params * hidden + jax.random.normal(jax.random.key(0), hidden.shape, hidden.dtype)


def loses_a_unit(params, hidden, inputs):
    """No map of a space into itself."""
    return hidden[1:]


def breaks(params, hidden, inputs):
    """A user's step with a mistake in it."""
    raise RuntimeError("a mistake in the user's step")
