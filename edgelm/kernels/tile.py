"""The product that all others are made of: a few rows times a strip of 16 lanes, summed in registers.

Four rows of 16 float32 are 16 registers of Arm, 8 of AVX2, 4 of AVX-512: enough sums under way at once to hide what a
multiply-add takes, and few enough to stay where they are. Loops over arrays cannot say so; this is written as LLVM's
vectors, which every machine cuts to its own.

Operands are given as an array and, in numbers from its first one, where they begin and how far their rows and steps
are apart; so a transposed one, a tile of a larger one, or a part that was packed are all the same.
"""

from __future__ import annotations

import numpy as np

from edgelm.kernels.emit import LANES, emit_tile, emit_turn, emit_widen, emit_widen_group
from edgelm.kernels.emit_ternary import emit_widen_bits
from edgelm.kernels.jit import kernel, lowered

ROWS = 4
RUN = 32
"""Numbers of a row of integers that share a scale."""


@lowered(emit_tile, literals=4)
def tile(rows, lanes, add, across, a, a0, a_pitch, b, b0, b_step, c, c0, c_row, steps):
    """c [rows,lanes] = (c +) a [rows,steps] b [steps,lanes], arrays C-contiguous; ``across``: the steps of a are
    ``a_pitch`` apart, else its rows; the others stand side by side."""
    r, k, j = np.arange(rows)[:, None], np.arange(steps), np.arange(lanes)
    place = a0 + (r + a_pitch * k if across else a_pitch * r + k)
    found = a.reshape(-1)[place] @ b.reshape(-1)[b0 + b_step * k[:, None] + j]
    out, place = c.reshape(-1), c0 + c_row * r + j
    out[place] = out[place] + found if add else found


@lowered(emit_widen, literals=0)
def widen(q, q0, scale, out, out0):
    """16 numbers of uint8 around 128, times their scale."""
    numbers = q.reshape(-1)[q0 : q0 + LANES].astype(out.dtype)
    out.reshape(-1)[out0 : out0 + LANES] = (numbers - np.float32(128)) * scale


@lowered(emit_widen_group, literals=0)
def widen_group(q, q0, scale, s0, out, out0, out_row):
    """16 rows of four numbers, ``out_row`` apart, of uint8 around 128, those of a row side by side, times the scales of
    the rows, which stand side by side."""
    numbers = q.reshape(-1)[q0 : q0 + 4 * LANES].astype(out.dtype).reshape(LANES, 4)
    place = out0 + out_row * np.arange(LANES)[:, None] + np.arange(4)
    out.reshape(-1)[place] = (numbers - np.float32(128)) * scale.reshape(-1)[s0 : s0 + LANES, None]


