"""Figures of results. Each function draws result tuples into the axes given and returns them; none computes."""

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

__all__ = [
    "INDEX_COLORS", "Q_FLOOR", "SLOW_COLOR", "average", "bifurcation_diagram", "decoded", "discovery", "distances",
    "eigenvalues", "family_inside_orbits", "frequencies", "multipliers", "orbits", "oscillations",
    "q_distribution", "sheet", "state_space", "taylor", "timescales", "tolerances", "trial",
]  # fmt: skip
