"""Solvers that minimize q for one candidate."""