@lowered(emit_widen_bits, literals=0)
def widen_bits(q, q0, scale, out, out0):
    """16 numbers of 2 bits around 2, from byte q0 on, the first in the lowest bits of its byte, times their scale."""
    numbers = (
        (q.reshape(-1)[q0 : q0 + LANES // 4, None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3)
        .reshape(-1)
        .astype(out.dtype)
    )
    out.reshape(-1)[out0 : out0 + LANES] = (numbers - np.float32(2)) * scale


@kernel
def widen_either(is_ternary, q, scale, place, out, out0):
    """16 numbers of a matrix, from number ``place`` on: 2 bits each with one scale, or 8 with one for a run."""
    if is_ternary:
        widen_bits(q, place // 4, scale.flat[0], out, out0)
    else:
        widen(q, place, scale.flat[place // RUN], out, out0)


@lowered(emit_turn, literals=1)
def turn_tile(size, a, a0, a_row, out, out0, out_row):
    """out [size,size] = a' [size,size]; of size 4 or 1."""
    r, c = np.arange(size)[:, None], np.arange(size)
    out.reshape(-1)[out0 + out_row * r + c] = a.reshape(-1)[a0 + a_row * c + r]


@kernel
def turn(a, a0, n_rows, n_columns, out, out0):
    """a' [C,R] of a [R,C], by strips of 16 columns, each [C,16]; if the last one is narrower, each [C,less]."""
    columns = n_columns - n_columns % 4
    for first in range(0, n_rows, LANES):
        lanes = min(LANES, n_rows - first)
        rows, base = lanes - lanes % 4, out0 + first * n_columns
        for r in range(0, rows, 4):
            for c in range(0, columns, 4):
                turn_tile(4, a, a0 + (first + r) * n_columns + c, n_columns, out, base + c * lanes + r, lanes)
        for r in range(lanes):
            for c in range(columns if r < rows else 0, n_columns):
                turn_tile(1, a, a0 + (first + r) * n_columns + c, n_columns, out, base + c * lanes + r, lanes)


@kernel
def strip(a, a0, a_row, b, b0, b_step, c, c0, c_row, rows, steps, add):
    """As ``tile``, of 16 lanes and any number of rows."""
    whole = rows - rows % ROWS
    rest, a1, c1 = rows - whole, a0 + whole * a_row, c0 + whole * c_row
    if add:
        for r in range(0, whole, ROWS):
            tile(4, 16, True, False, a, a0 + r * a_row, a_row, b, b0, b_step, c, c0 + r * c_row, c_row, steps)
        if rest == 3:
            tile(3, 16, True, False, a, a1, a_row, b, b0, b_step, c, c1, c_row, steps)
        elif rest == 2:
            tile(2, 16, True, False, a, a1, a_row, b, b0, b_step, c, c1, c_row, steps)
        elif rest == 1:
            tile(1, 16, True, False, a, a1, a_row, b, b0, b_step, c, c1, c_row, steps)
    else:
        for r in range(0, whole, ROWS):
            tile(4, 16, False, False, a, a0 + r * a_row, a_row, b, b0, b_step, c, c0 + r * c_row, c_row, steps)
        if rest == 3:
            tile(3, 16, False, False, a, a1, a_row, b, b0, b_step, c, c1, c_row, steps)
        elif rest == 2:
            tile(2, 16, False, False, a, a1, a_row, b, b0, b_step, c, c1, c_row, steps)
        elif rest == 1:
            tile(1, 16, False, False, a, a1, a_row, b, b0, b_step, c, c1, c_row, steps)


@kernel
def product(a, a0, a_row, b, b0, b_step, strip_pitch, c, c0, c_row, rows, lanes, steps):
    """c = a b as ``tile``, of any number of rows and lanes; those that fill no strip are slow. Strips of b, 16 columns,
    are ``strip_pitch`` apart: they may stand side by side (16) or, as ``turn`` leaves them, one after another."""
    whole = lanes - lanes % LANES
    for j in range(0, whole, LANES):
        strip(a, a0, a_row, b, b0 + j // LANES * strip_pitch, b_step, c, c0 + j, c_row, rows, steps, False)
    last = b0 + whole // LANES * strip_pitch
    # A strip that is no longer as wide as the others stands closer.
    step = b_step if strip_pitch == LANES else lanes - whole
    for j in range(lanes - whole):
        for r in range(rows):
            place = c0 + r * c_row + whole + j
            tile(1, 1, False, False, a, a0 + r * a_row, 0, b, last + j, step, c, place, 0, steps)


@kernel
def product_across(a, a0, a_step, b, b0, c, c0, rows, lanes, steps):
    """c [rows,lanes] = a' b of a [steps,rows], its steps ``a_step`` apart, and b [steps,lanes]."""
    strips, tiles = lanes - lanes % LANES, rows - rows % ROWS
    for j in range(0, strips, LANES):
        for r in range(0, tiles, ROWS):
            tile(4, 16, False, True, a, a0 + r, a_step, b, b0 + j, lanes, c, c0 + r * lanes + j, lanes, steps)
    for r in range(rows):
        for j in range(strips if r < tiles else 0, lanes):
            tile(1, 1, False, True, a, a0 + r, a_step, b, b0 + j, lanes, c, c0 + r * lanes + j, 0, steps)
