"""A memory whose readout alone is trained, by FORCE, and fed back: the kind of network that the paper has.

Its inputs come one pulse at a time, 10 steps of 0.1 time constants on a random line; gaps are 30 to 89 steps in
training, and twice as long where it is judged. Without biases it is odd, F(-x) = -F(x): points come in pairs x, -x,
and searches begin in pairs, too.

It learned in one long run, and is judged as it learned: from a state N(0, 1/4) pulses come for 1,000 steps that are not
scored. After them a step is scored if it is silent and every line has been pulsed since. From the first step on, about
one bit in a thousand is wrong: a pulse that comes while the network is still on its way from that state to a memory may
be lost, and the line then stays wrong until its next pulse.
"""

import dataclasses
import functools
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfp import dynamics, io
from jaxfp.cli import report
from jaxfp.cli.flip_flop_training import Network
from jaxfp.models import force
from jaxfp.search import candidates
from jaxfp.tasks import flip_flop
from jaxfp.types import FIXED, FixedPoints, StepFn

N_UNITS = 250
N_PULSE = 10  # steps of a pulse
N_CANDIDATES = 128
_N_WARM, _N_PULSED = 1000, 2000  # steps with pulses: on the way from a random state to the memories; scored
_N_HOLD = 1000  # silent steps after which memories are counted


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; the same for every seed.

    Attributes:
      n_bits: lines of the task.
      n_time: steps of training.
      gaps: between pulses, steps.
      gain: of the recurrent weights.
      alpha: duration of a step, time constants.
    """

    n_bits: int = 3
    n_time: int = 60_000
    gaps: tuple[int, int] = (30, 90)
    gain: float = 1.1
    alpha: float = 0.1


def train_network(
    seed: int, n_units: int | None = None, recipe: Recipe | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Draw a network and train its readout.

    Args:
      seed: of weights and pulses.
      n_units: number of units; 250 by default.
      recipe: how.

    Returns:
      Arrays w_rec, w_in, w_feedback and w_out of `ForceNetwork`, float32; and their provenance.

    Example:
      >>> arrays, provenance = train_network(0, 8, Recipe(n_time=20))
      >>> arrays["w_out"].shape, provenance["seed"]
      ((3, 8), 0)
    """
    recipe = recipe or Recipe()
    n_units = N_UNITS if n_units is None else n_units
    seconds = report.stopwatch()
    config = force.ForceConfig(n_units, recipe.n_bits, recipe.n_bits, recipe.gain, recipe.alpha)
    key_pulses, key_network = jax.random.split(jax.random.key(seed))
    run = flip_flop.sample_stream(key_pulses, recipe.n_bits, recipe.n_time, width=N_PULSE, gaps=recipe.gaps)
    result = jax.jit(force.train_force, static_argnums=1)(key_network, config, run.inputs, run.targets)
    errors = np.asarray(result.errors)
    provenance = {
        "task": "flip-flop",
        "cell": "force",
        "n_units": n_units,
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "final_error": float(np.sqrt(np.square(errors[-len(errors) // 10 :]).mean())),
        "seconds": seconds(),
        "made_by": f"python -m jaxfp flip-flop --train --cell force --n-hidden {n_units} --seed {seed}"
        + (f" --n-bits {recipe.n_bits}" if recipe.n_bits != 3 else ""),
        **io.environment(),
    }
    return {name: np.asarray(array) for name, array in result.network._asdict().items()}, provenance


def as_network(arrays: dict[str, Any], recipe: Recipe) -> Network:
    """Arrays of a file as a network without feedback: the map of J + F W, in float64.

    Args:
      arrays: see `train_network`.
      recipe: for the duration of a step.

    Returns:
      Network, whose readout is of the rates tanh(x).

    Raises:
      ValueError: if arrays are missing.

    Example:
      >>> as_network(train_network(0, 8, Recipe(n_time=20))[0], Recipe()).step_fn.bounded
      True
    """
    names = force.ForceNetwork._fields
    if not set(names) <= set(arrays):
        raise ValueError(f"a network trained by FORCE needs {list(names)}, got {sorted(arrays)}.")
    network = force.ForceNetwork(*(arrays[name] for name in names))
    step_fn, params = force.closed_loop(network, recipe.alpha)
    return Network(step_fn, params, (arrays["w_out"], np.zeros(len(arrays["w_out"]), np.float32)))


def behaviour(key: jax.Array, network: Network, recipe: Recipe, n_trials: int = 64) -> dict[str, float]:
    """Does it do the task? On fresh trials with gaps twice as long, then 1,000 silent steps (100 time constants).

    Args:
      key: of the trials and of the states they begin in.
      network: see `Network`.
      recipe: what it was trained on.
      n_trials: number of trials.

    Returns:
      Dict as of the other networks' `behaviour`, over `flip_flop.scored_steps` after 1,000 steps; and what the sign
      accuracy is with these steps scored, too.

    Example:
      >>> network = as_network(train_network(0, 8, Recipe(n_time=20))[0], Recipe())
      >>> behaviour(jax.random.key(0), network, Recipe(), 2)["memories"]
      8
    """
    key_trials, key_start = jax.random.split(key)
    n_pulsed = _N_WARM + _N_PULSED
    batch = _sample(key_trials, recipe, n_trials, n_pulsed, 2)
    silent = jnp.pad(batch.inputs, ((0, 0), (0, _N_HOLD), (0, 0)))
    said = np.asarray(_outputs(network.step_fn, *_narrow(network), _start(key_start, network, n_trials), silent))
    right, last = said[:, :n_pulsed] * np.asarray(batch.targets) > 0, np.asarray(batch.targets[:, -1:])
    warm, cold = (np.asarray(flip_flop.scored_steps(batch.inputs, n)) for n in (_N_WARM, 0))
    stored = warm[:, -1]  # not in the middle of a pulse
    kept = (said[:, -1:] * last > 0).all((1, 2)) & stored
    held, lost = ({tuple(code) for code in last[rows, 0].tolist()} for rows in (kept, stored & ~kept))
    return {
        "sign_accuracy": float(right[warm].mean()),
        "sign_accuracy_from_the_first_step": float(right[cold].mean()),
        "sign_accuracy_in_silence": float((said[:, n_pulsed:] * last > 0)[stored].mean()),
        "trials_right_after_silence": float(kept.sum() / stored.sum()),
        "memories_held": len(held - lost),
        "memories": 2**recipe.n_bits,
    }


def explore(
    seed: int,
    network: Network,
    recipe: Recipe,
    *,
    n_candidates: int = N_CANDIDATES,
    noise: float = 0.5,
    progress: bool = False,
    checkpoint: pathlib.Path | None = None,
) -> tuple[report.Analysis, flip_flop.Batch, jax.Array]:
    """Candidates from fresh trials and from the memories these end in, all with their mirror images; then the search.

    Args:
      seed: of trials, candidates and seeded waves.
      network: see `Network`.
      recipe: what it was trained on.
      n_candidates: states from trials to start from, half of them mirror images of the other half (see `symmetric`).
      noise: standard deviation added to them.
      progress: show a bar.
      checkpoint: of the search, see `find_fixed_points`.

    Returns:
      Analysis, with timescales in time constants; the trials (32 of 1,000 steps); their states.

    Example:
      >>> network = as_network(train_network(0, 8, Recipe(n_time=20))[0], Recipe())
      >>> explore(0, network, Recipe(), n_candidates=32)[0].audit.index_sum
      1
    """
    key_trials, key_start, key_candidates, key_waves = jax.random.split(jax.random.key(seed), 4)
    batch = _sample(key_trials, recipe, 32, 1000, 1)
    params, _ = _narrow(network)
    states = _simulate(network.step_fn, params, _start(key_start, network, 32), batch.inputs)
    kept = _simulate(network.step_fn, params, states[:, -1], n_time=_N_HOLD)[:, -1]
    blurred = candidates.sample_candidates(key_candidates, states, (n_candidates + 1) // 2, noise)
    starts = symmetric(network, np.asarray(blurred), np.asarray(kept))
    analysis = report.analyze(
        network.step_fn, network.params, starts, None, dt=recipe.alpha, key=key_waves, progress=progress,
        checkpoint=checkpoint,
    )  # fmt: skip
    return analysis, batch, states


def symmetric(network: Network, states: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """States to start from, as many x as -x: where x leads to a point, -x leads to its mirror image.

    Args:
      network: see `Network`.
      states: (n_states, n_units), any.
      kept: (n_kept, n_units), at rest in memories; those that are missing are added as mirror images.

    Returns:
      (n_starts, n_units): the states; the memories, one state for each sign code of the readout; means of two memories,
      of four with all bits but two in common (a face of the cube) and of all; the mirror images of these; the origin.

    Example:
      >>> network = as_network(train_network(0, 8, Recipe(n_time=20))[0], Recipe())
      >>> symmetric(network, np.ones((3, 8)), np.ones((1, 8))).shape  # the states, a pair of memories and its mean
      (13, 8)
    """
    both = np.concatenate([kept, -kept])
    codes, first = np.unique(np.tanh(both) @ np.asarray(network.readout[0]).T > 0, axis=0, return_index=True)
    memories = both[first]
    sizes = [n for n in (1, 2, 4, len(memories)) if n <= len(memories)]
    means = [
        memories[list(rows)].mean(0)
        for n in sorted(set(sizes))
        for rows in itertools.combinations(range(len(memories)), n)
        if n != 4 or np.ptp(codes[list(rows)].astype(int), axis=0).sum() == 2
    ]
    half = np.concatenate([states, means])
    return np.concatenate([half, -half, 0 * half[:1]]).astype(states.dtype)


def oddness(network: Network, points: FixedPoints) -> dict[str, Any]:
    """Is -x fixed where x is (T7), and was it found?

    Args:
      network: see `Network`.
      points: of a search.

    Returns:
      Dict: the largest unit of dx/dt at the mirror images of the FIXED points, and how many of these were not found.

    Example:
      >>> from jaxfp import find_fixed_points
      >>> network = as_network(train_network(0, 8, Recipe(n_time=20))[0], Recipe())
      >>> oddness(network, find_fixed_points(network.step_fn, network.params, np.zeros((1, 8))))
      {'speed_of_mirror_images': 0.0, 'mirror_images_not_found': 0}
    """
    fixed = points.hidden[points.status == FIXED]
    moves = dynamics.residual(force.flow, network.params, -fixed, kind="flow")
    away = np.abs(fixed[:, None] + fixed[None]).max(-1).min(1, initial=np.inf)
    return {
        "speed_of_mirror_images": float(np.abs(moves).max(initial=0.0)),
        "mirror_images_not_found": int((away > 1e-6 * (1 + np.abs(fixed).max(initial=0.0))).sum()),
    }


def _sample(key: jax.Array, recipe: Recipe, n_trials: int, n_time: int, stretch: int) -> flip_flop.Batch:
    first, last = recipe.gaps

    def one(key: jax.Array) -> flip_flop.Batch:
        return flip_flop.sample_stream(key, recipe.n_bits, n_time, gaps=(stretch * first, stretch * last))

    return jax.vmap(one)(jax.random.split(key, n_trials))


def _start(key: jax.Array, network: Network, n_trials: int) -> jax.Array:
    """States that training begins in, N(0, 1/4)."""
    return jax.random.normal(key, (n_trials, network.readout[0].shape[1]), jnp.float32) / 2


def _narrow(network: Network) -> tuple[Any, jax.Array]:
    """Params and readout in float32, as they were trained."""
    return jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), (network.params, network.readout[0]))


_simulate = jax.jit(dynamics.simulate, static_argnums=0, static_argnames="n_time")


@functools.partial(jax.jit, static_argnums=0)
def _outputs(step_fn: StepFn, params: Any, w_out: jax.Array, start: jax.Array, inputs: jax.Array) -> jax.Array:
    """What the readout says, (n_trials, n_time, n_bits); the states would not fit."""

    def one(hidden: jax.Array, drive: jax.Array) -> jax.Array:
        def step(hidden: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
            hidden = step_fn(params, hidden, u)
            return hidden, w_out @ jnp.tanh(hidden)

        return jax.lax.scan(step, hidden, drive)[1]

    return jax.vmap(one)(start, inputs)
