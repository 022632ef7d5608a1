"""Block-wise int8 for the matrices of a model file and of an exported graph.

Each run of 32 numbers along the axis that a product sums over shares one scale: value = q * scale, q in
-127 .. 127. Scales are rounded to float16 before the numbers are, so a file loses nothing more.
"""

from __future__ import annotations

import numpy as np

from edgelm.model.weights import Weights, is_quantizable

BLOCK = 32
_SUM_FIRST = ("w_in", "w_out", "shared_w1", "shared_w2")
"""Matrices [in, out]: their products sum over the first axis; all others sum over the last."""


def sums_over_first(name: str) -> bool:
    """Whether the products of this matrix sum over its first axis."""
    return name.rsplit(".", 1)[-1] in _SUM_FIRST


def quantize(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Along the last axis: array [..., n] to q int8 [..., n] and scales float16 [..., n / 32]."""
    runs = array.reshape(*array.shape[:-1], -1, BLOCK)
    scale = (np.abs(runs).max(-1) / 127).astype(np.float16)
    # A run of zeros, or of numbers below float16, must not divide by zero.
    scale = np.maximum(scale, np.float16(6e-8))
    q = np.clip(np.rint(runs / scale.astype(np.float32)[..., None]), -127, 127).astype(np.int8)
    return q.reshape(array.shape), scale


def dequantize(q: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The inverse of ``quantize``, float32."""
    runs = q.reshape(*scale.shape, BLOCK).astype(np.float32) * scale.astype(np.float32)[..., None]
    return runs.reshape(q.shape)


def pack(weights: Weights) -> Weights:
    """The tensors of an int8 model file: ``NAME.q`` and ``NAME.scale`` for matrices, float32 for the rest."""
    packed: Weights = {}
    for name, array in weights.items():
        if not is_quantizable(name) or array.shape[0 if sums_over_first(name) else -1] % BLOCK:
            packed[name] = array
            continue
        q, scale = quantize(np.ascontiguousarray(array.T) if sums_over_first(name) else array)
        packed[name + ".q"], packed[name + ".scale"] = q, scale
    return packed


def unpack(packed: Weights) -> Weights:
    """float32 tensors of a model file, packed or not."""
    weights: Weights = {}
    for name, array in packed.items():
        if name.endswith(".q"):
            plain = name.removesuffix(".q")
            values = dequantize(array, packed[plain + ".scale"])
            weights[plain] = np.ascontiguousarray(values.T) if sums_over_first(plain) else values
        elif not name.endswith(".scale"):
            weights[name] = array
    return weights
