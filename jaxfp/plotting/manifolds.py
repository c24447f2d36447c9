"""Figures of slow lines: where they run, what drifts along them, how slow their modes are."""
