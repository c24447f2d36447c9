"""What the picture of `sentiment_mechanism` is held against: the network itself, word order, and silence.

A linear step is F(h*) + J (h - h*) + J_in x about the slow point nearest to the state: one step ahead of the network's
own states, or k steps by itself, from the same state under the same words. One linear network, about one central
point, reads whole texts.
"""

from typing import Any

import jax
import numpy as np

from jaxfp.analysis import integration, switching
from jaxfp.cli.sentiment_mechanism import SlowPoints, inside
from jaxfp.cli.sentiment_networks import Network, classify
from jaxfp.tasks import sentiment

N_WINDOWS = 128
N_STEPS = 20  # that linear steps run by themselves
N_SILENT = 10  # steps


def linear_errors(
    key: jax.Array, network: Network, slow: SlowPoints, texts: sentiment.Texts, states: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """S8: linear steps about the nearest slow point, beside the guess that nothing changes.

    Args:
      key: of where the windows begin.
      network: of any cell.
      slow: see `SlowPoints`.
      texts: encoded with its vocabulary.
      states: (n_texts, n_time, n_hidden), of `read`.

    Returns:
      (n_windows, n_steps), |F - linear| / |F| of one step at each step of the windows; dict.

    Raises:
      ValueError: if no text is longer than two tokens.

    Example:
      >>> linear_errors.__name__
      'linear_errors'
    """
    n_steps = min(N_STEPS, int(np.max(texts.lengths)) - 1)
    whole = np.argwhere(inside(texts)[:, n_steps:])  # (text, time) from which n_steps more tokens follow
    if n_steps < 1 or not len(whole):
        raise ValueError("linear steps need texts of two tokens or more.")
    chosen = whole[np.asarray(jax.random.choice(key, len(whole), (min(N_WINDOWS, len(whole)),), replace=False))]
    span = np.arange(n_steps + 1)
    rows, columns = chosen[:, :1], chosen[:, 1:] + span
    hidden = np.asarray(states[rows, columns], np.float64)
    drive = np.asarray(network.params.embedding, np.float64)[texts.tokens[rows, columns]]
    made = switching.predict_by_nearest(network.step_fn, network.params.cell, slow.points.hidden, hidden, drive)
    errors = {
        "one step": _relative(made.one_step, hidden[:, 1:]),
        "running freely": _relative(made.free_run, hidden[:, 1:]),
        "no change": _relative(np.broadcast_to(hidden[:, :1], hidden[:, 1:].shape), hidden[:, 1:]),
    }
    said = {
        "n_windows": len(chosen),
        "one_step": {"mean": float(errors["one step"].mean()), "median": float(np.median(errors["one step"]))},
        "no_change_one_step": float(errors["no change"][:, 0].mean()),
        "steps": list(range(1, n_steps + 1)),
        "running_freely": np.median(errors["running freely"], axis=0).tolist(),
        "no_change": np.median(errors["no change"], axis=0).tolist(),
    }
    return errors["one step"], said


def linear_accuracy(network: Network, slow: SlowPoints, texts: sentiment.Texts) -> dict[str, Any]:
    """S8: one linear network in place of the network, about the slow point where the readout is nearest to undecided.

    Args:
      network: of any cell.
      slow: see `SlowPoints`.
      texts: encoded with its vocabulary.

    Returns:
      Dict: accuracies of both, how many texts both judge alike, and how many logits of the linear one are not finite.

    Example:
      >>> linear_accuracy.__name__
      'linear_accuracy'
    """
    point = slow.points.hidden[np.argmin(np.abs(slow.logits))]
    rest = np.zeros(network.params.embedding.shape[1])
    cell = integration.linear_network(network.step_fn, network.params.cell, point, rest)
    cell = tuple(np.asarray(part, np.float32) for part in cell)
    linear = network._replace(step_fn=integration.affine_step, params=network.params._replace(cell=cell))
    own, other = classify(network, texts), classify(linear, texts)
    return {
        "network": _right(own, texts.labels),
        "linearized": _right(other, texts.labels),
        "agreement": float(np.mean((own > 0) == (other > 0))),
        "n_not_finite": int(np.sum(~np.isfinite(other))),
    }


def silence(network: Network, states: np.ndarray) -> dict[str, Any]:
    """S9: how fast states of texts still move when no more words come.

    Args:
      network: of any cell.
      states: (n_states, n_hidden).

    Returns:
      Dict: medians of |h_{t+1} - h_t| / |h_t| at t = 0 .. 10, and of the first over the last.

    Example:
      >>> silence.__name__
      'silence'
    """
    rest = np.zeros(network.params.embedding.shape[1])
    speeds = integration.relative_speeds(network.step_fn, network.params.cell, states, rest, n_steps=N_SILENT + 1)
    return {
        "relative_speed": np.median(speeds, axis=0).tolist(),
        "falls": float(np.median(speeds[:, 0] / np.maximum(speeds[:, -1], np.finfo(float).tiny))),
    }


def shuffled(key: jax.Array, network: Network, texts: sentiment.Texts) -> dict[str, float]:
    """S10: the same words in another order.

    Args:
      key: of the orders.
      network: of any cell.
      texts: encoded with its vocabulary.

    Returns:
      Dict: accuracies in both orders, and the share of the texts that are judged alike.

    Example:
      >>> shuffled.__name__
      'shuffled'
    """
    drawn = np.asarray(jax.random.uniform(key, texts.tokens.shape))
    order = np.argsort(np.where(inside(texts), drawn, 2.0), axis=1, kind="stable")  # what is behind the end stays there
    own = classify(network, texts)
    other = classify(network, texts._replace(tokens=np.take_along_axis(np.asarray(texts.tokens), order, axis=1)))
    return {
        "own_order": _right(own, texts.labels),
        "shuffled": _right(other, texts.labels),
        "agreement": float(np.mean((own > 0) == (other > 0))),
    }


def _right(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of the texts whose sign is right; a logit that is not finite is wrong."""
    return float(np.mean(np.isfinite(logits) & ((logits > 0) == (np.asarray(labels) > 0))))


def _relative(predicted: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    return np.linalg.norm(predicted - hidden, axis=-1) / np.linalg.norm(hidden, axis=-1)
