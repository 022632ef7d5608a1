"""Numba loops over arrays, forward and backward.

Arguments stand in the order inputs, weights, workspace, outputs. A kernel allocates nothing, raises
nothing, knows no globals that change and no randomness. ``edgelm/model/reference.py`` is the judge.
"""
