"""`python -m jaxfp sine-generator`: why a network oscillates as fast as its input says (Sussillo & Barak 2013, ex. 2).

Loads the packaged network, or trains one with `--train` (`sine_training`), runs it freely at 51 constant inputs, and
finds the fixed points at each of them. The mechanism: in the middle of every orbit lies one point that is unstable in
two dimensions, where a complex pair turns the state; |arg lambda| / dt of that pair against the frequency of the orbit.
These points are followed through all inputs as one family, and the orbits closed as limit cycles with their multipliers
(`sine_family`).
"""

import argparse
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxfp import io, plotting
from jaxfp.cli import frame, report, sine_family, sine_mechanism, sine_training
from jaxfp.cli.sine_mechanism import DURATION, PER_INPUT, Mechanism, Orbits
from jaxfp.cli.sine_training import Recipe


def train_whole(seed: int, n_units: int, recipe: Recipe, **fit: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train a network, with the one retry if the rule asks for it.

    Args:
      seed: of weights and noise.
      n_units: number of units.
      recipe: how.
      **fit: passed to `train.fit`.

    Returns:
      Arrays and provenance, which says what the rule found under "missed".

    Example:
      >>> stage = sine_training.Stage(3, 1e-3, 2)
      >>> _, provenance = train_whole(0, 4, Recipe(n_conditions=3, stages=(stage,), retry=stage))
      >>> provenance["retried"], len(provenance["missed"])
      (True, 2)
    """
    arrays, provenance = sine_training.train_network(seed, n_units, recipe, **fit)
    network = sine_training.as_network(arrays, recipe.dt)
    orbits = sine_mechanism.run_freely(network, recipe)
    said = sine_mechanism.missed(orbits, sine_mechanism.explain(*sine_mechanism.search(network, orbits), orbits))
    if said and recipe.retry is not None:
        arrays, provenance = sine_training.retry(arrays, provenance, recipe, **fit)
    return arrays, provenance | {"missed": said}


def add_parser(commands: Any) -> None:
    """Register the command.

    Args:
      commands: argparse subparsers.

    Example:
      >>> add_parser(argparse.ArgumentParser().add_subparsers())
    """
    parser = commands.add_parser(
        "sine-generator",
        help="why a network oscillates at the frequency that its input says: a point in the middle of each orbit",
        description="Find the fixed points of a recurrent network that oscillates at the frequency that a constant "
        "input says, at each of 51 inputs (Sussillo & Barak 2013), and compare their leading modes with the orbits. "
        "Prints tables, and writes fixed_points.npz, report.json and figures (png) to the folder --out.",
        epilog="example: python -m jaxfp sine-generator --out results",
    )
    add = parser.add_argument
    add("--candidates", type=int, default=PER_INPUT, metavar="K",
        help="how many states of each orbit to search from (default: %(default)s)")  # fmt: skip
    add("--cycles", type=int, metavar="K", help="at how many of the inputs limit cycles are computed, evenly spaced, 0 "
        "for none (default: all 51, some ten seconds)")  # fmt: skip
    add("--duration", type=float, default=DURATION, metavar="T",
        help="of the free runs, time constants (default: %(default)s)")  # fmt: skip
    frame.add_options(
        parser,
        run,
        out="sine_generator",
        trains="train a new network, three to ten minutes, instead of loading the packaged one; writes weights.npz, "
        "too",
        n_hidden="100",
        seed="training and search",
        checkpoint="keep there what is finished of the search; a run that was killed goes on from there when the same "
        "command is run again",
    )


def run(arguments: argparse.Namespace) -> None:
    """The command.

    Args:
      arguments: as parsed.

    Raises:
      ValueError: for arguments that do not fit together and files that cannot be written.

    Example:
      >>> run(argparse.Namespace(train=False, n_hidden=3, candidates=1, duration=1.0))
      Traceback (most recent call last):
      ...
      ValueError: --n-hidden goes with --train: a packaged network has its size.
    """
    frame.check_size(arguments)
    if arguments.candidates < 1:
        raise ValueError(f"--candidates must be at least 1, got {arguments.candidates}.")
    if arguments.cycles is not None and arguments.cycles < 0:
        raise ValueError(f"--cycles must be at least 0, got {arguments.cycles}.")
    if not 200 <= arguments.duration < 1e6:
        raise ValueError(f"--duration must be at least 200 time constants, got {arguments.duration}.")
    recipe = Recipe()
    with frame.running(arguments) as job:
        if arguments.train:
            size = 100 if arguments.n_hidden is None else arguments.n_hidden
            arrays, provenance = train_whole(arguments.seed, size, recipe, progress=not arguments.quiet)
            io.save(arguments.out / "weights.npz", arrays, provenance)
        else:
            arrays, provenance = io.load_packaged("sine_generator")
        network = sine_training.as_network(arrays, recipe.dt)
        orbits = sine_mechanism.run_freely(network, recipe, arguments.duration)
        starts, inputs = sine_mechanism.draw_candidates(orbits, arguments.candidates)
        analysis = report.analyze(
            network.step_fn, network.params, starts, inputs, dt=recipe.dt, key=jax.random.key(arguments.seed),
            progress=not arguments.quiet, checkpoint=arguments.checkpoint,
        )  # fmt: skip
        mechanism = sine_mechanism.explain(analysis.points, analysis.modes, orbits)
        norms = sine_mechanism.taylor_norms(network, analysis.points, mechanism, orbits)
        proved = np.zeros(len(analysis.points.hidden), bool) if analysis.proof is None else analysis.proof.exists
        said = sine_mechanism.summarize(orbits, mechanism, norms, proved)
        tracked = sine_family.track(network, analysis.points, mechanism, orbits)
        circles = sine_family.close(network, analysis.points, mechanism, orbits, arguments.cycles)
        more = sine_family.summarize(tracked, circles, mechanism, orbits)
        more["elsewhere"] = sine_family.elsewhere(analysis.points, analysis.modes.n_unstable, mechanism, orbits)
        _show(job.console, said, provenance, len(arrays["w_out"]))
        _show_family(job.console, more)
        report.show(job.console, analysis)
    contents = {"network": provenance, "mechanism": said, **more, **report.summary(analysis)}
    figures = report.figures(analysis, orbits.states[::5, -126:])
    figures += _draw(analysis, orbits, mechanism, norms, recipe.dt)
    figures += [report.Drawing(name, draw) for name, draw in sine_family.figures(tracked, circles, orbits).items()]
    frame.finish(job, contents, {"fixed_points.npz": analysis.points}, figures)


def _show(console: Console, said: dict[str, Any], provenance: dict[str, Any], n_units: int) -> None:
    n = said["n_inputs"]
    console.print(
        f"Sine generator of {n_units} units, trained with seed {provenance.get('seed')}"
        f"{', retried' if provenance.get('retried') else ''}: at {said['within_1_percent']} of {n} inputs the orbit's "
        f"frequency is within 1 % of the target (median error {100 * said['orbit_error_median']:.2f} %, largest "
        f"{100 * said['orbit_error_largest']:.2f} %)."
    )
    console.print(
        f"At {said['one_point_inside']} of {n} inputs exactly one fixed point lies inside the orbit, at "
        f"{said['index_2_with_one_complex_pair']} unstable in one complex pair alone, {said['certified']} of them "
        f"certified; {said['points_elsewhere']} fixed points lie elsewhere."
    )
    console.print(
        f"The pair turns {said['ratio_median']:.2f} times as fast as the target in the median "
        f"({said['ratio_range'][0]:.2f} to {said['ratio_range'][1]:.2f}); correlation {said['correlation']:.4f}, with "
        f"shuffled targets {said['correlation_shuffled_mean']:+.2f}."
    )


def _show_family(console: Console, said: dict[str, Any]) -> None:
    family, cycles = said["family"], said["cycles"]
    events = ", ".join(f"{event['kind']} at {event['input']:.3f}" for event in family["events"]) or "none"
    console.print(
        f"One family: followed to {family['n_followed']} inputs, at {family['n_same']} proved to be the point inside "
        f"the orbit, at {family['identity_errors']} not. Events on the way: {events}."
    )
    if cycles["n_found"]:
        console.print(
            f"Limit cycles of the map at {cycles['n_found']} of {cycles['n_looked']} inputs, at "
            f"{cycles['n_around_the_point']} around that point, at {cycles['n_agree_with_free_runs']} as fast as the "
            f"free run (largest difference {cycles['largest_difference_from_free_runs']:.0e}). The largest Floquet "
            f"multiplier across a cycle is {cycles['multiplier_across_largest']:.2g} "
            f"(median {cycles['multiplier_across_median']:.2g}): distances from it shrink so in one turn."
        )
    console.print()


def _draw(
    analysis: report.Analysis, orbits: Orbits, mechanism: Mechanism, norms: Any, dt: float
) -> list[report.Drawing]:
    """The paper's figures 4 and 5 A to C."""
    n_cycle = 2 * np.pi / orbits.target / dt
    paths = [states[-int(np.ceil(n)) - 1 :] for states, n in zip(orbits.states, n_cycle, strict=True)]
    some = np.linspace(0, len(paths) - 1, min(len(paths), 11)).round().astype(int)
    projection = report.principal_directions(np.concatenate([paths[j] for j in some]))
    points, rows = analysis.points, mechanism.point
    here = some[rows[some] >= 0]
    ways = analysis.modes.right[rows[here], :, 0]
    planes = np.stack([ways.real, ways.imag], axis=1)
    few = np.linspace(0, len(paths) - 1, min(len(paths), 4)).round().astype(int)
    shown = orbits.outputs[few, -round(2 * np.pi * 2 / orbits.target.min() / dt) :]

    def oscillations(ax: Any) -> Any:
        return plotting.oscillations(shown, orbits.inputs[few, 0], orbits.target[few], dt, ax)

    def cycles(ax: Any) -> Any:
        cycles = [paths[j] for j in here]
        return plotting.orbits(cycles, points.hidden[rows[here]], planes, orbits.target[here], projection, ax)

    return [
        report.Drawing("outputs.png", oscillations),
        report.Drawing("orbits.png", cycles, "3d"),
        report.Drawing(
            "frequencies.png", lambda ax: plotting.frequencies(orbits.target, orbits.omega, mechanism.omega, ax)
        ),
        report.Drawing("taylor.png", lambda ax: plotting.taylor(norms, orbits.target, ax)),
    ]
