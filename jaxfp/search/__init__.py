"""From candidates to points."""
