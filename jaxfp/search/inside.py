"""States and the box that the map sends into itself: a function of one input, or None, to its lower and upper ends."""

from typing import Any

import numpy as np

from jaxfp.search import dedupe


def outside(box: Any, hidden: np.ndarray, inputs: np.ndarray | None, slack: np.ndarray) -> np.ndarray:
    """Is a state outside the box at its input?

    Args:
      box: function of an input, (n_inputs,) or None, to the box's (lower, upper), (n_hidden,) each.
      hidden: (n_states, n_hidden).
      inputs: (n_states, n_inputs) float64 or None.
      slack: (n_states,), how far beyond still counts as inside.

    Returns:
      (n_states,) bool; False where a state is NaN.

    Example:
      >>> outside(lambda u: (-u, u), np.array([[1.5], [1.5]]), np.array([[1.0], [2.0]]), np.zeros(2)).tolist()
      [True, False]
    """
    lower, upper = _ends(box, hidden, inputs)
    return ((hidden < lower - slack[:, None]) | (hidden > upper + slack[:, None])).any(1)


def nearest(box: Any, hidden: np.ndarray, inputs: np.ndarray | None) -> np.ndarray:
    """The states of the box nearest to these.

    Args:
      box: as of `outside`.
      hidden: (n_states, n_hidden).
      inputs: (n_states, n_inputs) float64 or None.

    Returns:
      (n_states, n_hidden) in the dtype of hidden.

    Example:
      >>> nearest(lambda u: (-u, u), np.array([[1.5], [1.5]]), np.array([[1.0], [2.0]])).tolist()
      [[1.0], [1.5]]
    """
    return np.clip(hidden, *_ends(box, hidden, inputs)).astype(hidden.dtype)


def _ends(box: Any, hidden: np.ndarray, inputs: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    group, distinct = dedupe.input_groups(inputs, len(hidden))
    boxes = [box(None)] if distinct is None else [box(u) for u in distinct]
    lower, upper = (np.reshape([b[i] for b in boxes], (-1, hidden.shape[1]))[group] for i in (0, 1))
    return lower, upper
