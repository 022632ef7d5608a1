"""Multi-scale retention: a matrix memory per head that fades at a fixed rate."""
