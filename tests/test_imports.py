"""Imports go one way: a module imports only what stands above it in one list, and a few things stand apart."""

import ast
import pathlib
import subprocess
import sys

import pytest

import jaxfp

PACKAGE = pathlib.Path(jaxfp.__file__).parent
MAX_LINES = 450

# The order of the modules, file by file. A module may import from those above it, never from itself or below;
# a new module finds its place here first. `jaxfp` is jaxfp/__init__.py: what it offers needs no figures and no cli.
WRITTEN = """
types arguments archive io checkpoints compiling side_by_side program dynamics
proof.interval proof.rules proof.enclosure proof.certificates proof.boxes
models.equations models.cells models.adapters models.flax_adapters models.imported models.train models.force
models.jslds models.jslds_losses models.jslds_post_hoc models.lfads_model models.lfads_losses models.lfads
models.classifier models.bag_of_words
tasks.toys tasks.flip_flop tasks.sine_generator tasks.moving_average tasks.three_bit_memory
tasks.context_integration tasks.spiking_integrator tasks.sentiment tasks.synthetic_reviews
search.candidates search.solvers.levenberg_marquardt search.solvers.newton_krylov search.solvers.gradient
search.engine search.dedupe search.inside search.polish search.zeros search.minima search.judgment search.known
search.settling search.sharing search.wave
analysis.linearization analysis.modes analysis.completeness analysis.implicit analysis.validity analysis.transients
analysis.arrivals analysis.topology analysis.responses
analysis.stability analysis.tracking analysis.branches analysis.following analysis.continuation
analysis.cycles analysis.limit_cycles analysis.slow_spaces analysis.curves analysis.drift analysis.lines
analysis.manifolds analysis.coordinates analysis.sheets analysis.switching analysis.integration
completion pipeline ensemble jslds
jaxfp
plotting.points plotting.planes plotting.tasks plotting.topology plotting.jslds plotting.lfads plotting.manifolds
plotting.sentiment
plotting.__init__
cli.cache cli.proofs cli.report cli.frame
cli.flip_flop_training cli.flip_flop_force cli.flip_flop_mechanism cli.flip_flop
cli.sine_training cli.sine_mechanism cli.sine_family cli.sine_generator
cli.average_training cli.average_mechanism cli.moving_average cli.jslds_training cli.jslds_mechanism
cli.jslds_context cli.jslds_context_mechanism cli.jslds_context_report cli.jslds cli.sentiment_networks
cli.sentiment_training cli.lfads_training cli.lfads
cli.sentiment_mechanism cli.sentiment_controls cli.sentiment_words cli.sentiment_findings cli.sentiment
cli.toys cli.find cli.__init__ __main__
"""
ORDER = WRITTEN.split()
WINGS = {"proof", "models", "tasks", "search", "search.solvers", "analysis"}  # their __init__ hold a docstring only
MAY_IMPORT_TASKS = {"jslds", "cli"}
MAY_IMPORT_MATPLOTLIB = {"plotting", "cli.report"}
MAY_IMPORT_PLOTTING = {"cli"}


def module_name(path: pathlib.Path, package: pathlib.Path) -> str:
    """Dotted name inside the package: `search.engine`, `cli.__init__`, `search` for a wing, `jaxfp` for the root."""
    parts = list(path.relative_to(package).with_suffix("").parts)
    if parts == ["__init__"]:
        return "jaxfp"
    wing = ".".join(parts[:-1])
    return wing if parts[-1] == "__init__" and wing in WINGS else ".".join(parts)


