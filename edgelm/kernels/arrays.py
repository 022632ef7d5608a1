"""What numpy does with whole arrays too: as kernels it can stand between others in one recorded call
(``edgelm.kernels.jit.record``). Arrays of more axes are given as flat views."""

from __future__ import annotations

from edgelm.kernels.emit import LANES
from edgelm.kernels.jit import entry
from edgelm.kernels.panel import turned
from edgelm.kernels.signature import F1, F2, F, I
from edgelm.kernels.tile import product as tiles


@entry(F1, F)
def fill(x, value):
    """x [N] = value."""
    for j in range(len(x)):
        x[j] = value


@entry(F1, F1)
def copy(x, out):
    """out [N] = x [N]."""
    for j in range(len(x)):
        out[j] = x[j]


@entry(F1, F1)
def add(x, out):
    """out [N] += x [N]."""
    for j in range(len(x)):
        out[j] += x[j]


@entry(F1, I, F1)
def repeat(x, n, out):
    """out [N n] = each number of x [N], n times over."""
    for i in range(len(x)):
        for j in range(n):
            out[i * n + j] = x[i]


@entry(F2, F1)
def add_rows(x, out):
    """out [N] += the sum of the rows of x [T,N]."""
    for t in range(len(x)):
        for j in range(len(out)):
            out[j] += x[t, j]


@entry(F2, F2)
def transpose(x, out):
    """out [N,M] = x' of x [M,N]."""
    n_rows, n_columns = x.shape
    turned(x, 0, n_columns, n_rows, n_columns, out, 0, n_rows)


@entry(F2, F2, F2)
def product(x, w, out):
    """out [T,N] = x [T,K] w [K,N]."""
    n_steps, n_sums = x.shape
    width = w.shape[1]
    tiles(x, 0, n_sums, w, 0, width, LANES, out, 0, width, n_steps, width, n_sums)
