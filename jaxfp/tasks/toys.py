"""Two planar flows whose fixed and slow points are known in closed form (Sussillo & Barak 2013, figure 1).

three_points:  x1' = (1 - x1^2) x2,             x2' = x1 / 2 - x2.
               A saddle at 0 with eigenvalues (-1 +- sqrt 3) / 2, stable nodes at +-(1, 1/2) with the defective
               Jacobian [[-1, 0], [1/2, -1]].
ghost:         x1' = x2 - (x1^2 + 1/4 + a),     x2' = x1 - x2.
               a < 0: fixed points x1 = x2 = 1/2 +- sqrt(-a), a node at + and a saddle at -. a = 0: they meet. a > 0:
               no fixed point, and one minimum of q at (1/2, 1/2 + a/2) with q = a^2 / 4, speed a / sqrt 2 and
               eigenvalues {0, -2}.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class KnownPoint(NamedTuple):
    """A point known in closed form.

    Attributes:
      hidden: (2,).
      q: scalar, half the squared speed there; 0 for a fixed point.
      eigenvalues: (2,) of the Jacobian, largest real part first.
    """

    hidden: np.ndarray
    q: float
    eigenvalues: np.ndarray


def three_points(params: None, hidden: jax.Array, inputs: None = None) -> jax.Array:
    """Vector field with a saddle between two stable nodes.

    Args:
      params: None, the field has none.
      hidden: (2,), the state x.
      inputs: None, the field has none.

    Returns:
      (2,), dx/dt.

    Example:
      >>> three_points(None, jnp.array([1.0, 0.5])).tolist()
      [0.0, 0.0]

    Source: Sussillo & Barak (2013), Neural Computation 25:626, figure 1.
    """
    x1, x2 = hidden
    return jnp.stack([(1 - x1**2) * x2, x1 / 2 - x2])


def ghost(params: jax.Array | float, hidden: jax.Array, inputs: None = None) -> jax.Array:
    """Vector field with a saddle-node at a = 0, and a slow point, its ghost, for a > 0.

    Args:
      params: scalar, the distance a from the bifurcation.
      hidden: (2,), the state x.
      inputs: None, the field has none.

    Returns:
      (2,), dx/dt.

    Example:
      >>> ghost(0.0, jnp.array([0.5, 0.5])).tolist()
      [0.0, 0.0]

    Source: Sussillo & Barak (2013), Neural Computation 25:626, figure 1.
    """
    x1, x2 = hidden
    return jnp.stack([x2 - (x1**2 + 1 / 4 + params), x1 - x2])


def known_three_points() -> list[KnownPoint]:
    """The three fixed points of `three_points`.

    Returns:
      The saddle, then the two nodes.

    Example:
      >>> [point.hidden.tolist() for point in known_three_points()]
      [[0.0, 0.0], [1.0, 0.5], [-1.0, -0.5]]
    """
    saddle = np.array([-1 + np.sqrt(3), -1 - np.sqrt(3)]) / 2
    node = np.array([-1.0, -1.0])
    places = ([0.0, 0.0], saddle), ([1.0, 0.5], node), ([-1.0, -0.5], node)
    return [KnownPoint(np.array(x), 0.0, eigenvalues) for x, eigenvalues in places]


def known_ghost(a: float) -> list[KnownPoint]:
    """The minima of q of `ghost`.

    Args:
      a: distance from the bifurcation.

    Returns:
      Node and saddle for a < 0, the double point for a = 0, the slow point for a > 0.

    Example:
      >>> [float(point.q) for point in known_ghost(0.5)]
      [0.0625]
    """
    if a < 0:
        roots = [0.5 + np.sqrt(-a), 0.5 - np.sqrt(-a)]
        # J = [[-2 x1, 1], [1, -1]]: trace -1 - 2 x1, determinant 2 x1 - 1.
        spectra = [np.sort(np.linalg.eigvalsh([[-2 * x, 1.0], [1.0, -1.0]]))[::-1] for x in roots]
        return [KnownPoint(np.array([x, x]), 0.0, s) for x, s in zip(roots, spectra, strict=True)]
    return [KnownPoint(np.array([0.5, 0.5 + a / 2]), a**2 / 4, np.array([0.0, -2.0]))]
