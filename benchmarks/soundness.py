"""Is a certificate ever wrong? Random systems whose fixed points mpmath computes at 50 digits.

    python -m benchmarks soundness --n-systems 10000 --out benchmarks/certificates/soundness.json

Affine, tanh and GRU systems of 1 to 4 units with random weights, each with a point placed at random. In two of three
the smallest singular value of I - J there is 10^-k, k uniform up to 12: next to a fold, where tanh and GRU systems have
two points close together or none. Every point that mpmath finds from there, and the middle between two, is given to
`certify`, and a ball that just holds a point, and one of half its radius, to `excludes`. What is proved must be true:
  * a fixed point lies within error_radius of the center, and Newton's method in mpmath from the center finds it;
  * no second of the system's known points lies within unique_radius;
  * no ball with a known point in it is excluded.
"""

import argparse
import pathlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
from mpmath import mp

import jaxfp
from jaxfp import io

DIGITS = 50
_APART = mpmath.mpf("1e-25")
Point = list[Any]


def affine(params: None, h: Any, u: Any) -> jax.Array:
    """One step, h' = A h + b, with (A, b) as its drive."""
    A, b = _matrices(u, len(h), 1)
    return A[0] @ h + b[0]


def squashed(params: None, h: Any, u: Any) -> jax.Array:
    """One step, tanh(W h + b)."""
    W, b = _matrices(u, len(h), 1)
    return jnp.tanh(W[0] @ h + b[0])


def gru(params: None, h: Any, u: Any) -> jax.Array:
    """One step, h' = z h + (1 - z) tanh(W (r h) + b), z = sigmoid(V h + c), r = sigmoid(R h + d)."""
    (W, V, R), (b, c, d) = _matrices(u, len(h), 3)
    z, r = jax.nn.sigmoid(V @ h + c), jax.nn.sigmoid(R @ h + d)
    return z * h + (1 - z) * jnp.tanh(W @ (r * h) + b)


STEPS = {"affine": affine, "tanh": squashed, "gru": gru}


def _matrices(u: Any, n: int, k: int) -> tuple[Any, Any]:
    return u[: k * n * n].reshape(k, n, n), u[k * n * n :].reshape(k, n)