def imported(path: pathlib.Path, modules: set[str]) -> list[tuple[int, str]]:
    """(line, module) of every import, wherever it stands: ours without `jaxfp.`, others by their full name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(node.lineno, _ours(name, modules) if name.split(".")[0] == "jaxfp" else name) for name in names]
    return found


def _ours(name: str, modules: set[str]) -> str:
    """`jaxfp.types.FIXED` is from `types`, `jaxfp.cli.main` from `cli.__init__`, `jaxfp.q` from `jaxfp`."""
    inner = name.removeprefix("jaxfp").removeprefix(".")
    while inner:
        for candidate in (inner, f"{inner}.__init__"):
            if candidate in modules:
                return candidate
        inner = inner.rpartition(".")[0]
    return "jaxfp"


def violations(package: pathlib.Path) -> list[str]:
    """One sentence for each import that goes the wrong way, and for each module without a place."""
    paths = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    said = []
    for module, path in paths.items():
        wing = module.split(".")[0]
        if module not in ORDER and module not in WINGS:
            said.append(f"{module} has no place in the order")
            continue
        for line, target in imported(path, set(paths)):
            where, other = f"{module}:{line} imports {target}", target.split(".")[0]
            if target.startswith("."):
                said.append(f"{where}: relative")
            if other == "matplotlib" and not MAY_IMPORT_MATPLOTLIB & {module, wing}:
                said.append(f"{where}: only {sorted(MAY_IMPORT_MATPLOTLIB)} may")
            if target.startswith("matplotlib.pyplot") and wing != "plotting":
                said.append(f"{where}: only plotting may")
            if target not in paths:
                continue
            if module in WINGS:
                said.append(f"{where}: a wing's __init__ imports nothing")
            elif target not in WINGS and ORDER.index(target) >= ORDER.index(module):
                said.append(f"{where}: upward")
            if other == "tasks" and (wing == "tasks" or wing not in MAY_IMPORT_TASKS):
                said.append(f"{where}: only {sorted(MAY_IMPORT_TASKS)} may import tasks")
            if other == "plotting" and wing not in MAY_IMPORT_PLOTTING | {"plotting"}:
                said.append(f"{where}: only the cli may")
    return said


def test_no_import_goes_upward():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        ("models/cells.py", "from jaxfp.search import engine", "upward"),
        ("models/cells.py", "from jaxfp.search.engine import build_search", "upward"),
        ("models/cells.py", "import jaxfp.search.engine", "upward"),
        ("models/cells.py", "def lazy():\n    from jaxfp import pipeline", "upward"),
        ("models/cells.py", "from jaxfp import find_fixed_points", "upward"),
        ("models/cells.py", "from jaxfp.models import cells", "upward"),
        ("models/cells.py", "from . import adapters", "relative"),
        ("tasks/flip_flop.py", "from jaxfp.tasks import toys", "may import tasks"),
        ("pipeline.py", "from jaxfp.tasks.toys import ghost", "may import tasks"),
        ("__init__.py", "from jaxfp import plotting", "upward"),
        ("io.py", "from jaxfp import plotting", "upward"),
        ("search/engine.py", "import matplotlib", "may"),
        ("cli/report.py", "import matplotlib.pyplot as plt", "only plotting may"),
        ("cli/report.py", "from matplotlib import pyplot", "only plotting may"),
        ("search/__init__.py", "from jaxfp import types", "imports nothing"),
        ("helpers.py", "", "no place"),
    ],
)
def test_walker_catches_it(tmp_path, module, line, said):
    allowed = {
        "__init__.py": "from jaxfp.pipeline import find_fixed_points",
        "types.py": "import jax",
        "models/__init__.py": "",
        "models/cells.py": "from jaxfp.types import Array",
        "models/adapters.py": "from jaxfp.models import cells",
        "tasks/toys.py": "",
        "tasks/flip_flop.py": "",
        "search/__init__.py": "",
        "search/engine.py": "from jaxfp import types",
        "pipeline.py": "from jaxfp.search.engine import build_search\nfrom jaxfp.models import adapters",
        "io.py": "",
        "plotting/points.py": "import matplotlib.pyplot as plt",
        "plotting/__init__.py": "from jaxfp.plotting.points import discovery",
        "cli/__init__.py": "from jaxfp.cli import flip_flop",
        "cli/flip_flop.py": "from jaxfp.tasks import flip_flop\nfrom jaxfp.cli import report",
        "cli/report.py": "from jaxfp import io, plotting\nfrom matplotlib.figure import Figure",
        "__main__.py": "from jaxfp.cli import main",
    }
    for name, text in allowed.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert violations(tmp_path) == []
    (tmp_path / module).write_text(line)
    assert [sentence for sentence in violations(tmp_path) if said in sentence]


def test_library_neither_prints_nor_configures():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called != "print", f"{path.name}:{node.lineno} prints"
                assert not called.endswith("config.update"), f"{path.name}:{node.lineno} changes global config"


def test_no_module_outgrows_its_reader():
    lengths = {path: len(path.read_text().splitlines()) for path in sorted(PACKAGE.rglob("*.py"))}
    assert {str(path.relative_to(PACKAGE)): n for path, n in lengths.items() if n > MAX_LINES} == {}


def test_root_offers_what_it_says():
    assert sorted(jaxfp.__all__) == sorted(set(jaxfp.__all__))
    assert all(hasattr(jaxfp, name) for name in jaxfp.__all__)
    with pytest.raises(AttributeError, match="'jaxfp' has no attribute 'find_fixed_point'"):
        _ = jaxfp.find_fixed_point


def fresh(code):
    """What a process of its own prints, as words."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_root_lists_what_it_has_not_imported_yet():
    assert {*jaxfp.__all__, "io", "__version__"} <= fresh("import jaxfp; print(*dir(jaxfp))")


