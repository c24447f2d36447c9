"""What the README shows runs as shown."""

import pathlib
import re

import jax
import numpy as np
import pytest

import jaxfp

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_shell_commands_are_there():
    """Install and the main job in the first block, install and tests in the second."""
    first, second = blocks("sh")[:2]
    assert first.splitlines() == ["python -m pip install .", "python -m jaxfp flip-flop"]
    assert second.splitlines()[0] == 'python -m pip install ".[test]"'
    assert second.splitlines()[1].startswith("python -m pytest")


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    """All of them in one namespace, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "readme"}
    python = blocks("python")
    assert python
    settings = {name: getattr(jax.config, name) for name in re.findall(r'config.update\("(\w+)"', "".join(python))}
    # JAX as it comes, as readers have it
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for number, block in enumerate(python):
            exec(compile(block, f"README.md, python block {number}", "exec"), namespace)
    for name, value in settings.items():
        jax.config.update(name, value)
    said = capsys.readouterr().out
    assert "The index sum is +1" in said
    assert "line of length 2.96: continuous within resolution" in said
    assert "chain of 5 fixed points" in said
    assert np.bincount(namespace["modes"].n_unstable).tolist() == [8, 12, 6, 1]
    assert isinstance(namespace["stable"], jaxfp.FixedPoints)
    assert len(namespace["stable"].hidden) == 8


@pytest.mark.parametrize("path", re.findall(r"`((?:jaxfp|benchmarks|notebooks|tests)/[\w./]+|\.ci/\w+)`", README))
def test_files_named_are_there(path):
    assert (pathlib.Path(__file__).parent.parent / path).exists()
