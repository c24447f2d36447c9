"""What networks are trained on: pure modules, independent of each other."""
