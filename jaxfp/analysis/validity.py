"""How far from a point its linearization holds.

Along a displacement d from h, with r the residual (F(h) - h of a map, F(h) of a flow),

    r(h + d) = r(h) + r' d + 1/2 d' r'' d + ...

The linear model is usable where ||r' d|| > ||r|| and ||r' d|| > ||1/2 d' r'' d|| (Sussillo & Barak 2013): at fixed
points, and at slow points, whose r acts as a constant drift. All derivatives are exact, of the curve t -> r(h + t d):
no third tensor is formed.

What counts in the end is prediction. From h + d the network goes to h + y_1, h + y_2, ..., the linear model to
h + z_t with z_0 = d and z_{t+1} = z_t + r + r' z_t (a flow: the same two fields, each in Runge-Kutta steps of
fourth order). The error after t steps is

    ||y_t - z_t|| / max_{s <= t} ||y_s||,

relative to the largest displacement so far, so that a mode which dies at once does not have to be predicted to
digits that nobody sees. The radius of validity along d is the largest rho such that from h + s d / ||d|| and
h - s d / ||d||, 0 < s <= rho, the error stays below a stated share for the stated number of steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfp import dynamics
from jaxfp.types import Array, Kind, Params, StepFn

_DOUBLINGS = 40  # from the smallest radius to the largest
_BISECTIONS = 24  # of the last doubling: the radius to 1e-7 of itself


class TaylorTerms(NamedTuple):
    """Norms of the terms of r(h + d); units of r: activation per step (map) or per unit of time (flow).

    Attributes:
      constant: (n_points,) ||r||, the speed of the point.
      first: (n_points, n_directions) ||r' d||.
      second: (n_points, n_directions) ||1/2 d' r'' d||.
      usable: (n_points, n_directions) bool, first > constant and first > second.
    """

    constant: Any
    first: Any
    second: Any
    usable: Any


class Prediction(NamedTuple):
    """Where states go, and where the linear model at the point says they do.

    Attributes:
      hidden: (n_points, n_directions, n_steps, n_hidden) the network's states h_1 .. h_T, from h + d.
      predicted: (n_points, n_directions, n_steps, n_hidden) the linear model's.
      error: (n_points, n_directions, n_steps) distance of the two, as a share of the largest displacement of the
        network from the point so far.
    """

    hidden: Any
    predicted: Any
    error: Any


class Validity(NamedTuple):
    """How far the linear model reaches.

    Attributes:
      radius: (n_points, n_directions) activation units; infinite where the model holds up to max_radius, 0 where it
        fails as near to the point as can be told from rounding.
      error: (n_points, n_directions) the largest error at that radius, at max_radius where it is infinite, at the
        smallest one where it is 0.
    """

    radius: Any
    error: Any


@dynamics.float64_on_numpy
def taylor_terms(
    step_fn: StepFn, params: Params, hidden: Array, inputs: Array | None, displacements: Array, *, kind: Kind = "map"
) -> TaylorTerms:
    """Sizes of the constant, linear and quadratic term of the dynamics along displacements from given states.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      hidden: (n_hidden,) or (n_points, n_hidden), activation units.
      inputs: None, (n_inputs,) or (n_points, n_inputs), held constant.
      displacements: (n_directions, n_hidden) for all points, or (n_points, n_directions, n_hidden); activation units.
      kind: "map" or "flow".

    Returns:
      TaylorTerms; without the axis n_points where hidden is (n_hidden,).

    Raises:
      ValueError: if the shapes do not fit or kind is unknown.

    Example:
      >>> def step(params, hidden, inputs):
      ...     return hidden + 0.5 * hidden + hidden**2
      >>> terms = taylor_terms(step, None, np.zeros(1), None, np.array([[0.25], [1.0]]))
      >>> terms.first.tolist(), terms.second.tolist(), terms.usable.tolist()
      ([0.125, 0.5], [0.0625, 1.0], [True, False])

    Source: Sussillo & Barak (2013), Neural Computation 25:626, eq. 1.1-1.3. Differs: theirs is a flow.
    """

    def one(h: jax.Array, u: jax.Array | None, d: jax.Array) -> TaylorTerms:
        residual_of = dynamics.residual_fn(step_fn, params, u, kind)

        def slope(t: jax.Array) -> tuple[jax.Array, jax.Array]:
            return jax.jvp(lambda t: residual_of(h + t * d), (t,), (jnp.ones_like(t),))

        start = jnp.zeros((), h.dtype)
        (r, first), (_, second) = jax.jvp(slope, (start,), (jnp.ones_like(start),))
        constant, first, second = (jnp.linalg.norm(x) for x in (r, first, second / 2))
        return TaylorTerms(constant, first, second, (first > constant) & (first > second))

    terms = _along(one, hidden, inputs, displacements, "displacements")
    return terms._replace(constant=dynamics.speed(step_fn, params, jnp.asarray(hidden), inputs, kind=kind))


@dynamics.float64_on_numpy
def linear_prediction(
    step_fn: StepFn,
    params: Params,
    hidden: Array,
    inputs: Array | None,
    displacements: Array,
    *,
    n_steps: int = 10,
    kind: Kind = "map",
    dt: float = 0.01,
) -> Prediction:
    """The network and its linear model at given points, side by side from displaced states.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      hidden: (n_hidden,) or (n_points, n_hidden), fixed or slow points, activation units.
      inputs: None, (n_inputs,) or (n_points, n_inputs), held constant.
      displacements: (n_directions, n_hidden) for all points, or (n_points, n_directions, n_hidden); activation units.
      n_steps: how many steps.
      kind: "map" or "flow".
      dt: duration of one step of a flow; unused for a map.

    Returns:
      Prediction; without the axis n_points where hidden is (n_hidden,).

    Raises:
      ValueError: if the shapes do not fit, kind is unknown or n_steps below 1.

    Example:
      >>> def step(params, hidden, inputs):
      ...     return 0.5 * hidden + hidden**2
      >>> result = linear_prediction(step, None, np.zeros(1), None, np.array([[0.25]]), n_steps=2)
      >>> result.hidden.ravel().tolist(), result.predicted.ravel().tolist(), result.error.ravel().tolist()
      ([0.1875, 0.12890625], [0.125, 0.0625], [0.25, 0.265625])
    """

    def one(h: jax.Array, u: jax.Array | None, d: jax.Array) -> Prediction:
        y, z, error = _side_by_side(dynamics.residual_fn(step_fn, params, u, kind), h, d, n_steps, kind, dt)
        return Prediction(h[None] + y, h[None] + z, error)

    return _along(one, hidden, inputs, displacements, "displacements")


@dynamics.float64_on_numpy
def validity_radius(
    step_fn: StepFn,
    params: Params,
    hidden: Array,
    inputs: Array | None,
    directions: Array,
    *,
    tolerance: float = 0.1,
    n_steps: int = 10,
    max_radius: float = 1000.0,
    kind: Kind = "map",
    dt: float = 0.01,
) -> Validity:
    """Radius within which the linear model at a point predicts the next steps to a given share, along directions.

    The radius is doubled until the prediction fails to either side, then bisected: a failure between two radii that
    both pass, a doubling apart, is not seen. It is that of the directions asked for: the least over the modes or over
    random directions estimates, and does not prove, a radius for all.

    Args:
      step_fn: map `(params, hidden, inputs) -> hidden`, one time step; or the vector field of a flow.
      params: pytree that `step_fn` understands.
      hidden: (n_hidden,) or (n_points, n_hidden), fixed or slow points, activation units.
      inputs: None, (n_inputs,) or (n_points, n_inputs), held constant.
      directions: (n_directions, n_hidden) for all points, or (n_points, n_directions, n_hidden); real, of any length
        but 0. Of a complex mode the real and imaginary part.
      tolerance: the share, e.g. 0.1 for 10 %, that the error may reach.
      n_steps: for how many steps.
      max_radius: where to stop, activation units. The smallest radius is this times 2^-40, or what rounding leaves.
      kind: "map" or "flow".
      dt: duration of one step of a flow; unused for a map.

    Returns:
      Validity; without the axis n_points where hidden is (n_hidden,).

    Raises:
      ValueError: if the shapes do not fit, kind is unknown, n_steps below 1 or another number is not positive.

    Example:
      >>> def step(params, hidden, inputs):
      ...     return 0.5 * hidden + hidden**2
      >>> found = validity_radius(step, None, np.zeros(1), None, np.ones((1, 1)), n_steps=1)
      >>> round(float(found.radius[0]), 6)  # d^2 / d = 0.1
      0.1
    """

    def one(h: jax.Array, u: jax.Array | None, d: jax.Array) -> Validity:
        residual_of = dynamics.residual_fn(step_fn, params, u, kind)
        way = d / jnp.linalg.norm(d)
        signs = jnp.array([1, -1], h.dtype)

        def error(radius: jax.Array) -> jax.Array:
            def of(sign: jax.Array) -> jax.Array:
                return _side_by_side(residual_of, h, sign * radius * way, n_steps, kind, dt)[2].max()

            return jax.vmap(of)(signs).max()

        largest = jnp.asarray(max_radius, h.dtype)
        rounding = jnp.finfo(h.dtype).eps * h.size**0.5 * (1 + jnp.linalg.norm(h))
        smallest = jnp.clip(64 * rounding / tolerance, largest * 2.0**-_DOUBLINGS, largest)

        def passes(radius: jax.Array) -> jax.Array:
            return error(radius) <= tolerance  # false for NaN

        def doubled(radii: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
            _, radius, _ = radii
            new = jnp.minimum(2 * radius, largest)
            return radius, new, passes(new)

        def halved(_: int, radii: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            good, bad = radii
            middle = (good + bad) / 2
            well = passes(middle)
            return jnp.where(well, middle, good), jnp.where(well, bad, middle)

        good, bad, well = jax.lax.while_loop(
            lambda radii: radii[2] & (radii[1] < largest),
            doubled,
            (jnp.zeros_like(largest), smallest, passes(smallest)),
        )
        found = jax.lax.fori_loop(0, _BISECTIONS, halved, (good, bad))[0]
        at = jnp.where(well, largest, jnp.where(good > 0, found, smallest))
        return Validity(jnp.where(well, jnp.inf, jnp.where(good > 0, found, 0)), error(at))

    return _along(one, hidden, inputs, directions, "directions")


def _side_by_side(
    residual_of: Callable[[jax.Array], jax.Array], h: jax.Array, d: jax.Array, n_steps: int, kind: Kind, dt: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(y_t, z_t, error_t) for t = 1 .. n_steps: displacements of the network and of the linear model."""
    r, slope = jax.linearize(residual_of, h)

    def advance(field: Callable[[jax.Array], jax.Array], y: jax.Array) -> jax.Array:
        if kind == "map":
            return y + field(y)
        a = field(y)
        b = field(y + dt / 2 * a)
        c = field(y + dt / 2 * b)
        return y + dt / 6 * (a + 2 * b + 2 * c + field(y + dt * c))

    def step(carry: Any, _: None) -> tuple[Any, Any]:
        y, z, largest = carry
        y = advance(lambda y: residual_of(h + y), y)
        z = advance(lambda z: r + slope(z), z)
        largest = jnp.maximum(largest, jnp.linalg.norm(y))
        return (y, z, largest), (y, z, jnp.linalg.norm(y - z) / largest)

    return jax.lax.scan(step, (d, d, jnp.linalg.norm(d)), length=n_steps)[1]


