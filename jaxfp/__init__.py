"""Fixed and slow points of recurrent networks: find all, say how sure, linearize, read the mechanism."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AT_SADDLE", "ELSEWHERE", "FIXED", "FOLD", "MAX_STEPS", "NONFINITE", "REACHED", "REJECTED", "SLOW", "Alignment",
    "Audit", "Basins", "Certificates", "CertifiedJacobian", "Connections", "CriticalAmplitude", "Cycles",
    "Dimension", "Events", "Family", "FixedPoints", "Info", "LimitCycles", "Line", "Linearization", "MemoryGraph",
    "Modes", "NonNormality", "Plane", "Prediction", "Projection", "Report", "TaylorTerms", "Transitions",
    "Validity", "alignment", "audit", "basins", "build_search", "certified_jacobian", "certify", "connections",
    "critical_amplitude", "dimension", "eigenvalue", "excludes", "find_cycles", "find_fixed_points",
    "find_fixed_points_ensemble", "find_limit_cycles", "fixed_point", "floquet_multipliers", "from_arrays",
    "from_keras", "from_linen", "from_nnx", "from_torch", "gauss_newton_krylov", "gradient",
    "levenberg_marquardt", "linear_prediction", "linearize", "lyapunov_exponents", "memory_graph",
    "newton_krylov", "non_normality", "project", "q", "residual", "sample_candidates", "simulate", "spectrum",
    "speed", "sweep", "take", "taylor_terms", "tell_apart", "to_networkx", "trace_line", "trace_plane",
    "transitions", "truncated_newton", "validity_radius",
]  # fmt: skip

if TYPE_CHECKING:
    from jaxfp import io as io
    from jaxfp.analysis.branches import Events, Family
    from jaxfp.analysis.completeness import Audit, audit
    from jaxfp.analysis.continuation import sweep
    from jaxfp.analysis.coordinates import Alignment, Dimension, Projection, alignment, dimension, project
    from jaxfp.analysis.cycles import Cycles, find_cycles, floquet_multipliers, lyapunov_exponents
    from jaxfp.analysis.implicit import Info, eigenvalue, fixed_point
    from jaxfp.analysis.limit_cycles import LimitCycles, find_limit_cycles
    from jaxfp.analysis.linearization import Linearization, linearize
    from jaxfp.analysis.lines import Line
    from jaxfp.analysis.manifolds import trace_line
    from jaxfp.analysis.modes import Modes, spectrum
    from jaxfp.analysis.responses import Basins, CriticalAmplitude, Transitions, basins, critical_amplitude, transitions
    from jaxfp.analysis.sheets import Plane, trace_plane
    from jaxfp.analysis.topology import Connections, MemoryGraph, connections, memory_graph, to_networkx
    from jaxfp.analysis.transients import NonNormality, non_normality
    from jaxfp.analysis.validity import (
        Prediction,
        TaylorTerms,
        Validity,
        linear_prediction,
        taylor_terms,
        validity_radius,
    )
    from jaxfp.dynamics import q, residual, simulate, speed
    from jaxfp.ensemble import find_fixed_points_ensemble
    from jaxfp.models.adapters import from_arrays
    from jaxfp.models.flax_adapters import from_linen, from_nnx
    from jaxfp.models.imported import from_keras, from_torch
    from jaxfp.pipeline import find_fixed_points
    from jaxfp.proof.certificates import (
        Certificates,
        CertifiedJacobian,
        certified_jacobian,
        certify,
        excludes,
        tell_apart,
    )
    from jaxfp.search.candidates import sample_candidates
    from jaxfp.search.dedupe import take
    from jaxfp.search.engine import build_search
    from jaxfp.search.solvers.gradient import gradient
    from jaxfp.search.solvers.levenberg_marquardt import levenberg_marquardt
    from jaxfp.search.solvers.newton_krylov import gauss_newton_krylov, newton_krylov, truncated_newton
    from jaxfp.types import (
        AT_SADDLE,
        ELSEWHERE,
        FIXED,
        FOLD,
        MAX_STEPS,
        NONFINITE,
        REACHED,
        REJECTED,
        SLOW,
        FixedPoints,
        Report,
    )
else:  # the same names, each imported when it is first asked for: who does not use flax does not wait for it
    _HOMES = {
        "Events Family": "analysis.branches", "Audit audit": "analysis.completeness",
        "sweep": "analysis.continuation",
        "Alignment Dimension Projection alignment dimension project": "analysis.coordinates",
        "Cycles find_cycles floquet_multipliers lyapunov_exponents": "analysis.cycles",
        "Info eigenvalue fixed_point": "analysis.implicit",
        "LimitCycles find_limit_cycles": "analysis.limit_cycles",
        "Linearization linearize": "analysis.linearization", "Line": "analysis.lines",
        "trace_line": "analysis.manifolds", "Modes spectrum": "analysis.modes",
        "Basins CriticalAmplitude Transitions basins critical_amplitude transitions": "analysis.responses",
        "Plane trace_plane": "analysis.sheets",
        "Connections MemoryGraph connections memory_graph to_networkx": "analysis.topology",
        "NonNormality non_normality": "analysis.transients",
        "Prediction TaylorTerms Validity linear_prediction taylor_terms validity_radius": "analysis.validity",
        "q residual simulate speed": "dynamics", "find_fixed_points_ensemble": "ensemble",
        "from_arrays": "models.adapters", "from_linen from_nnx": "models.flax_adapters",
        "from_keras from_torch": "models.imported",
        "find_fixed_points": "pipeline",
        "Certificates CertifiedJacobian certified_jacobian certify excludes tell_apart": "proof.certificates",
        "sample_candidates": "search.candidates", "take": "search.dedupe", "build_search": "search.engine",
        "gradient": "search.solvers.gradient", "levenberg_marquardt": "search.solvers.levenberg_marquardt",
        "gauss_newton_krylov newton_krylov truncated_newton": "search.solvers.newton_krylov",
        "AT_SADDLE ELSEWHERE FIXED FOLD MAX_STEPS NONFINITE REACHED REJECTED SLOW FixedPoints Report": "types",
    }  # fmt: skip

    def __getattr__(name: str) -> Any:
        if name == "io":
            return importlib.import_module("jaxfp.io")
        for names, home in _HOMES.items():
            if name in names.split():
                globals()[name] = value = getattr(importlib.import_module(f"jaxfp.{home}"), name)
                return value
        raise AttributeError(f"module 'jaxfp' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return [*globals(), *__all__, "io"]