def test_root_says_the_same_to_type_checkers():
    """What they read and where each name is found are two tables, and one list says which names there are."""
    block = next(node for node in ast.parse((PACKAGE / "__init__.py").read_text()).body if isinstance(node, ast.If))
    read = {(alias.name, node.module) for node in block.body for alias in node.names}
    found = {(name, f"jaxfp.{home}") for names, home in jaxfp._HOMES.items() for name in names.split()}
    assert read == found | {("io", "jaxfp")}
    assert sorted(name for name, _ in found) == sorted(jaxfp.__all__)


@pytest.mark.parametrize(
    ("used", "waited_for"),
    [
        ("jaxfp", {"jax", "numpy"}),
        ("jaxfp.cli", {"jax", "numpy"}),
        ("jaxfp.find_fixed_points", {"flax", "optax", "orbax", "matplotlib", "torch", "scipy.special", "jax.extend"}),
        ("jaxfp.from_arrays", {"flax", "optax", "orbax", "matplotlib", "torch", "scipy", "rich"}),
        ("jaxfp.io.load", {"flax", "optax", "orbax", "matplotlib", "torch", "scipy", "rich"}),
    ],
)
def test_what_is_not_used_is_not_imported(used, waited_for):
    """Nobody waits for the import of a package that they do not use."""
    module = "jaxfp.cli" if used == "jaxfp.cli" else "jaxfp"
    assert waited_for & fresh(f"import sys, {module}; {used}; print(*sys.modules)") == set()


COMPILED = """
import logging, numpy, jax, jaxfp
step_fn, params = jaxfp.from_arrays("tanh", {"w_rec": numpy.eye(2, dtype="float32"), "b": numpy.ones(2, "float32")})
jax.config.update("jax_log_compiles", True)
class Names(logging.Handler):
    def emit(self, record):
        said = record.getMessage()
        if said.startswith("Finished XLA compilation of jit("):
            print(said.split("jit(")[1].split(")")[0])
logging.getLogger("jax").propagate = False
logging.getLogger("jax").addHandler(Names())
jaxfp.find_fixed_points(step_fn, params, numpy.ones((2, 2), "float32"))
"""


def test_a_first_search_compiles_only_what_it_is_made_of():
    """No cast of a weight, no key that nothing is drawn with, no sum to see whether it is being traced."""
    compiled = fresh(COMPILED)
    assert "_round" in compiled
    assert compiled & {"add", "convert_element_type", "_threefry_seed"} == set()
