"""The tensors of a model file: matrices as small integers, the rest float32.

int8: ``NAME.q`` and ``NAME.scale``; int4: also ``NAME.zero``. The axis that a product sums over comes last, and runs
of 32 numbers along it share a scale (``edgelm/matrices/quantize.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgelm.errors import ModelFileError
from edgelm.matrices.matrix import Int8, Operand
from edgelm.matrices.quantize import BLOCK, PRECISIONS, Packed, Precision, dequantize, from_int8, quantize, to_int8
from edgelm.model.config import ModelConfig
from edgelm.model.weights import Weights, is_quantizable, shapes, sums_over_first

Array = np.ndarray


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


def shift(packed: Weights) -> None:
    """Makes the int8 of a model file uint8 around 128, as ONNX Runtime's operators read them, in place."""
    for name, array in packed.items():
        if array.dtype == np.int8:
            packed[name] = array.view(np.uint8)
            packed[name] ^= np.uint8(128)


def unpack(packed: Weights) -> Weights:
    """float32 tensors of a model file, packed or not, shifted or not."""
    plain = (name.removesuffix(".q") for name in packed if not name.endswith((".scale", ".zero")))
    return {name: unpack_one(packed, name) for name in plain}


def unpack_one(packed: Mapping[str, Array], name: str) -> Array:
    """One float32 tensor of a model file."""
    if name in packed:
        return packed[name]
    values = _rows(packed, name)
    return np.ascontiguousarray(values.T) if sums_over_first(name) else values


def _rows(packed: Mapping[str, Array], name: str) -> Array:
    """float32, the axis that products sum over last."""
    q, scale, zero_point = packed[name + ".q"], packed[name + ".scale"], packed.get(name + ".zero")
    if zero_point is not None:
        return dequantize(Packed(4, q, scale, zero_point))
    return from_int8(q if q.dtype == np.int8 else (q ^ np.uint8(128)).view(np.int8), scale)


def integers(packed: Mapping[str, Array], name: str, *, blocks: bool) -> tuple[Array, Array]:
    """A matrix of a model file as the integers that ONNX Runtime's operators read; of a shifted one a view.

    ``blocks``: it is one of neuron blocks, which one operator takes together.

    Returns
    -------
    q : ndarray of uint8
        Around 128, its summed axis last: [n_out, n_in / 32, 32] of a product, [M, n_out, n_in] of neuron blocks.
    scale : ndarray [..., n_in / 32] of float32
    """
    if name + ".q" in packed and name + ".zero" not in packed:
        q, scale = packed[name + ".q"], packed[name + ".scale"]
        q = q if q.dtype == np.uint8 else q.view(np.uint8) ^ np.uint8(128)
    else:
        turned = name in packed and sums_over_first(name)
        rows = packed[name] if name in packed else _rows(packed, name)
        q, scale = to_int8(np.ascontiguousarray(rows.T) if turned else rows)
        q = q.view(np.uint8) ^ np.uint8(128)
    return (q if blocks else q.reshape(*scale.shape, BLOCK)), scale.astype(np.float32)


def operand(packed: Mapping[str, Array], name: str) -> Operand:
    """One tensor of a model file for learning: as integers where it is int8, of its own memory; else float32."""
    if name + ".q" not in packed or name + ".zero" in packed:
        return unpack_one(packed, name)
    q, scale = packed[name + ".q"], packed[name + ".scale"]
    return Int8(q.copy() if q.dtype == np.uint8 else q.view(np.uint8) ^ np.uint8(128), scale.astype(np.float32))


def check_packed(packed: Weights, config: ModelConfig, source: str) -> None:
    """Raises ``ModelFileError`` unless these are the tensors of a model file for ``config``, all finite."""
    expected = shapes(config)
    found = {name.removesuffix(".q") for name in packed if not name.endswith((".scale", ".zero"))}
    known = {name + end for name in found for end in ("", ".q", ".scale", ".zero")}
    for name in sorted(set(expected) ^ found | set(packed) - known):
        kind = "lacks" if name in expected else "has an unknown tensor"
        raise ModelFileError(f"{source} {kind} {name!r}; the file does not fit its config.json, get the model again")
    for name, shape in expected.items():
        if name in packed:
            numbers = packed[name]
            if twice := [name + end for end in (".q", ".scale", ".zero") if name + end in packed]:
                raise ModelFileError(f"{source}: {name} is there twice, as {twice[0]} too; get the model again")
            if numbers.dtype != np.float32:
                raise ModelFileError(f"{source}: {name} is {numbers.dtype}, expected float32; get the model again")
            if numbers.shape != shape:
                raise ModelFileError(f"{source}: {name} is {numbers.shape}, expected {shape}; get the model again")
        else:
            _check_parts(packed, name, shape, source)
            numbers = packed[name + ".scale"]
        if not np.isfinite(numbers).all():
            raise ModelFileError(f"{source}: {name} holds values that are not finite; get the model again")
        if name in packed and is_quantizable(name) and np.abs(numbers).max() > 127 * 65504.0:
            raise ModelFileError(f"{source}: {name} holds values too large for integers; get the model again")


def _check_parts(packed: Weights, name: str, shape: tuple[int, ...], source: str) -> None:
    """Raises ``ModelFileError`` unless numbers, scales and zero points of a packed matrix fit each other."""
    shape = shape[::-1] if sums_over_first(name) else shape
    runs = (*shape[:-1], shape[-1] // BLOCK)
    parts: dict[str, tuple[str, tuple[int, ...]]] = {".q": ("int8", shape), ".scale": ("float16", runs)}
    if name + ".zero" in packed:
        parts[".q"] = ("uint8", (*runs, BLOCK // 2))
        parts[".zero"] = ("uint8", (*runs[:-1], -(-runs[-1] // 2)))
    for end, (dtype, size) in parts.items():
        array = packed.get(name + end)
        found = "missing" if array is None else f"{array.dtype} {array.shape}"
        if found != f"{dtype} {size}" or shape[-1] % BLOCK:
            raise ModelFileError(f"{source}: {name}{end} is {found}, expected {dtype} {size}; get the model again")