def draw(rng: np.random.Generator, family: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """One system: its drive, and a state at or near which it has fixed points."""
    h = rng.uniform(-0.95, 0.95, n)
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    sizes = rng.uniform(0.3, 2, n)
    if rng.uniform() < 2 / 3:
        sizes[0] = 10 ** rng.uniform(-12, 0)
    J = np.eye(n) - left @ np.diag(sizes) @ right  # of the map, or of the candidate state of a GRU
    if family == "affine":
        return np.concatenate([J.ravel(), h - J @ h]), h
    slope = (1 - h**2)[:, None]
    if family == "tanh":
        W = J / slope
        return np.concatenate([W.ravel(), np.arctanh(h) - W @ h]), h
    V, R, c, d = (rng.normal(size=s) * rng.uniform(0, 2) for s in ((n, n), (n, n), n, n))
    r = 1 / (1 + np.exp(-R @ h - d))
    W = J / slope @ np.linalg.inv(np.diag(r) + (h * r * (1 - r))[:, None] * R)
    return np.concatenate([W.ravel(), V.ravel(), R.ravel(), np.arctanh(h) - W @ (r * h), c, d]), h


def written_again(ctx: Any, family: str, u: Sequence[float], n: int) -> Callable[[Point], tuple[Point, Any]]:
    """F and its Jacobian once more, in the arithmetic of `mpmath.mp` or `mpmath.fp`."""
    k = 3 if family == "gru" else 1
    numbers = [ctx.mpf(float(x)) for x in u]
    matrices = [[numbers[(m * n + i) * n : (m * n + i + 1) * n] for i in range(n)] for m in range(k)]
    offsets = [numbers[k * n * n + m * n : k * n * n + (m + 1) * n] for m in range(k)]

    def product(m: int, h: Point) -> Point:
        return [ctx.fdot(row, h) + b for row, b in zip(matrices[m], offsets[m], strict=True)]

    def evaluate(h: Point) -> tuple[Point, Any]:
        W = matrices[0]
        if family == "affine":
            return product(0, h), W
        if family == "tanh":
            t = [ctx.tanh(a) for a in product(0, h)]
            return t, [[(1 - t[i] ** 2) * W[i][j] for j in range(n)] for i in range(n)]
        _, V, R = matrices
        z, r = ([1 / (1 + ctx.exp(-a)) for a in product(m, h)] for m in (1, 2))
        t = [ctx.tanh(a) for a in product(0, [r[i] * h[i] for i in range(n)])]
        inner = [[(r[i] if i == j else 0) + h[i] * r[i] * (1 - r[i]) * R[i][j] for j in range(n)] for i in range(n)]
        J = [
            [
                (z[i] if i == j else 0)
                + (h[i] - t[i]) * z[i] * (1 - z[i]) * V[i][j]
                + (1 - z[i]) * (1 - t[i] ** 2) * sum(W[i][m] * inner[m][j] for m in range(n))
                for j in range(n)
            ]
            for i in range(n)
        ]
        return [z[i] * h[i] + (1 - z[i]) * t[i] for i in range(n)], J

    return evaluate


def newton(evaluate: Callable[[Point], tuple[Point, Any]], start: Sequence[Any]) -> Point | None:
    """The fixed point that Newton's method finds in mpmath, or None."""
    h = [mpmath.mpf(x) for x in start]
    for _ in range(60):
        value, J = evaluate(h)
        D = mpmath.matrix([[(1 if i == j else 0) - J[i][j] for j in range(len(h))] for i in range(len(h))])
        try:
            move = mpmath.lu_solve(D, mpmath.matrix([v - x for v, x in zip(value, h, strict=True)]))
        except ZeroDivisionError:
            return None
        h = [x + move[i] for i, x in enumerate(h)]
        size = max(abs(m) for m in move)
        if size < mpmath.mpf(10) ** -DIGITS:
            return h
        if size > 1e6:
            return None
    return None


def approached(evaluate: Callable[[Point], tuple[Point, Any]], start: np.ndarray) -> np.ndarray | None:
    """Where it gets in float64, or None."""
    h = start
    for _ in range(40):
        try:
            value, J = evaluate(h.tolist())
            move = np.linalg.solve(np.eye(len(h)) - np.array(J), np.array(value) - h)
        except np.linalg.LinAlgError:
            return h
        except OverflowError:
            return None
        if not np.abs(move).max() < 1e6:
            return None
        h = h + move
        if np.abs(move).max() < 1e-14:
            break
    return h


def between(x: Sequence[Any], y: Sequence[Any]) -> Any:
    """Their distance in the max-norm."""
    return max(abs(a - b) for a, b in zip(x, y, strict=True))


def known_points(family: str, u: np.ndarray, h: np.ndarray, rng: np.random.Generator) -> list[Point]:
    """Fixed points that Newton's method finds from a state and from both sides of it, near and far."""
    roughly, evaluate = (written_again(ctx, family, u, len(h)) for ctx in (mpmath.fp, mpmath.mp))
    starts = [h]
    if family != "affine":
        flat = np.linalg.svd(np.eye(len(h)) - np.array(roughly(h.tolist())[1]))[2][-1]
        # Where I - J is small: the other point of a pair lies along it.
        starts += [h + sign * 10.0**-k * flat for k in (1, 3, 5) for sign in (-1, 1)]
    with np.errstate(all="ignore"):
        ends = [end for end in (approached(roughly, start) for start in starts) if end is not None]
    ends = [end for i, end in enumerate(ends) if all(np.abs(end - other).max() > 1e-13 for other in ends[:i])]
    found: list[Point] = []
    for end in ends:
        point = newton(evaluate, end.tolist())
        if point is not None and all(between(point, other) > _APART for other in found):
            found.append(point)
    return found


def judge(family: str, n: int, n_systems: int, seed: int) -> dict[str, Any]:
    """Certify `n_systems` systems of one family and size, and count what is wrong."""
    rng = np.random.default_rng([seed, n, sorted(STEPS).index(family)])
    systems = [draw(rng, family, n) for _ in range(n_systems)]
    known = [known_points(family, u, h, rng) for u, h in systems]
    hidden, of, kinds = [], [], []
    for i, points in enumerate(known):
        tried = [("point", p) for p in points] + [("near", [x + 1e-7 for x in p]) for p in points[:1]]
        tried += [("middle", [(a + b) / 2 for a, b in zip(points[0], p, strict=True)]) for p in points[1:]]
        for kind, p in tried or [("none", systems[i][1].tolist())]:
            hidden.append([float(x) for x in p])
            of.append(i)
            kinds.append(kind)
    states, drives = np.array(hidden), np.array([systems[i][0] for i in of])
    began = time.perf_counter()
    proof = jaxfp.certify(STEPS[family], None, states, drives)
    seconds = time.perf_counter() - began
    counts = Counter(systems=n_systems, states=len(states), points=sum(map(len, known)))
    counts["close_pairs"] = sum(
        any(between(p, q) < 1e-2 for j, p in enumerate(points) for q in points[:j]) for points in known
    )
    tightest = 0.0
    for row, i in enumerate(of):
        counts[f"certified_{kinds[row]}"] += bool(proof.exists[row])
        counts[f"tried_{kinds[row]}"] += 1
        if not proof.exists[row]:
            continue
        center = [mpmath.mpf(float(x)) for x in proof.center[row]]
        point = newton(written_again(mpmath.mp, family, systems[i][0], n), center)
        if point is None or between(point, center) > float(proof.error_radius[row]):
            counts["wrong_existence"] += 1
            continue
        tightest = max(tightest, float(between(point, center) / mpmath.mpf(float(proof.error_radius[row]))))
        others = [p for p in known[i] if between(p, point) > _APART]
        counts["wrong_uniqueness"] += any(between(p, center) <= float(proof.unique_radius[row]) for p in others)
    counts += _excluded(family, systems, known, rng)
    return {"family": family, "n_hidden": n, "certify_s": seconds, "largest_error_over_radius": tightest, **counts}


def _excluded(family: str, systems: Any, known: list[list[Point]], rng: np.random.Generator) -> Counter[str]:
    rows = [(i, p) for i, points in enumerate(known) for p in points[:1]]
    if not rows:
        return Counter()
    points = np.array([[float(x) for x in p] for _, p in rows])
    away = rng.choice([-1, 1], points.shape) * 10.0 ** rng.uniform(-12, 0, (len(points), 1))
    centers = points + away
    exact = [between([mpmath.mpf(float(x)) for x in c], p) for c, (_, p) in zip(centers, rows, strict=True)]
    holds = np.array([np.nextafter(float(r), np.inf) for r in exact])
    drives = np.array([systems[i][0] for i, _ in rows])
    inside = jaxfp.excludes(STEPS[family], None, centers, holds, drives)
    half = jaxfp.excludes(STEPS[family], None, centers, holds / 2, drives)
    wrong = sum(
        any(between([mpmath.mpf(float(x)) for x in c], p) <= float(r) / 2 for p in known[i])
        for c, r, (i, _), proved in zip(centers, holds, rows, half, strict=True)
        if proved
    )
    return Counter(
        balls=2 * len(rows), wrong_exclusion=int(inside.sum()) + wrong, excluded_at_half_the_distance=int(half.sum())
    )


def run(n_systems: int, seed: int = 0) -> dict[str, Any]:
    """All families and sizes.

    Args:
      n_systems: in all.
      seed: of the systems.

    Returns:
      Rows, and totals over them.
    """
    cases = [(family, n) for n in (1, 2, 3, 4) for family in STEPS]
    each = [n_systems // len(cases) + (i < n_systems % len(cases)) for i in range(len(cases))]
    with mp.workdps(DIGITS + 30):  # what ill-conditioned systems lose
        rows = [judge(family, n, k, seed) for (family, n), k in zip(cases, each, strict=True)]
    names = sorted({name for row in rows for name in row} - {"family", "n_hidden", "largest_error_over_radius"})
    wrong = {f"wrong_{what}": 0 for what in ("existence", "uniqueness", "exclusion")}
    total = wrong | {name: sum(row.get(name, 0) for row in rows) for name in names}
    total["largest_error_over_radius"] = max(row["largest_error_over_radius"] for row in rows)
    return {"seed": seed, "digits": DIGITS, "total": total, "rows": rows}


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, certify, compare, write.

    Args:
      argv: arguments after the program's name.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-systems", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("soundness.json"))
    arguments = parser.parse_args(argv)
    began = time.perf_counter()
    found = run(arguments.n_systems, arguments.seed)
    io.save_json(arguments.out, {**found, "seconds": time.perf_counter() - began, **io.environment()})
    for name, value in found["total"].items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")


if __name__ == "__main__":
    main()
