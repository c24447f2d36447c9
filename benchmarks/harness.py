"""Timing and peak memory of one call in this process, with the standard library and NumPy alone.

Not a script (`python -m benchmarks --help` lists those): every side is measured with it, FixedPointFinder's interpreter
without JAX as well.
"""

import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

MIB = 1024 if sys.platform != "darwin" else 2**20  # ru_maxrss is in KiB, on macOS in bytes


def peak_mib() -> float:
    """Largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def measure(
    run: Callable[[], Any], budget_s: float, n_repeats: int = 5, device_peak: Callable[[], float | None] = lambda: None
) -> tuple[Any, dict[str, Any]]:
    """Call once, then again: `n_repeats` times, or as often as the budget allows, at least once.

    Args:
      run: blocks until its result is there.
      budget_s: no further call is begun after so many seconds of warm calls.
      n_repeats: warm calls wanted.
      device_peak: MiB used at most on an accelerator, None where that is not known.

    Returns:
      The last result; first_s, warm_s (each call), warm_median_s, warm_spread_s (largest - smallest), memory of the
      host before and at most (of all calls), MiB, and of the device.
    """
    before = peak_mib()
    began = time.perf_counter()
    result = run()
    first = time.perf_counter() - began
    warm: list[float] = []
    while len(warm) < n_repeats and (not warm or sum(warm) < budget_s):
        began = time.perf_counter()
        result = run()
        warm.append(time.perf_counter() - began)
    return result, {
        "first_s": first,
        "warm_s": warm,
        "warm_median_s": float(np.median(warm)),
        "warm_spread_s": max(warm) - min(warm),
        "n_repeats": len(warm),
        "memory_before_mib": before,
        "memory_peak_mib": peak_mib(),
        "memory_delta_mib": peak_mib() - before,
        "memory_device_mib": device_peak(),
    }


def save(path: str, arrays: Mapping[str, Any]) -> None:
    """Write the arrays that are there (not None) to an npz."""
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
