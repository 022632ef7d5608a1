"""Adaptation: the model that answers is the model that learns."""
