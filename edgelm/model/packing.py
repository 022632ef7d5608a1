"""The tensors of a model file: matrices as small integers, the rest float32.

int8: ``NAME.q``, uint8 around 128, and ``NAME.scale``, float32 for whoever computes, widened from the float16 of the
file; int4: also ``NAME.zero``, and scales of float16. The axis that a product sums over comes last, and runs of 32
numbers along it share a scale (``edgelm/matrices/quantize.py``). In files of format 1 int8 was signed.

Matrices that learning does not change may be -1, 0 and 1 (``edgelm/matrices/ternary.py``): ``NAME.q`` has four numbers
a byte then, and ``NAME.scale`` is one number.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping

import numpy as np

from edgelm.errors import ModelFileError
from edgelm.matrices.matrix import Int8, Operand
from edgelm.matrices.quantize import BLOCK, PRECISIONS, Packed, Precision, dequantize, quantize, to_int8
from edgelm.matrices.ternary import Ternary
from edgelm.model.config import ModelConfig
from edgelm.model.weights import Weights, is_quantizable, shapes, sums_over_first, ternary_names

Array = np.ndarray


def pack(
    weights: Weights, precision: Precision = PRECISIONS["int8"], ternary: Collection[str] = frozenset()
) -> Weights:
    """The tensors of a model file whose matrices are ``int8``, ``int4`` or ``float32``, but for those whose names are
    in ``ternary`` (``edgelm.model.weights.ternary_names``)."""
    packed: Weights = {}
    for name, array in weights.items():
        kind = precision.of(name)
        if kind == "float32" or not is_quantizable(name) or array.shape[0 if sums_over_first(name) else -1] % BLOCK:
            packed[name] = array
            continue
        array = np.ascontiguousarray(array.T) if sums_over_first(name) else array
        if name in ternary:
            rounded = Ternary.of(array)
            packed[name + ".q"], packed[name + ".scale"] = rounded.q, rounded.scale
        elif kind == "int8":
            packed[name + ".q"], packed[name + ".scale"] = _around_128(*to_int8(array))
        else:
            integers = quantize(array, kind)
            assert integers.zero_point is not None, kind
            packed[name + ".q"], packed[name + ".scale"] = integers.q, integers.scale
            packed[name + ".zero"] = integers.zero_point
    return packed


def _around_128(q: Array, scale: Array) -> tuple[Array, Array]:
    return q.view(np.uint8) ^ np.uint8(128), scale.astype(np.float32)


def has_narrow_scale(name: str, dtype: np.dtype, names: Container[str]) -> bool:
    """Whether a tensor of a file holds scales of an int8 matrix as float16, which are float32 for whoever computes.
    ``names`` are those of the file's tensors: int4 has zero points too, and its scales stay float16."""
    return dtype == np.float16 and name.endswith(".scale") and name.removesuffix(".scale") + ".zero" not in names


def narrowed(packed: Mapping[str, Array]) -> Weights:
    """The tensors as a file holds them: scales in float16 where it holds them exactly, as those that ``pack`` makes."""
    held: Weights = {}
    for name in packed:
        array = packed[name]
        if name.endswith(".scale") and array.dtype == np.float32:
            with np.errstate(over="ignore"):
                narrow = array.astype(np.float16)
            array = narrow if np.array_equal(narrow.astype(np.float32), array) else array
        held[name] = array
    return held


class Shifted(Mapping[str, Array]):
    """The tensors of a file of format 1 as those of today: int8 is made uint8 around 128, its scales float32.

    Parameters
    ----------
    packed : Mapping
        The tensors of the file.
    """

    def __init__(self, packed: Mapping[str, Array]) -> None:
        self._packed = packed

    def __getitem__(self, name: str) -> Array:
        array = self._packed[name]
        if array.dtype == np.int8:
            return array.view(np.uint8) ^ np.uint8(128)
        return array.astype(np.float32) if has_narrow_scale(name, array.dtype, self._packed) else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def unpack(packed: Mapping[str, Array]) -> Weights:
    """float32 tensors of a model file, packed or not."""
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
    return np.asarray(Ternary(q, scale) if is_ternary(packed, name) else Int8(q, scale))