def _along(one: Callable[[Any, Any, Any], Any], hidden: Any, inputs: Any, directions: Any, name: str) -> Any:
    """Apply a function of one state and one direction to all states and all directions."""
    hidden = jnp.asarray(hidden)
    wanted = f"(n_directions, {hidden.shape[-1]}) or (n_points, n_directions, {hidden.shape[-1]})"
    directions = jnp.asarray(directions).astype(hidden.dtype)
    if directions.shape[-1:] != hidden.shape[-1:]:
        raise ValueError(f"{name} must be {wanted}, got {directions.shape}.")
    if directions.ndim == 3 and directions.shape[:1] != hidden.shape[:-1]:
        raise ValueError(f"{name} must be one stack a point, got {directions.shape} for hidden {hidden.shape}.")

    def each(h: jax.Array, u: Any, ways: jax.Array) -> Any:
        return jax.vmap(lambda d: one(h, u, d))(ways)

    if directions.ndim == 2:
        return dynamics.over_points(lambda h, u: each(h, u, directions), hidden, inputs)
    # The rows of a point and its directions are one state for over_points, which knows which inputs fit.
    n, shape = hidden.shape[-1], directions.shape
    rows = jnp.concatenate([hidden, directions.reshape(shape[0], shape[1] * n)], axis=1)
    return dynamics.over_points(lambda row, u: each(row[:n], u, row[n:].reshape(shape[1:])), rows, inputs)
