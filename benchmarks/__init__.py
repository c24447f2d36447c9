"""How fast, how complete and how exact: `python -m benchmarks --help` lists the scripts."""
