"""Layers of PyTorch and Keras with random weights, and three of their steps, for tests/test_imported.py.

    python tests/data/make_layers.py torch tests/data/layers_torch.npz
    python tests/data/make_layers.py keras tests/data/layers_keras.npz

Each needs that library alone. What is written was made with torch 2.13.0 and keras 3.15.1 (JAX backend).
"""

import sys

import numpy as np

N, M, T = 3, 2, 3
rng = np.random.default_rng(0)
inputs, hidden, memory = (rng.normal(size=shape).astype(np.float32) for shape in ((T, M), (N,), (N,)))


def torch_layers():
    import torch

    kinds = {
        "tanh": (torch.nn.RNN, {}), "relu": (torch.nn.RNN, {"nonlinearity": "relu"}), "gru": (torch.nn.GRU, {}),
        "lstm": (torch.nn.LSTM, {}), "gru_no_bias": (torch.nn.GRU, {"bias": False}),
    }  # fmt: skip
    for name, (kind, options) in kinds.items():
        layer = kind(M, N, **options)
        for weight in layer.parameters():
            weight.data = torch.as_tensor(rng.normal(size=weight.shape).astype(np.float32))
        first = torch.as_tensor(hidden)[None]
        carry = (first, torch.as_tensor(memory)[None]) if name == "lstm" else first
        states = []
        for u in inputs:
            _, carry = layer(torch.as_tensor(u)[None], carry)
            states.append(torch.cat(carry, 1)[0] if name == "lstm" else carry[0])
        yield name, dict(layer.state_dict()), torch.stack(states).detach().numpy()


def keras_layers():
    import keras

    kinds = {
        "tanh": (keras.layers.SimpleRNN, {}), "relu": (keras.layers.SimpleRNN, {"activation": "relu"}),
        "gru": (keras.layers.GRU, {}), "gru_reset_before": (keras.layers.GRU, {"reset_after": False}),
        "lstm": (keras.layers.LSTM, {}),
    }  # fmt: skip
    for name, (kind, options) in kinds.items():
        layer = kind(N, return_state=True, **options)
        layer.build((1, None, M))
        layer.set_weights([rng.normal(size=weight.shape).astype(np.float32) for weight in layer.get_weights()])
        carry = [hidden[None], memory[None]] if name == "lstm" else [hidden[None]]
        states = []
        for u in inputs:
            _, *carry = layer(u[None, None], initial_state=carry)
            states.append(np.concatenate([np.asarray(part)[0] for part in carry]))
        yield (
            name,
            dict(zip(("kernel", "recurrent_kernel", "bias"), layer.get_weights(), strict=True)),
            np.stack(states),
        )


if __name__ == "__main__":
    arrays = {"inputs": inputs, "hidden": hidden, "memory": memory}
    for name, weights, states in {"torch": torch_layers, "keras": keras_layers}[sys.argv[1]]():
        arrays |= {f"{name}/{part}": np.asarray(weight) for part, weight in (weights | {"states": states}).items()}
    np.savez(sys.argv[2], **arrays)
