"""The tensors of a model file: matrices as small integers, the rest float32.

int8: ``NAME.q`` and ``NAME.scale``; int4: also ``NAME.zero``. The axis that a product sums over comes last, and runs
of 32 numbers along it share a scale (``edgelm/model/quantize.py``).
"""

from __future__ import annotations

import numpy as np

from edgelm.model.quantize import BLOCK, PRECISIONS, Packed, Precision, dequantize, from_int8, quantize, to_int8
from edgelm.model.weights import Weights, is_quantizable

_SUM_FIRST = ("w_in", "w_out", "shared_w1", "shared_w2")
"""Matrices [in, out]: their products sum over the first axis; all others sum over the last."""


def sums_over_first(name: str) -> bool:
    """Whether the products of this matrix sum over its first axis."""
    return name.rsplit(".", 1)[-1] in _SUM_FIRST


def pack(weights: Weights, precision: Precision = PRECISIONS["int8"]) -> Weights:
    """The tensors of a model file whose matrices are ``int8``, ``int4`` or ``float32``."""
    packed: Weights = {}
    for name, array in weights.items():
        kind = precision.of(name)
        if kind == "float32" or not is_quantizable(name) or array.shape[0 if sums_over_first(name) else -1] % BLOCK:
            packed[name] = array
            continue
        array = np.ascontiguousarray(array.T) if sums_over_first(name) else array
        if kind == "int8":
            packed[name + ".q"], packed[name + ".scale"] = to_int8(array)
        else:
            integers = quantize(array, kind)
            assert integers.zero_point is not None, kind
            packed[name + ".q"], packed[name + ".scale"] = integers.q, integers.scale
            packed[name + ".zero"] = integers.zero_point
    return packed


def unpack(packed: Weights) -> Weights:
    """float32 tensors of a model file, packed or not."""
    weights: Weights = {}
    for name, array in packed.items():
        if name.endswith(".q"):
            plain = name.removesuffix(".q")
            scale, zero_point = packed[plain + ".scale"], packed.get(plain + ".zero")
            is_int8 = zero_point is None
            values = from_int8(array, scale) if is_int8 else dequantize(Packed(4, array, scale, zero_point))
            weights[plain] = np.ascontiguousarray(values.T) if sums_over_first(plain) else values
        elif not name.endswith((".scale", ".zero")):
            weights[name] = array
    return weights
