"""Matrices as small integers, for model files and exported graphs.

Runs of 32 numbers along the axis that a product sums over share a scale, rounded to float16, and maybe a zero point:
value = (q - zero_point) * scale. The scales of int4 and ternary are those of least squared error; int8 gains nothing
from it (figures: ``docs/experiments.md``, 2026-11-22).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

Array = np.ndarray
BLOCK = 32
"""Numbers that share a scale."""
_TINY = np.float16(6e-8)
"""The smallest float16: a run of zeros, or of numbers below it, must not divide by zero."""


@dataclass(frozen=True)
class Precision:
    """What the matrices of a graph are kept as: ``float32``, ``int8``, ``int4`` or ``ternary``.

    Attributes
    ----------
    matrices : str
    embed : str
        The embedding, and the output matrix.
    """

    matrices: str = "float32"
    embed: str = "float32"

    def of(self, name: str) -> str:
        """That of the matrix ``name``."""
        return self.embed if name in ("embed", "head") else self.matrices

    def __str__(self) -> str:
        return self.matrices if self.embed == self.matrices else f"{self.matrices}, embedding {self.embed}"


PRECISIONS = {
    "none": Precision(),
    "int8": Precision("int8", "int8"),
    # The embedding is a tenth of the numbers and would be half of the loss.
    "int4": Precision("int4", "int8"),
    "ternary": Precision("ternary", "int8"),
}
"""By the names of ``edgelm export --quantize``."""


@dataclass(frozen=True)
class Packed:
    """A matrix [..., n] as integers, in the form that ONNX Runtime's operators read.

    Attributes
    ----------
    bits : int
        2, 4 or 8 for a number.
    q : ndarray [..., n / 32, 4 bits] of uint8
        The first number in the lowest bits of its byte.
    scale : ndarray [..., n / 32] of float16
    zero_point : ndarray [..., ceil(n / 32 bits / 8)] of uint8, or None
        Packed like ``q``; none means the middle, 2 ** (bits - 1).
    """

    bits: int
    q: Array
    scale: Array
    zero_point: Array | None = None


def quantize(array: Array, kind: str) -> Packed:
    """Along the last axis, a multiple of 32, of a float32 array.

    Parameters
    ----------
    array : ndarray [..., n]
    kind : {"int8", "int4", "ternary"}
        ``int8``: -127 .. 127 times the scale, which the largest number sets. ``int4``: 16 even steps, which need not
        be centred. ``ternary``: -1, 0 or 1 times the scale, as 2 bits.
    """
    if kind == "int8":
        q, scale = to_int8(array)
        return Packed(8, (q.astype(np.int16) + 128).astype(np.uint8).reshape(*scale.shape, BLOCK), scale)
    runs = array.reshape(*array.shape[:-1], -1, BLOCK).astype(np.float32)
    if kind == "ternary":
        q, scale = _ternary(runs)
        return Packed(2, pack_bits(q, 2), scale)
    q, scale, zero_point = _int4(runs)
    return Packed(4, pack_bits(q, 4), scale, pack_bits(zero_point, 4))


def dequantize(packed: Packed) -> Array:
    """The array [..., n] that ONNX Runtime computes with, float32."""
    n_runs, bits = packed.scale.shape[-1], packed.bits
    zero_point: Array | int = 1 << (bits - 1)
    if packed.zero_point is not None:
        zero_point = unpack_bits(packed.zero_point, bits)[..., :n_runs, None].astype(np.float32)
    runs = (unpack_bits(packed.q, bits).astype(np.float32) - zero_point) * packed.scale.astype(np.float32)[..., None]
    return runs.reshape(*packed.scale.shape[:-1], n_runs * BLOCK)


def to_int8(array: Array) -> tuple[Array, Array]:
    """Along the last axis: array [..., n] to q int8 [..., n] and scales float16 [..., n / 32]."""
    runs = array.reshape(*array.shape[:-1], -1, BLOCK)
    scale = (np.abs(runs).max(-1) / 127).astype(np.float16)
    scale = np.maximum(scale, _TINY)
    q = np.clip(np.rint(runs / scale.astype(np.float32)[..., None]), -127, 127).astype(np.int8)
    return q.reshape(array.shape), scale


def _ternary(runs: Array) -> tuple[Array, Array]:
    """q 1 .. 3 around 2, and scales.

    With the k largest of a run at the scale and the others at 0, the best scale is the mean of the k and the squared
    error falls by (their sum)^2 / k; the best k is found by trying all.
    """
    sums = np.cumsum(-np.sort(-np.abs(runs), -1), -1)
    counts = np.arange(1, BLOCK + 1, dtype=np.float32)
    best = (sums**2 / counts).argmax(-1)[..., None]
    scale = np.take_along_axis(sums / counts, best, -1)[..., 0].astype(np.float16)
    scale = np.maximum(scale, _TINY)
    q = np.clip(np.rint(runs / scale.astype(np.float32)[..., None]), -1, 1)
    return (q + 2).astype(np.uint8), scale


def _int4(runs: Array) -> tuple[Array, Array, Array]:
    """q 0 .. 15, scales and zero points: the best of a few steps between smallest and largest, each refined."""
    low, high = np.minimum(runs.min(-1), 0), np.maximum(runs.max(-1), 0)
    error = np.full(low.shape, np.inf, np.float32)
    found = np.zeros(runs.shape, np.uint8), np.zeros(low.shape, np.float16), np.zeros(low.shape, np.uint8)
    for share, shift in product(_SHARES, (-1, 0, 1)):
        scale = np.maximum((high - low) * np.float32(share / 15), np.float32(_TINY))
        zero_point = np.clip(np.rint(7.5 - (high + low) / 2 / scale) + shift, 0, 15)[..., None]
        steps = np.clip(np.rint(runs / scale[..., None]), -zero_point, 15 - zero_point)
        # The scale that fits these steps best, then the steps that fit this scale best.
        squares = (steps * steps).sum(-1)
        fitted = np.where(squares > 0, (steps * runs).sum(-1) / np.maximum(squares, 1), scale).astype(np.float16)
        fitted = np.maximum(fitted, _TINY)
        plain = fitted.astype(np.float32)[..., None]
        steps = np.clip(np.rint(runs / plain), -zero_point, 15 - zero_point)
        now = ((steps * plain - runs) ** 2).sum(-1)
        better = now < error
        error[better] = now[better]
        for kept, tried in zip(found, (steps + zero_point, fitted, zero_point[..., 0]), strict=True):
            kept[better] = tried[better].astype(kept.dtype)
    return found


_SHARES = (0.85, 0.92, 1.0)
"""Of the range from the smallest to the largest number: cutting off the ends may fit the rest better."""


def pack_bits(q: Array, bits: int) -> Array:
    """[..., n] numbers below 2 ** bits to bytes [..., ceil(n bits / 8)]."""
    per_byte = 8 // bits
    padding = [(0, 0)] * (q.ndim - 1) + [(0, -q.shape[-1] % per_byte)]
    parts = np.pad(q, padding).reshape(*q.shape[:-1], -1, per_byte)
    return np.bitwise_or.reduce(parts << np.arange(0, 8, bits, dtype=np.uint8), -1)


def unpack_bits(blob: Array, bits: int) -> Array:
    """The inverse of ``pack_bits``, its padding included."""
    parts = blob[..., None] >> np.arange(0, 8, bits, dtype=np.uint8) & np.uint8((1 << bits) - 1)
    return parts.reshape(*blob.shape[:-1], -1)


WIDER = pack_bits(unpack_bits(np.arange(256, dtype=np.uint8)[:, None], 2) + np.uint8(8 - 2), 4)
"""[256, 2]: a byte of four 2-bit numbers around 2 as two bytes of 4-bit numbers around 8."""
