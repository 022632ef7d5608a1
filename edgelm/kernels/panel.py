"""Products with 32 lanes, of any number of rows: what most of learning is made of.

A tile of ``tile.py`` has one size wherever it runs; these are cut to the machine: eight rows of 32 float32 with
AVX-512, six of 16 with AVX2, four of 16 on Arm. Rows may be named, so that what some tokens share need not be gathered
before a product nor be spread after it. An operand is a tuple: its array, where it begins, and, in numbers, how far its
rows or steps are apart.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels.emit_panel import WIDE, emit_ahead, emit_along, emit_panel, emit_pulled
from edgelm.kernels.jit import kernel, lowered
from edgelm.kernels.tile import RUN, turn_tile

assert WIDE == RUN
FOUR = 4
"""Rows that ``along`` multiplies with."""


@lowered(emit_panel, literals=4)
def panel(add, across, named_a, named_c, a, b, c, names, rows, steps):
    """c [rows,32] = (c +) a [rows,steps] b [steps,32].

    ``across``: the steps of a are its pitch apart, else its rows. names (array, beginning): which rows of a, or, if it
    is across, which of its steps, and which rows of c there are, if those are ``named``.
    """
    r, k, j = np.arange(rows)[:, None], np.arange(steps), np.arange(WIDE)
    first, last = names[0][names[1] :], (rows, steps)[across]
    of_a = first[:last] if named_a else np.arange(last)
    place = r + a[2] * of_a if across else a[2] * of_a[:, None] + k
    found = a[0].reshape(-1)[a[1] + place] @ b[0].reshape(-1)[b[1] + b[2] * k[:, None] + j]
    out, place = c[0].reshape(-1), c[1] + c[2] * (first[:rows, None] if named_c else r) + j
    out[place] = out[place] + found if add else found


@lowered(emit_pulled, literals=1)
def pulled(of_integers, a, b, w, names, rows, steps, base, step):
    """w [rows,32] <- w - rate g + pull (base - w), where g = a' b of a [steps,rows], its steps named, and b [steps,32].

    base: (array, beginning, its scales, beginning of these), its rows as far apart as those of w, a multiple of 32. It
    is uint8 around 128, with a scale for 32, if it is ``of_integers``; else no scale is read. step: (rate, pull).
    Products of such integers with scales that float16 can hold, as in files, are exact, however they are rounded.
    """
    gradient = np.empty((rows, WIDE), w[0].dtype)
    panel(False, True, True, False, a, b, (gradient, 0, WIDE), names, rows, steps)
    r = np.arange(rows)[:, None]
    place = w[2] * r + np.arange(WIDE)
    given = base[0].reshape(-1)[base[1] + place].astype(w[0].dtype)
    if of_integers:
        given = (given - np.float32(128)) * base[2].reshape(-1)[base[3] + w[2] // WIDE * r]
    out, place = w[0].reshape(-1), w[1] + place
    out[place] = out[place] + step[1] * (given - out[place]) - step[0] * gradient


@lowered(emit_along, literals=0)
def along(a, b, c, names, rows, steps):
    """c [rows,4] = a [rows,steps] b' of b [4,steps], the rows of a named; the steps are a multiple of 16."""
    k = np.arange(steps)
    first = a[0].reshape(-1)[a[1] + a[2] * names[0][names[1] : names[1] + rows, None] + k]
    second = b[0].reshape(-1)[b[1] + b[2] * np.arange(FOUR)[:, None] + k]
    c[0].reshape(-1)[c[1] + c[2] * np.arange(rows)[:, None] + np.arange(FOUR)] = first @ second.T


@kernel
def turned(a, a0, a_row, n_rows, n_columns, out, out0, out_row):
    """out [C,R] = a' of a [R,C], each a part of a larger matrix of rows of ``a_row`` and ``out_row``."""
    rows, columns = n_rows - n_rows % 4, n_columns - n_columns % 4
    for c in range(0, columns, 4):
        for r in range(0, rows, 4):
            turn_tile(4, a, a0 + r * a_row + c, a_row, out, out0 + c * out_row + r, out_row)
    for r in range(n_rows):
        for c in range(columns if r < rows else 0, n_columns):
            turn_tile(1, a, a0 + r * a_row + c, a_row, out, out0 + c * out_row + r, out_row)


@lowered(emit_ahead, literals=0)
def ahead(a, a0):
    """Asks for what stands at a place of an array, which may lie beyond its end, before it is used."""


@kernel
def fetch(a, a0, n, line):
    """Asks for n numbers, ``line`` to a line of memory."""
    for k in range(a0, a0 + n, line):
        ahead(a, k)


@kernel
def multiply(x, a0, a_row, b0, b_row, c0, c_row, rows, lanes, steps):
    """c = a b, all parts of one array; lanes are a multiple of 32."""
    for j in range(0, lanes, WIDE):
        a, b, c = (x, a0, a_row), (x, b0 + j, b_row), (x, c0 + j, c_row)
        panel(False, False, False, False, a, b, c, (x, 0), rows, steps)


@kernel
def add_product(x, a0, a_row, b0, b_row, c0, c_row, rows, lanes, steps):
    """c += a b, as ``multiply``."""
    for j in range(0, lanes, WIDE):
        a, b, c = (x, a0, a_row), (x, b0 + j, b_row), (x, c0 + j, c_row)
        panel(True, False, False, False, a, b, c, (x, 0), rows, steps)


@kernel
def add_across(x, a0, a_step, b0, b_row, c0, c_row, rows, lanes, steps):
    """c += a' b, as ``multiply``; the steps of a are ``a_step`` apart."""
    for j in range(0, lanes, WIDE):
        a, b, c = (x, a0, a_step), (x, b0 + j, b_row), (x, c0 + j, c_row)
        panel(True, True, False, False, a, b, c, (x, 0), rows, steps)
