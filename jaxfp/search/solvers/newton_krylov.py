"""Levenberg-Marquardt on q(h) = 1/2 ||r(h)||^2 inside a Krylov space: no Jacobian, only products with it.

A few products give orthonormal bases V (k vectors) and U (k + 1 vectors) with J V = U H and r = beta u_0, so that on
the space spanned by V the linear model is small:

    min_y ||H y + beta e_0||^2 + mu ||y||^2,     d = V y,     accepted iff q(h + d) < q(h).

    newton_krylov        V = U: Arnoldi on J from r. One product a vector. The Jacobian of an RNN is a few slow modes
                         and a rest that decays, so that eight vectors hold nearly the whole Newton step.
    gauss_newton_krylov  Golub-Kahan on J from r, v_0 = J'r / ||J'r||. Two products a vector, but the space always
                         holds the gradient of q: it ends at minima of q, slow points too, where Newton has no step.
    truncated_newton     Lanczos on the exact Hessian of q from its gradient, four products a vector: where q has a
                         minimum above zero, Gauss-Newton creeps and this converges quadratically.

One candidate is written; under `vmap` each product of all candidates is one matrix product. The damping mu follows the
decrease achieved over the one predicted (Nielsen 1999), relative to the largest diagonal entry of H'H.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from jaxfp import arguments
from jaxfp.search.solvers import levenberg_marquardt
from jaxfp.search.solvers.levenberg_marquardt import State
from jaxfp.types import ResidualFn, Solver


def newton_krylov(n_vectors: int = 8, damping: float = 1e-2) -> Solver:
    """Matrix-free Newton steps, damped as Levenberg-Marquardt within the Krylov space of r.

    Args:
      n_vectors: vectors of the Krylov space, products with J an iteration; no more than n_hidden are used.
      damping: first mu, relative to the largest diagonal entry of H'H.

    Returns:
      Solver. Fast to zeros of r; at a minimum of q above zero it may get stuck, as any Newton method.

    Raises:
      ValueError: if n_vectors is not a positive integer or damping not positive and finite.

    Example:
      >>> solver = newton_krylov()
      >>> state = solver.init(lambda h: h**2 - 2, jnp.array([1.0]))
      >>> for _ in range(8):
      ...     state = solver.step(lambda h: h**2 - 2, state)
      >>> round(float(state.hidden[0]), 5)
      1.41421

    Source: Brown & Saad (1990), SIAM J. Sci. Stat. Comput. 11:450, hybrid Krylov methods.
    """
    return _solver(n_vectors, damping, transposed=False)


def gauss_newton_krylov(n_vectors: int = 16, damping: float = 1e-2) -> Solver:
    """Matrix-free Levenberg-Marquardt, for minima of q of any height.

    Args:
      n_vectors: vectors of the Krylov space, products with J and with J' an iteration; no more than n_hidden are used.
      damping: first mu, relative to the largest diagonal entry of H'H.

    Returns:
      Solver.

    Raises:
      ValueError: if n_vectors is not a positive integer or damping not positive and finite.

    Example:
      >>> solver = gauss_newton_krylov()
      >>> state = solver.init(lambda h: h**2 + 1, jnp.array([1.0]))
      >>> for _ in range(30):
      ...     state = solver.step(lambda h: h**2 + 1, state)
      >>> float(state.q)  # r = 1 at h = 0, its least
      0.5

    Source: Golub & Kahan (1965); Paige & Saunders (1982), ACM TOMS 8:43 (LSQR).
    """
    return _solver(n_vectors, damping, transposed=True)


def truncated_newton(n_vectors: int = 16, damping: float = 1e-2) -> Solver:
    """Newton on q itself, with its exact Hessian, damped within the Krylov space of the gradient.

    Args:
      n_vectors: vectors of the Krylov space, products with the Hessian an iteration; no more than n_hidden are used.
      damping: first mu, relative to the largest diagonal entry of the Hessian in that space.

    Returns:
      Solver, for minima of q above zero.

    Raises:
      ValueError: if n_vectors is not a positive integer or damping not positive and finite.

    Example:
      >>> solver = truncated_newton()
      >>> state = solver.init(lambda h: h**2 + 1, jnp.array([1.0]))
      >>> for _ in range(12):
      ...     state = solver.step(lambda h: h**2 + 1, state)
      >>> float(state.q)  # r = 1 at h = 0, its least
      0.5

    Source: Dembo & Steihaug (1983), Math. Prog. 26:190.
    """
    _check(n_vectors, damping)
    return Solver(_Init(damping), _NewtonStep(n_vectors))


def _solver(n_vectors: int, damping: float, *, transposed: bool) -> Solver:
    _check(n_vectors, damping)
    return Solver(_Init(damping), _Step(n_vectors, transposed))


def _check(n_vectors: int, damping: float) -> None:
    arguments.check_count("n_vectors", n_vectors)
    arguments.check_number("damping", damping, positive=True)


@dataclasses.dataclass(frozen=True)
class _Init:
    """`init` as a value: two solvers with the same numbers are equal and share a trace."""

    damping: float

    def __call__(self, residual_fn: ResidualFn, hidden: jax.Array) -> State:
        r = residual_fn(hidden)
        one = jnp.ones((), hidden.dtype)
        return State(hidden, jnp.vdot(r, r) / 2, jnp.zeros((), bool), self.damping * one, 2 * one)


@dataclasses.dataclass(frozen=True)
class _Step:
    """`step` as a value."""

    n_vectors: int
    transposed: bool

    def __call__(self, residual_fn: ResidualFn, state: State) -> State:
        hidden = state.hidden
        k = min(self.n_vectors, hidden.size)
        r, product = jax.linearize(residual_fn, hidden)
        bidiagonalize = _golub_kahan if self.transposed else _arnoldi
        basis, small = bidiagonalize(product, r, k)
        beta = jnp.linalg.norm(r)

        normal = (small[:, :, None] * small[:, None, :]).sum(0)  # as a batch of products it takes thrice the time
        mu = state.damping * jnp.maximum(jnp.max(jnp.diag(normal)), jnp.finfo(hidden.dtype).tiny)
        gradient = beta * small[0]
        y = -cho_solve(cho_factor(normal + mu * jnp.eye(k, dtype=hidden.dtype)), gradient)
        move = y @ basis
        moved = residual_fn(hidden + move)
        q_moved = jnp.vdot(moved, moved) / 2

        predicted = jnp.vdot(y, mu * y - gradient) / 2
        new, _ = levenberg_marquardt.moved_by(state, move, q_moved, predicted)

        eps = float(jnp.finfo(hidden.dtype).eps)
        damping = jnp.maximum(new.damping, eps)  # singular values under sqrt(eps) ||J_r|| count as 0: no step on a line
        size = jnp.maximum(jnp.linalg.norm(hidden), eps**0.5)
        done = jnp.sqrt(2 * jnp.fmin(q_moved, state.q)) <= 8 * eps * hidden.size**0.5 * size
        done |= jnp.linalg.norm(move) <= eps * size
        if self.transposed:  # ||gradient|| = ||J'r||, ||normal||_F^(1/2) is about ||J||
            done |= jnp.linalg.norm(gradient) <= eps ** (2 / 3) * jnp.sqrt(jnp.linalg.norm(normal)) * beta
        return new._replace(done=done, damping=damping)


@dataclasses.dataclass(frozen=True)
class _NewtonStep:
    """`step` of truncated_newton as a value."""

    n_vectors: int

    def __call__(self, residual_fn: ResidualFn, state: State) -> State:
        hidden = state.hidden
        k = min(self.n_vectors, hidden.size)

        def q(h: jax.Array) -> jax.Array:
            r = residual_fn(h)
            return jnp.vdot(r, r) / 2

        gradient, product = jax.linearize(jax.grad(q), hidden)
        basis, small = _arnoldi(product, gradient, k)
        slope = jnp.linalg.norm(gradient)

        hessian = (small[:k] + small[:k].T) / 2
        size = jnp.maximum(jnp.max(jnp.abs(jnp.diag(hessian))), jnp.finfo(hidden.dtype).tiny)
        mu = state.damping * size
        factor = cho_factor(hessian + mu * jnp.eye(k, dtype=hidden.dtype))  # NaN, so rejected, unless positive definite
        y = -cho_solve(factor, slope * jnp.eye(k, dtype=hidden.dtype)[0])
        move = y @ basis
        q_moved = q(hidden + move)
        predicted = -(slope * y[0] + jnp.vdot(y, hessian @ y) / 2)
        new, accept = levenberg_marquardt.moved_by(state, move, q_moved, predicted)

        eps = float(jnp.finfo(hidden.dtype).eps)
        length = jnp.maximum(jnp.linalg.norm(hidden), eps**0.5)
        done = slope <= eps ** (2 / 3) * jnp.sqrt(size * 2 * state.q)
        done |= jnp.sqrt(2 * jnp.fmin(q_moved, state.q)) <= 8 * eps * hidden.size**0.5 * length
        done |= jnp.linalg.norm(move) <= eps * length
        done |= ~accept & (predicted <= 4 * eps * state.q)  # all there is to gain is rounding
        return new._replace(done=done)


def _arnoldi(product: Callable, r: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """V (k, n) and H (k + 1, k) of J V = V_+ H, from r."""

    def extend(carry: tuple[jax.Array, jax.Array], j: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        basis, small = carry
        new, column = _next(product(basis[j]), basis, j + 1)
        return (basis.at[j + 1].set(new), small.at[:, j].set(column)), None

    basis = jnp.zeros((k + 1, r.size), r.dtype).at[0].set(_unit(r))
    (basis, small), _ = jax.lax.scan(extend, (basis, jnp.zeros((k + 1, k), r.dtype)), jnp.arange(k))
    return basis[:k], small


def _golub_kahan(product: Callable, r: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """V (k, n) and the lower bidiagonal H (k + 1, k) of J V = U H, U from r."""
    transposed = jax.linear_transpose(product, r)

    def extend(carry: tuple, j: jax.Array) -> tuple[tuple, None]:
        left, right, small = carry
        v, _ = _next(transposed(left[j])[0], right, j)
        new, column = _next(product(v), left, j + 1)
        return (left.at[j + 1].set(new), right.at[j].set(v), small.at[:, j].set(column)), None

    left = jnp.zeros((k + 1, r.size), r.dtype).at[0].set(_unit(r))
    carry = (left, jnp.zeros((k, r.size), r.dtype), jnp.zeros((k + 1, k), r.dtype))
    (_, right, small), _ = jax.lax.scan(extend, carry, jnp.arange(k))
    return right, small


def _next(image: jax.Array, basis: jax.Array, j: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Vector j of an orthonormal basis, from an image of those before, and the image's coordinates.

    Rows not there yet are 0 and take no part. Once is enough: k is small, and H need not be exact.
    """
    along = basis @ image
    rest = image - along @ basis
    length = jnp.linalg.norm(rest)
    # The rest carries the rounding of the image: eps / eps^(2/3) of it is not orthogonal, and below that it is no
    # direction any more; the space ends here.
    ends = length <= float(jnp.finfo(image.dtype).eps) ** (2 / 3) * jnp.linalg.norm(along)
    return jnp.where(ends, 0, _unit(rest)), along.at[j].add(jnp.where(ends, 0, length), mode="drop")


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), jnp.finfo(x.dtype).tiny)
