"""From points to mechanism: each file takes plain arrays, from any source."""
