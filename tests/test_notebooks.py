"""Every notebook runs from top to bottom, and lies in the repository without outputs."""

import ast
import pathlib

import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def code(name):
    return [cell for cell in nbformat.read(FOLDER / name, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert "flip_flop.ipynb" in NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name, tmp_path, monkeypatch):
    """From a fresh kernel in an empty folder; what it prints on standard error fails the test, too."""
    monkeypatch.setenv("JAXFP_SMOKE", "1")
    # JAX as it comes, as readers have it
    for name_of_ours in ("JAX_NUMPY_RANK_PROMOTION", "JAX_NUMPY_DTYPE_PROMOTION"):
        monkeypatch.delenv(name_of_ours, raising=False)
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert printed.strip()
    assert figures
    assert list(tmp_path.iterdir()) == []
    if name == "flip_flop.ipynb":
        assert "27 fixed points, 0 slow points." in printed
        assert len(figures) == 6
        assert "differ: [ 0 12]" in printed
        assert printed.count("The index sum is +1") == 2


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_stored_without_outputs(name):
    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbformat.validate(notebook)
    assert [cell.id for cell in code(name) if cell.outputs or cell.execution_count is not None] == []
    assert set(notebook.metadata) <= {"kernelspec", "language_info", "colab"}
    assert [cell.id for cell in notebook.cells] == [f"cell-{i:02d}" for i in range(len(notebook.cells))]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_installs_only_what_is_missing(name):
    """The first code cell tries the import, and pip runs where it fails and nowhere else."""
    first = ast.parse(code(name)[0].source)
    constants = [node.targets[0].id for node in first.body if isinstance(node, ast.Assign)]
    assert constants[0] == "INSTALL"
    guarded = next(node for node in first.body if isinstance(node, ast.Try))
    assert ast.unparse(guarded.body) == "import jaxfp"
    assert "pip" in ast.unparse(guarded.handlers[0])
    for cell in code(name)[1:]:
        assert "pip" not in cell.source
    for cell in nbformat.read(FOLDER / name, as_version=4).cells:
        assert max(map(len, cell.source.splitlines())) <= 120
