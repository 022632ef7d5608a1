"""Checkpoints of other projects: what containers hold, and what of it is which tensor of a model here."""
