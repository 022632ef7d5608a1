"""Numbers of 16 bits (IEEE 754 binary16), made and read by integer arithmetic: not every processor here has an
instruction for them, and all are to give the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelm.kernels.jit import kernel

_SIZE, _SIGN, _WHOLE, _INFINITE = 0x7FFF, 0x8000, 0x0400, 0x7C00
"""Of 16 bits: all but the sign, the sign, the least number that is not subnormal, infinity."""
_REBIAS, _LEAST_WHOLE, _TOO_LARGE, _NO_NUMBER = 112 << 23, 113 << 23, 0x477FF000, 0x7F800000
"""Of 32 bits: what exponents differ by, the same least number, the least that is rounded to infinity, infinity."""
_UNIT, _PER_UNIT, _HALF = np.float32(2**-24), np.float32(2**24), np.float32(0.5)


@kernel
def widen_halves(halves, bits, out):
    """out [N] of float32 = halves [N], bits of binary16 as uint16; ``bits`` is the memory of ``out`` as int32."""
    for j in range(len(halves)):
        size = halves[j] & _SIZE
        bits[j] = (np.int32(size) << 13) + (_REBIAS if size < _INFINITE else 2 * _REBIAS)
    for j in range(len(halves)):
        size = halves[j] & _SIZE
        x = out[j] if size >= _WHOLE else np.float32(size) * _UNIT
        out[j] = -x if halves[j] >= _SIGN else x


@kernel
def narrow_halves(given, bits, halves):
    """halves [N] of uint16 = given [N] of float32 as binary16, to the nearest; ``bits`` is the memory of ``given`` as
    int32. What is too large becomes infinite."""
    for j in range(len(halves)):
        sign, size = (bits[j] >> 16) & _SIGN, bits[j] & 0x7FFFFFFF
        if size < _LEAST_WHOLE:
            half: Any = np.int32(abs(given[j]) * _PER_UNIT + _HALF)
        elif size < _TOO_LARGE:
            half = (size + 0xFFF + ((size >> 13) & 1) - _REBIAS) >> 13
        else:
            half = 0x7E00 if size > _NO_NUMBER else _INFINITE
        halves[j] = half | sign
