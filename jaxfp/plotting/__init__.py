"""Figures of results. Each function draws result tuples into the axes given and returns them; none computes."""

from jaxfp.plotting.jslds import (
    branches,
    evidence_plane,
    expansion_points,
    hold_curves,
    readout_space,
    selection_map,
    selection_vectors,
    state_eigenvalues,
)
from jaxfp.plotting.lfads import factor_traces, spike_rates, true_against_inferred
from jaxfp.plotting.manifolds import line_drift, line_timescales, slow_line
from jaxfp.plotting.planes import phase_plane, saddle_node
from jaxfp.plotting.points import (
    INDEX_COLORS,
    Q_FLOOR,
    SLOW_COLOR,
    bifurcation_diagram,
    discovery,
    eigenvalues,
    q_distribution,
    state_space,
)
from jaxfp.plotting.sentiment import (
    alignment_histogram,
    cumulative_variance,
    error_growth,
    error_histogram,
    modifier_shares,
    slow_points_on_line,
    text_states,
    theta_eigenvalues,
    token_timescales,
    valence_histograms,
)
from jaxfp.plotting.tasks import (
    average,
    decoded,
    distances,
    family_inside_orbits,
    frequencies,
    multipliers,
    orbits,
    oscillations,
    sheet,
    taylor,
    timescales,
    tolerances,
    trial,
)
from jaxfp.plotting.topology import amplitude_sweep, approach, edge_distances, truth_table, unstable_manifolds

__all__ = [
    "INDEX_COLORS", "Q_FLOOR", "SLOW_COLOR", "alignment_histogram", "amplitude_sweep", "approach", "average",
    "bifurcation_diagram", "branches", "cumulative_variance", "decoded", "discovery", "distances", "edge_distances",
    "eigenvalues", "error_growth", "error_histogram", "evidence_plane", "expansion_points", "factor_traces",
    "family_inside_orbits", "frequencies", "hold_curves", "line_drift", "line_timescales", "modifier_shares",
    "multipliers", "orbits", "oscillations", "phase_plane", "q_distribution", "readout_space", "saddle_node",
    "selection_map", "selection_vectors", "sheet", "slow_line", "slow_points_on_line", "spike_rates",
    "state_eigenvalues", "state_space", "taylor", "text_states", "theta_eigenvalues", "timescales",
    "token_timescales", "tolerances", "trial", "true_against_inferred", "truth_table", "unstable_manifolds",
    "valence_histograms",
]  # fmt: skip
