"""Sides that need PyTorch, in an interpreter that may have nothing else: FixedPointFinder-torch and neuralrnn.

    python -m benchmarks.torch_side TOOL NETWORK.npz RESULT.npz --fpf CHECKOUT

is started by `benchmarks.sides`, not by hand. NETWORK.npz holds the arrays of `jaxfp.from_arrays`, kind, alpha, form,
candidates and inputs. Prints one JSON line; RESULT.npz holds `lanes`, where each candidate ended, and `points`, what
the tool itself reports.

FixedPointFinder: its example's settings (Adam at 1.0, 10,000 iterations, outliers beyond ten times the usual distance),
float32; "fpf 0.01" with Adam at 0.01. "fpf" is its search (`_run_joint_optimization`), its own merging done afterwards,
not timed; "fpf whole" the whole call with Jacobians and their decomposition. It takes any module that maps (inputs,
state) like torch.nn.RNN. Its search overwrites the states it is given, so each call gets a copy.
neuralrnn: GolubFixedPointFinder, no noise added, no other option changed; it clips its starts at 0 from below.
"""

import argparse
import contextlib
import io
import json
import sys
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks import harness


class Step(torch.nn.Module):
    """One step of our networks that torch.nn does not have; state (1, batch, n_hidden), inputs (batch, 1, n_inputs)."""

    batch_first = True

    def __init__(self, kind: str, arrays: dict[str, torch.Tensor], alpha: float, form: str):
        super().__init__()
        self.kind, self.alpha, self.form = kind, alpha, form
        for name, array in arrays.items():
            self.register_parameter(name, torch.nn.Parameter(array))
        if kind == "lstm":
            n_units, n_inputs = arrays["w_rec"].shape[1], arrays["w_in"].shape[1]
            self.cell = torch.nn.LSTMCell(n_inputs, n_units)
            _fill(self.cell, weight_hh=self.w_rec, weight_ih=self.w_in, bias_ih=self.b, bias_hh=0 * self.b)

    def forward(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The next state, twice."""
        hidden, drive = state[0], inputs[:, 0]
        if self.kind == "lstm":
            new = torch.cat(self.cell(drive, torch.chunk(hidden, 2, dim=1)), dim=1)
        else:
            rate = hidden if self.form == "rate" else torch.tanh(hidden)
            low_rank = self.kind == "low_rank"
            target = (rate @ self.n @ self.m.T / hidden.shape[1] if low_rank else rate @ self.w_rec.T) + self.b
            target = target + drive @ self.w_in.T
            new = (1 - self.alpha) * hidden + self.alpha * (torch.tanh(target) if self.form == "rate" else target)
        return new[:, None], new[None]


def _fill(module: torch.nn.Module, **arrays: torch.Tensor) -> None:
    with torch.no_grad():
        for name, array in arrays.items():
            getattr(module, name).copy_(array)


def module_of(network: dict[str, np.ndarray], device: str) -> torch.nn.Module:
    """Our network as FixedPointFinder wants it: torch's own RNN and GRU, else `Step`.

    Args:
      network: as in NETWORK.npz.
      device: "cpu" or "cuda".

    Returns:
      The module, float32.
    """
    kind = str(network["kind"])
    weights = ("w_rec", "w_in", "b", "b_rec", "m", "n")
    arrays = {name: torch.tensor(network[name], dtype=torch.float32) for name in weights if name in network}
    if not arrays["w_in"].shape[1]:
        arrays["w_in"] = torch.zeros(len(arrays["b"]), 1)  # torch has no networks without inputs
    if kind not in ("tanh", "gru"):
        return Step(kind, arrays, float(network["alpha"]), str(network["form"])).to(device)
    n_inputs, n_units = arrays["w_in"].shape[1], arrays["w_rec"].shape[1]
    module = (torch.nn.RNN if kind == "tanh" else torch.nn.GRU)(n_inputs, n_units, batch_first=True)
    b_rec = arrays.get("b_rec", 0 * arrays["b"])
    _fill(module, weight_hh_l0=arrays["w_rec"], weight_ih_l0=arrays["w_in"], bias_ih_l0=arrays["b"], bias_hh_l0=b_rec)
    return module.to(device)


def fpf(module: Any, candidates: np.ndarray, inputs: np.ndarray, whole: bool, checkout: str, rate: float = 1.0) -> Any:
    """FixedPointFinder of a checkout: (run, collect)."""
    sys.path.insert(0, checkout)
    from FixedPointFinderTorch import FixedPointFinderTorch

    finder = FixedPointFinderTorch(module, max_iters=10000, lr_init=rate, outlier_distance_scale=10.0, verbose=False)
    search = finder.find_fixed_points if whole else finder._run_joint_optimization

    def run() -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return search(candidates.copy(), inputs)

    def collect(result: Any) -> dict[str, Any]:
        unique, lanes = result if whole else (None, result)
        if unique is None:
            with contextlib.redirect_stdout(io.StringIO()):
                unique = finder._exclude_distance_outliers(lanes.get_unique(), candidates)
        return {
            "lanes": lanes.xstar,
            "points": unique.xstar,
            "point_inputs": unique.inputs,
            "n_steps": np.array(lanes.n_iters[0]),
        }

    return run, collect


def neuralrnn(module: Any, candidates: np.ndarray, inputs: np.ndarray, whole: bool, checkout: str) -> Any:
    """GolubFixedPointFinder of neuralrnn: (run, collect)."""
    from neuralrnn.analysis.fixed_points import GolubFixedPointFinder

    def recurrence(drive: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return module(drive[:, None], hidden[None])[1][0]

    def jacobian(hidden: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        return torch.autograd.functional.jacobian(lambda h: recurrence(inputs, h[None])[0], hidden)

    if len(np.unique(inputs, axis=0)) > 1:
        raise NotImplementedError("neuralrnn searches at one input at a time")
    config = SimpleNamespace(latent_dim=candidates.shape[1])
    model = SimpleNamespace(
        training=False, eval=lambda: None, train=lambda: None, parameters=module.parameters, config=config,
        recurrence=recurrence, jacobian=jacobian,
    )  # fmt: skip
    finder = GolubFixedPointFinder(n_candidates=len(candidates), noise_scale=0.0, seed=0)

    def run() -> Any:
        return finder.find(model, task_input=torch.tensor(inputs[0]), init_states=candidates)

    def collect(result: Any) -> dict[str, Any]:
        return {"points": result.coords(), "point_inputs": np.tile(inputs[:1], (len(result), 1))}

    return run, collect


def main() -> None:
    """Measure one tool on one network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=("fpf", "fpf 0.01", "fpf whole", "neuralrnn"))
    parser.add_argument("network")
    parser.add_argument("result")
    parser.add_argument("--fpf", default="")
    parser.add_argument("--budget", type=float, default=30.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with np.load(arguments.network) as file:
        network = dict(file)
    module = module_of(network, device)
    candidates = network["candidates"].astype(np.float32)
    n_inputs = max(network["w_in"].shape[1], 1)
    inputs = network.get("inputs", np.zeros((len(candidates), n_inputs))).astype(np.float32)
    tool = neuralrnn if arguments.tool == "neuralrnn" else fpf
    more = {"rate": 0.01} if "0.01" in arguments.tool else {}
    try:
        run, collect = tool(module, candidates, inputs, "whole" in arguments.tool, arguments.fpf, **more)
    except (ImportError, NotImplementedError) as error:
        print(json.dumps({"missing": f"{type(error).__name__}: {error}"}))
        return

    def blocking() -> Any:
        result = run()
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    def device_peak() -> float | None:
        return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None

    result, numbers = harness.measure(blocking, arguments.budget, arguments.repeats, device_peak)
    harness.save(arguments.result, collect(result))
    versions = {"torch": torch.__version__}
    if arguments.tool == "neuralrnn":
        versions["neuralrnn"] = metadata.version("neuralrnn")
    device_name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(json.dumps({**numbers, "threads": torch.get_num_threads(), "versions": versions, "device": device_name}))


if __name__ == "__main__":
    main()
