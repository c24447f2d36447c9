"""Exact linearization of the dynamics: dF/dh and dF/du by forward differentiation.

    F(h* + d, u* + e) = F(h*, u*) + J d + J_in e + ...,     J = dF/dh,  J_in = dF/du at (h*, u*).

For a map J is the one-step propagator whatever the cell; for a flow it is the generator. Nothing is subtracted: J of
a map is dF/dh, not dF/dh - I.
"""

from typing import Any, NamedTuple

import jax

from jaxfp import arguments, dynamics
from jaxfp.types import Array, Params, StepFn


class Linearization(NamedTuple):
    """The linear dynamics at each point.

    Attributes:
      jacobian: (n_points, n_hidden, n_hidden) dF/dh, dimensionless per step (map) or per unit of time (flow).
      input_jacobian: (n_points, n_hidden, n_inputs) dF/du, or None where inputs is None.
    """

    jacobian: Any
    input_jacobian: Any


@dynamics.float64_on_numpy
def linearize(step_fn: StepFn, params: Params, hidden: Array, inputs: Array | None = None) -> Linearization:
    """Jacobians of the step function at given states.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, or the vector field of a flow.
      params: pytree that `step_fn` understands.
      hidden: (n_hidden,) or (n_points, n_hidden), activation units.
      inputs: None, (n_inputs,) or (n_points, n_inputs).

    Returns:
      Linearization; without the leading axis where hidden is (n_hidden,).

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> linearize(lambda p, h, u: jnp.tanh(p @ h), 2 * jnp.eye(2), jnp.zeros(2)).jacobian.tolist()
      [[2.0, 0.0], [0.0, 2.0]]

    Source: Sussillo & Barak (2013), Neural Computation 25:626, eq. 2.1.
    """
    if inputs is not None:
        arguments.check_array("inputs", inputs, "to differentiate by them", (1, 2))

    def one(h: jax.Array, u: jax.Array | None) -> Linearization:
        with jax.default_matmul_precision("highest"):
            if u is None:
                return Linearization(jax.jacfwd(lambda h: arguments.step(step_fn, params, h, None))(h), None)
            return Linearization(*jax.jacfwd(lambda h, u: arguments.step(step_fn, params, h, u), argnums=(0, 1))(h, u))

    return dynamics.over_points(one, hidden, inputs)
