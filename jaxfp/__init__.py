"""Fixed and slow points of recurrent networks: find all, say how sure, linearize, read the mechanism."""

from jaxfp.analysis.completeness import Audit, audit
from jaxfp.analysis.linearization import Linearization, linearize
from jaxfp.analysis.modes import Modes, spectrum
from jaxfp.dynamics import q, residual, simulate, speed
from jaxfp.models.adapters import from_arrays, from_linen, from_nnx
from jaxfp.pipeline import find_fixed_points
from jaxfp.search.candidates import sample_candidates
from jaxfp.search.dedupe import take
from jaxfp.search.engine import build_search
from jaxfp.search.solvers.gradient import gradient
from jaxfp.search.solvers.levenberg_marquardt import levenberg_marquardt
from jaxfp.types import FIXED, MAX_STEPS, NONFINITE, REJECTED, SLOW, FixedPoints, Report

__version__ = "0.1.0"
__all__ = [
    "FIXED",
    "MAX_STEPS",
    "NONFINITE",
    "REJECTED",
    "SLOW",
    "Audit",
    "FixedPoints",
    "Linearization",
    "Modes",
    "Report",
    "audit",
    "build_search",
    "find_fixed_points",
    "from_arrays",
    "from_linen",
    "from_nnx",
    "gradient",
    "levenberg_marquardt",
    "linearize",
    "q",
    "residual",
    "sample_candidates",
    "simulate",
    "spectrum",
    "speed",
    "take",
]
