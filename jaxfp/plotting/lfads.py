"""Figures of LFADS-JSLDS: spikes and the rates, factors and inputs that both branches put behind them."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from jaxfp.plotting.points import INDEX_COLORS

_GENERATOR, _SYSTEM, _TRUE = INDEX_COLORS[0], INDEX_COLORS[1], "0.75"


def spike_rates(spikes: Any, rates: Any, switching_rates: Any, true_rates: Any = None, ax: Axes | None = None) -> Axes:
    """Spikes of some neurons in one trial and their rates, one above the other, each to its own scale.

    Args:
      spikes: (n_time, n_shown), counts.
      rates: (n_time, n_shown), inferred by the generator.
      switching_rates: (n_time, n_shown), inferred by its linear system.
      true_rates: (n_time, n_shown), or None where nobody knows.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> spike_rates(np.ones((5, 2)), np.ones((5, 2)), np.ones((5, 2))).get_ylabel()
      'neuron: counts a bin'
    """
    spikes, rates, switching_rates = (np.asarray(x) for x in (spikes, rates, switching_rates))
    if spikes.ndim != 2 or not spikes.shape == rates.shape == switching_rates.shape:
        shapes = f"{spikes.shape}, {rates.shape} and {switching_rates.shape}"
        raise ValueError(f"spikes, rates and switching_rates must all be (n_time, n_shown), got {shapes}.")
    ax = plt.subplots()[1] if ax is None else ax
    n_time, n_shown = spikes.shape
    true = np.full_like(rates, np.nan) if true_rates is None else np.asarray(true_rates)
    for row in range(n_shown):  # each to its own scale, the loudest bin 0.9 high
        scale = 0.9 / max(1, spikes[:, row].max())
        first = not row
        ax.bar(np.arange(n_time), scale * spikes[:, row], 0.9, -row, color="0.9", label="spikes" if first else "_")
        if true_rates is not None:
            ax.plot(-row + scale * true[:, row], color="0.45", lw=4, label="true rate" if first else "_")
        ax.plot(-row + scale * rates[:, row], color=_GENERATOR, lw=1.6, label="generator" if first else "_")
        ax.plot(-row + scale * switching_rates[:, row], "--", color=_SYSTEM, lw=1.6,
                label="linear system" if first else "_")  # fmt: skip
        ax.axhline(-row, color="black", lw=0.4)
    loudest = spikes.max(axis=0).astype(int)
    ax.set_yticks(0.45 - np.arange(n_shown), [f"{row + 1}: 0 to {loudest[row]}" for row in range(n_shown)])
    ax.set(xlabel="time (bins)", ylabel="neuron: counts a bin", xlim=(-0.6, n_time - 0.4), ylim=(1 - n_shown, 1.2))
    ax.set_title("Spikes and rates, one trial")
    ax.legend(loc="upper center", fontsize=8, ncols=4, frameon=False)
    return ax


def true_against_inferred(true: Any, inferred: Any, quantity: str, ax: Axes | None = None) -> Axes:
    """What was, and what was inferred, each standardized: their scales and the sign need not agree.

    Args:
      true: array of any shape.
      inferred: array of the same shape; drawn with the sign in which it follows.
      quantity: name of both.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Example:
      >>> true_against_inferred(np.arange(5.0), -np.arange(5.0), "input").get_title()
      'input: correlation 1.00'
    """
    true, inferred = (np.asarray(x, np.float64).ravel() for x in (true, inferred))
    ax = plt.subplots()[1] if ax is None else ax
    correlation = np.corrcoef(true, inferred)[0, 1]
    x, y = ((values - values.mean()) / values.std() for values in (true, np.sign(correlation) * inferred))
    ax.plot(x, y, ".", ms=3, alpha=0.3, mew=0, color=_GENERATOR)
    reach = 1.05 * max(np.abs(x).max(), np.abs(y).max())
    ax.plot([-reach, reach], [-reach, reach], color="black", lw=0.8)
    ax.set(xlabel=f"true {quantity} (standard deviations)", ylabel=f"inferred {quantity} (standard deviations)")
    ax.set(title=f"{quantity}: correlation {abs(correlation):.2f}", aspect="equal")
    return ax


def factor_traces(factors: Any, switching_factors: Any, ax: Axes | None = None) -> Axes:
    """Factors of both branches in one trial, one above the other.

    Args:
      factors: (n_time, n_factors) of the generator.
      switching_factors: (n_time, n_factors) of its linear system.
      ax: axes to draw into; new ones by default.

    Returns:
      The axes.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> factor_traces(np.ones((5, 2)), np.ones((5, 2))).get_xlabel()
      'time (bins)'
    """
    factors, switching_factors = np.asarray(factors), np.asarray(switching_factors)
    if factors.ndim != 2 or factors.shape != switching_factors.shape:
        shapes = f"{factors.shape} and {switching_factors.shape}"
        raise ValueError(f"factors and switching_factors must be (n_time, n_factors), got {shapes}.")
    ax = plt.subplots()[1] if ax is None else ax
    step = 1.1 * max(np.ptp(factors, axis=0).max(), 1e-9)
    bases = -step * np.arange(factors.shape[1])
    shift = (bases - factors.mean(axis=0))[None]
    ax.plot(factors + shift, color=_TRUE, lw=3, label=["generator"] + ["_"] * (len(bases) - 1))
    ax.plot(switching_factors + shift, "--", color=_SYSTEM, lw=1.2,
            label=["linear system"] + ["_"] * (len(bases) - 1))  # fmt: skip
    ax.set_yticks(bases, [f"{i + 1}" for i in range(len(bases))])
    ax.set(xlabel="time (bins)", ylabel="factor", title="Factors of both branches, one trial")
    ax.set_ylim(bases[-1] - step, step)
    ax.legend(loc="upper right", fontsize=8, ncols=2, frameon=False)
    return ax
