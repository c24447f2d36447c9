"""Figures of results. Each function draws result tuples into the axes given and returns them; none computes."""

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
    "INDEX_COLORS", "Q_FLOOR", "SLOW_COLOR", "amplitude_sweep", "approach", "average", "bifurcation_diagram",
    "decoded", "discovery", "distances", "edge_distances", "eigenvalues", "family_inside_orbits", "frequencies",
    "multipliers", "orbits", "oscillations", "phase_plane", "q_distribution", "saddle_node", "sheet", "state_space",
    "taylor", "timescales", "tolerances", "trial", "truth_table", "unstable_manifolds",
]  # fmt: skip
