"""What a device sends of its change, what the server takes from it, and the layer that the server sends back.

An update is a change of the weights of which only the neuron blocks that moved furthest are left, as many as its budget
of bytes allows, and every tensor without blocks. It is scaled to a Euclidean norm of at most C, hidden in noise, and
rounded to int8 with one scale a block. It is three arrays:

- ``blocks`` [n] of int32, rising: numbers of neuron blocks, counted through all tensors that have blocks, in the order
  of the model's table;
- ``scales`` [m + n] of float32: of the m tensors without blocks, then of the blocks;
- ``values`` [N] of int8: the numbers of these tensors and of these blocks, one after the other.

A number is its integer times the scale. What comes from a device is compared with this form before anything is made of
it, and scaled to the norm C again: a device that does not clip has no more say than one that does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgelm.errors import ConfigError, InputError
from edgelm.log.change import pack_change
from edgelm.model.config import ModelConfig
from edgelm.model.hub import Model
from edgelm.model.layers import Layer, with_layers
from edgelm.model.weights import Weights, adaptable_names, block_names, shapes

Array = np.ndarray
BLOCKS, SCALES, VALUES = "blocks", "scales", "values"
_MOST = 127
"""The largest integer."""


@dataclass(frozen=True)
class UpdateConfig:
    """How much of a change is sent, and how far it is hidden.

    Attributes
    ----------
    clip : float
        C, the largest Euclidean norm of an update over all its numbers.
    noise : float
        Standard deviation of the normal noise that is added to every number that is sent, divided by C.
    budget_bytes : int
        Bytes of the three arrays together, at most.

    Raises
    ------
    ConfigError
        A value is out of range.
    """

    clip: float = 1.0
    noise: float = 0.002
    budget_bytes: int = 298_000

    def __post_init__(self) -> None:
        if not 0 < self.clip <= 1000:
            raise ConfigError(f"clip must be above 0 and at most 1000, not {self.clip}")
        if not 0 <= self.noise <= 1000:
            raise ConfigError(f"noise must be between 0 and 1000, not {self.noise}")
        if not 1 <= self.budget_bytes <= 1 << 30:
            raise ConfigError(f"budget_bytes must be between 1 and {1 << 30}, not {self.budget_bytes}")


def nothing(config: ModelConfig) -> Weights:
    """A change of nothing: every adaptable tensor, float32, 0."""
    return {name: np.zeros(shapes(config)[name], np.float32) for name in adaptable_names(config)}


def dense(change: Weights, config: ModelConfig) -> Weights:
    """A change in the form of ``edgelm.log.change`` as every adaptable tensor in float32, new arrays."""
    layers = [Layer("", "", change)]
    return {name: np.array(with_layers(array, name, layers), np.float32) for name, array in nothing(config).items()}


def norm_of(arrays: Mapping[str, Array]) -> float:
    """The Euclidean norm of all numbers of some tensors together."""
    return float(np.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays.values())))


def outgoing(change: Weights, model: Model, config: UpdateConfig, rng: np.random.Generator) -> dict[str, Array]:
    """What a device sends of its change.

    Parameters
    ----------
    change : dict of ndarray
        In the form of ``edgelm.log.change``, as ``Engine.learned_change`` returns it; read.
    model : Model
    config : UpdateConfig
    rng : numpy.random.Generator
        The noise is drawn from it, and which way numbers are rounded.

    Returns
    -------
    dict of ndarray
        An update, as the module describes it.

    Raises
    ------
    InputError
        The change is not finite, or the tensors without blocks alone are larger than the budget.
    """
    whole = dense(change, model.config)
    if not np.isfinite(norm_of(whole)):
        raise InputError("the change of the weights is not finite; nothing is sent")
    layout = _Layout(model.config)
    chosen = layout.largest(whole, config.budget_bytes)
    names = layout.names(chosen)
    parts = [whole[name][... if block is None else block].astype(np.float64) for name, block in names]
    norm = float(np.sqrt(sum(float(np.square(part).sum()) for part in parts)))
    share = min(1.0, config.clip / max(norm, 1e-300))
    parts = [share * part + rng.normal(0.0, config.noise * config.clip, part.shape) for part in parts]
    scales = np.array([np.abs(part).max(initial=0.0) / _MOST for part in parts], np.float32)
    values = [_rounded(part, float(scale), rng) for part, scale in zip(parts, scales, strict=True)]
    return {BLOCKS: chosen.astype(np.int32), SCALES: scales, VALUES: np.concatenate([*values, np.empty(0, np.int8)])}


def _rounded(part: Array, scale: float, rng: np.random.Generator) -> Array:
    """[n] of int8: up or down at random, so that the mean of many devices is that of what they rounded."""
    if scale == 0:
        return np.zeros(part.size, np.int8)
    return np.floor(part.ravel() / scale + rng.random(part.size)).clip(-_MOST, _MOST).astype(np.int8)


def incoming(arrays: Mapping[str, Array], model: Model, config: UpdateConfig | None = None) -> Weights:
    """The change that an update holds: every adaptable tensor in float32, 0 where it says nothing.

    Parameters
    ----------
    arrays : mapping of ndarray
        From outside.
    model : Model
    config : UpdateConfig, optional
        Of the server; what is longer than its ``clip`` is scaled to it.

    Raises
    ------
    InputError
        It is no update of this model, not finite, or has more bytes than the budget.
    """
    return Received(arrays, model, config or UpdateConfig()).dense()


class Received:
    """An update that was compared with what is allowed, and kept as it came; numbers are decoded when asked for.

    Parameters
    ----------
    arrays : mapping of ndarray
        From outside; kept, not copied.
    model : Model
    config : UpdateConfig
        Of the server.

    Attributes
    ----------
    parts : list of tuple
        The name of a tensor without blocks and None, or of one with blocks and the number of a block, of all that the
        update speaks of.

    Raises
    ------
    InputError
        It is no update of this model, not finite, or has more bytes than the budget.
    """

    def __init__(self, arrays: Mapping[str, Array], model: Model, config: UpdateConfig) -> None:
        layout = _Layout(model.config)
        blocks, scales, values = _checked(arrays, config)
        if len(blocks) and not ((np.diff(blocks) > 0).all() and blocks[0] >= 0 and blocks[-1] < layout.n_blocks):
            raise InputError(f"an update's {BLOCKS} rise from 0 to at most {layout.n_blocks - 1}")
        sizes = layout.sizes(blocks)
        if len(scales) != len(sizes) or len(values) != sizes.sum():
            raise InputError(
                f"an update of {len(blocks)} blocks has {len(sizes)} scales and {int(sizes.sum()):,} values, "
                f"not {len(scales)} and {len(values):,}"
            )
        self._config, self._shapes = model.config, shapes(model.config)
        self.parts = layout.names(blocks)
        self._values = dict(zip(self.parts, np.split(values, np.cumsum(sizes)[:-1]), strict=True))
        self._scales = dict(zip(self.parts, scales.astype(np.float64) * self._share(scales, config), strict=True))

    def _share(self, scales: Array, config: UpdateConfig) -> float:
        """What the update is multiplied by so that it is no longer than an honest one with its noise may be."""
        squares = [float(np.square(part, dtype=np.float64).sum()) for part in self._values.values()]
        norm = float(np.sqrt(np.square(scales.astype(np.float64)) @ np.array(squares)))
        # Noise is no part of what was clipped: it makes an honest update longer, as a rule by this much.
        n_numbers = sum(np.count_nonzero(part) for part in self._values.values())
        return min(1.0, config.clip * float(np.sqrt(1 + n_numbers * config.noise**2)) / max(norm, 1e-300))

    def part(self, name: str, block: int | None = None) -> Array:
        """A tensor, or a block of one, in float32; 0 where the update says nothing."""
        shape = self._shapes[name] if block is None else self._shapes[name][1:]
        values = self._values.get((name, block))
        if values is None:
            return np.zeros(shape, np.float32)
        return (values.astype(np.float32) * np.float32(self._scales[name, block])).reshape(shape)

    def dense(self) -> Weights:
        """Every adaptable tensor in float32, new arrays."""
        whole = nothing(self._config)
        for name, block in self.parts:
            whole[name][... if block is None else block] = self.part(name, block)
        return whole


def _checked(arrays: Mapping[str, Array], config: UpdateConfig) -> tuple[Array, Array, Array]:
    """Blocks, scales and values, of whichever model."""
    if set(arrays) != {BLOCKS, SCALES, VALUES}:
        shown = ", ".join(repr(str(name)[:20]) for name in sorted(arrays)[:4]) or "nothing"
        raise InputError(f"an update is {BLOCKS}, {SCALES} and {VALUES}, not {shown}")
    blocks, scales, values = (np.asarray(arrays[name]) for name in (BLOCKS, SCALES, VALUES))
    for name, array, dtype in ((BLOCKS, blocks, np.int32), (SCALES, scales, np.float32), (VALUES, values, np.int8)):
        if array.dtype != dtype or array.ndim != 1:
            raise InputError(f"an update's {name} are one row of {np.dtype(dtype)}, not {array.dtype} {array.shape}")
    if (n_bytes := blocks.nbytes + scales.nbytes + values.nbytes) > config.budget_bytes:
        raise InputError(f"an update has at most {config.budget_bytes:,} bytes, not {n_bytes:,}")
    if not (np.isfinite(scales).all() and (scales >= 0).all() and (values > -_MOST - 1).all()):
        raise InputError(f"an update's {SCALES} are finite and not below 0, its {VALUES} at least {-_MOST}")
    return blocks, scales, values


def shared_layer(change: Weights, model: Model) -> Weights:
    """A change as a layer: float16, in the form of ``edgelm.log.change.pack_change``.

    Parameters
    ----------
    change : dict of ndarray
        Every adaptable tensor, in float32; read.
    model : Model

    Raises
    ------
    DivergenceError
        A number does not fit float16.
    """
    return pack_change(change, nothing(model.config), model.config)


class _Layout:
    """Where the parts of an update lie in the tensors of a model."""

    def __init__(self, config: ModelConfig) -> None:
        self._shapes, self._config = shapes(config), config
        self._blocks = block_names(config)
        self._vectors = [name for name in adaptable_names(config) if name not in self._blocks]
        counts = [self._shapes[name][0] for name in self._blocks]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._sizes = np.concatenate(
            [np.empty(0, np.int64)]
            + [
                np.full(n, np.prod(self._shapes[name][1:]), np.int64)
                for name, n in zip(self._blocks, counts, strict=True)
            ]
        )
        self._vector_sizes = np.array([np.prod(self._shapes[name]) for name in self._vectors], np.int64)
        self.n_blocks = int(self._starts[-1])

    def sizes(self, blocks: Array) -> Array:
        """Numbers of each part of an update with these blocks."""
        return np.concatenate([self._vector_sizes, self._sizes[blocks]])

    def largest(self, whole: Weights, budget_bytes: int) -> Array:
        """The blocks of the largest mean square that fit into the budget, rising."""
        left = budget_bytes - int(self._vector_sizes.sum()) - 4 * len(self._vectors)
        if left < 0:
            raise InputError(
                f"budget_bytes is {budget_bytes:,}, but tensors without blocks take {budget_bytes - left:,}"
            )
        squares = [np.square(whole[name]).reshape(len(whole[name]), -1).mean(1) for name in self._blocks]
        means = np.concatenate([np.empty(0, np.float32), *squares])
        order = np.argsort(-means, kind="stable")
        order = order[means[order] > 0]
        bytes_ = np.cumsum(
            self._sizes[order] + 8
        )  # an integer each, and 4 bytes for the scale and for the block's number
        return np.sort(order[: int(np.searchsorted(bytes_, left, "right"))])

    def names(self, blocks: Array) -> list[tuple[str, int | None]]:
        """The tensors without blocks, and these blocks, each as its tensor and its number in it."""
        of = np.searchsorted(self._starts, blocks, "right") - 1
        numbers = blocks - self._starts[of]
        vectors: list[tuple[str, int | None]] = [(name, None) for name in self._vectors]
        return vectors + [(self._blocks[i], int(number)) for i, number in zip(of, numbers, strict=True)]