def is_ternary(packed: Mapping[str, Array], name: str) -> bool:
    """Whether a matrix is -1, 0 and 1 in this model file."""
    return name + ".scale" in packed and packed[name + ".scale"].ndim == 1


def integers(packed: Mapping[str, Array], name: str, *, blocks: bool) -> tuple[Array, Array]:
    """A matrix of a model file as the integers that ONNX Runtime's operators read; of int8 a view.

    ``blocks``: it is one of neuron blocks, which one operator takes together.

    Returns
    -------
    q : ndarray of uint8
        Around 128, its summed axis last: [n_out, n_in / 32, 32] of a product, [M, n_out, n_in] of neuron blocks.
    scale : ndarray [..., n_in / 32] of float32
    """
    if name + ".q" in packed and name + ".zero" not in packed and not is_ternary(packed, name):
        q, scale = packed[name + ".q"], packed[name + ".scale"]
    else:
        turned = name in packed and sums_over_first(name)
        rows = packed[name] if name in packed else _rows(packed, name)
        q, scale = _around_128(*to_int8(np.ascontiguousarray(rows.T) if turned else rows))
    return (q if blocks else q.reshape(*scale.shape, BLOCK)), scale


def operand(packed: Mapping[str, Array], name: str) -> Operand:
    """One tensor of a model file for learning: as integers where it is int8 or ternary, of ``packed``'s memory; else
    float32."""
    if name + ".q" not in packed or name + ".zero" in packed:
        return unpack_one(packed, name)
    return (Ternary if is_ternary(packed, name) else Int8)(packed[name + ".q"], packed[name + ".scale"])


INT8_KINDS = {1: ("int8", "float16"), 2: ("uint8", "float32")}
"""By the format of a file: how its reader gives the numbers and the scales of an int8 matrix."""
_LARGEST_SCALE = 65504.0
"""Of float16, in which an exported graph keeps them."""


def check_packed(packed: Mapping[str, Array], config: ModelConfig, source: str, file_format: int = 2) -> None:
    """Raises ``ModelFileError`` unless these are the tensors of a model file for ``config``, all finite."""
    expected, may_be_ternary = shapes(config), ternary_names(config)
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
            ternary = name in may_be_ternary and is_ternary(packed, name)
            _check_parts(packed, name, shape, source, INT8_KINDS[file_format], ternary=ternary)
            numbers = packed[name + ".scale"]
            if numbers.min(initial=0) < 0:
                raise ModelFileError(f"{source}: {name} has scales below 0; get the model again")
        largest = float(np.abs(numbers).max(initial=0))  # NaN and infinity show in it
        if not largest < np.inf:
            raise ModelFileError(f"{source}: {name} holds values that are not finite; get the model again")
        if is_quantizable(name) and largest > (127 * _LARGEST_SCALE if name in packed else _LARGEST_SCALE):
            raise ModelFileError(f"{source}: {name} holds values too large for integers; get the model again")


def _check_parts(
    packed: Mapping[str, Array], name: str, shape: tuple[int, ...], source: str, int8: tuple[str, str], *, ternary: bool
) -> None:
    """Raises ``ModelFileError`` unless numbers, scales and zero points of a packed matrix fit each other."""
    shape = shape[::-1] if sums_over_first(name) else shape
    runs = (*shape[:-1], shape[-1] // BLOCK)
    parts: dict[str, tuple[str, tuple[int, ...]]] = {".q": (int8[0], shape), ".scale": (int8[1], runs)}
    if name + ".zero" in packed:
        parts[".scale"] = ("float16", runs)
        parts[".q"] = ("uint8", (*runs, BLOCK // 2))
        parts[".zero"] = ("uint8", (*runs[:-1], -(-runs[-1] // 2)))
    elif ternary:
        parts = {".q": ("uint8", (*shape[:-1], shape[-1] // 4)), ".scale": (int8[1], (1,))}
    for end, (dtype, size) in parts.items():
        array = packed.get(name + end)
        found = "missing" if array is None else f"{array.dtype} {array.shape}"
        if found != f"{dtype} {size}" or shape[-1] % BLOCK:
            raise ModelFileError(f"{source}: {name}{end} is {found}, expected {dtype} {size}; get the model again")
