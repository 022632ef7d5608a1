"""The shape of a model: a stack of layers, each a mixer and a feed-forward part."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgelm.cells.cell import Cell
from edgelm.cells.table import CELLS
from edgelm.config import check_sizes
from edgelm.errors import ConfigError

MOST_LAYERS = 256
_PARTS = ("mixer", "ffn")
_FLAT_MIXERS = {
    "mcsd_g": ("gated_delta", ("n_heads", "key_dim", "value_dim", "slope_dim", "n_channels")),
    "mcsd": ("published", ("n_heads", "value_dim", "slope_dim", "n_channels")),
}
"""Mixers by their names in the first format of ``config.json``, and which of its sizes are theirs."""
_FLAT_FFN = ("n_blocks", "block_size", "max_awake", "shared_size")
_FLAT = ("vocab_size", "d_model", "n_layers", "n_heads", "key_dim", "value_dim", "slope_dim", *_FLAT_FFN)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model.

    Parameters
    ----------
    vocab_size : int
        V, tokens in the vocabulary.
    d_model : int
        D, width of the residual stream.
    n_layers : int
        L.
    mixer, ffn : Cell
        The two parts of every layer, of width D.
    norm_eps : float
        Epsilon of every norm.
    norm : {"rms", "layer"}
        The norm before the logits: RMSNorm, or LayerNorm with a bias.
    tied : bool
        Whether the logits are products with the embedding; else with a matrix of their own, ``head``.

    Raises
    ------
    ConfigError
        A size is out of range, or sizes do not divide as they must.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    mixer: Cell
    ffn: Cell
    norm_eps: float = 1e-5
    norm: str = "rms"
    tied: bool = True

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.norm not in ("rms", "layer"):
            raise ConfigError(f"norm must be rms or layer, not {self.norm!r}")
        if not isinstance(self.tied, bool):
            raise ConfigError(f"tied must be true or false, not {self.tied!r}")
        if self.n_layers > MOST_LAYERS:
            raise ConfigError(f"n_layers must be at most {MOST_LAYERS}, not {self.n_layers}")

    def parts(self) -> Iterator[tuple[str, Cell]]:
        """The layer parts in the order of use, each with the beginning of its tensors' names: ``layers.0.mixer.``."""
        for layer in range(self.n_layers):
            for name in _PARTS:
                yield f"layers.{layer}.{name}.", getattr(self, name)

    @property
    def head(self) -> str:
        """The matrix [V,D] whose products with the last norm are the logits."""
        return "embed" if self.tied else "head"

    @property
    def steps(self) -> int | None:
        """How many tokens the model's graph takes at a time, if not any number."""
        return min((cell.STEPS for _, cell in self.parts() if cell.STEPS), default=None)

    @property
    def n_blocks(self) -> int:
        """M, neuron blocks of a layer; 0 where no router chooses any."""
        return getattr(self.ffn, "n_blocks", 0)

    @property
    def max_awake(self) -> int:
        """Blocks that wake for a token at most; 0 where there are none."""
        return getattr(self.ffn, "max_awake", 0)

    def resized(self, **sizes: Any) -> ModelConfig:
        """The same shape with other sizes, be they its own or those of its parts."""
        own = {name: sizes.pop(name) for name in ("vocab_size", "d_model", "n_layers", "norm_eps") if name in sizes}
        common = {name: own.get(name, getattr(self, name)) for name in ("d_model", "norm_eps")}
        parts = {}
        for name in _PARTS:
            cell = getattr(self, name)
            given = {key: sizes.pop(key) for key in cell.sizes() if key in sizes}
            parts[name] = dataclasses.replace(cell, **common, **given)
        if sizes:
            raise ConfigError(f"this model has no size {next(iter(sizes))!r}")
        return dataclasses.replace(self, **own, **parts)

    def to_dict(self) -> dict[str, Any]:
        """All sizes, for ``config.json``."""
        parts = {name: {"kind": getattr(self, name).KIND} | getattr(self, name).sizes() for name in _PARTS}
        own = {name: getattr(self, name) for name in ("vocab_size", "d_model", "n_layers", "norm_eps")}
        rare = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name in _RARE}
        return own | {name: value for name, value in rare.items() if value != _RARE[name]} | parts

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ModelConfig:
        """The inverse of ``to_dict``; also reads the first format, in which all sizes stood side by side.

        Raises
        ------
        ConfigError
            A field is unknown or missing, or a size is out of range.
        """
        if "n_heads" in fields or "n_blocks" in fields or not isinstance(fields.get("mixer", {}), dict):
            return cls.flat(**fields)
        fields = _known(fields, _OWN_FIELDS, _OWN_FIELDS - {"norm_eps", *_RARE})
        common = {"d_model": fields["d_model"], "norm_eps": fields.get("norm_eps", 1e-5)}
        parts = {name: _cell(name, fields[name], common) for name in _PARTS}
        return cls(**fields | parts)

    @classmethod
    def flat(cls, *values: int, **named: Any) -> ModelConfig:
        """An MCSD model by its sizes side by side, as the first format of ``config.json`` holds them.

        Parameters
        ----------
        *values : int
            The first of ``vocab_size, d_model, n_layers, n_heads, key_dim, value_dim, slope_dim, n_blocks, block_size,
            max_awake, shared_size``; letters are those of the papers of the parts.
        **named
            The others of them by name, ``n_channels`` (8), ``mixer`` ("mcsd_g", or "mcsd") and ``norm_eps`` (1e-5).

        Raises
        ------
        ConfigError
            A size is unknown, missing or out of range.
        """
        given: dict[str, Any] = {"n_channels": 8, "mixer": "mcsd_g", "norm_eps": 1e-5}
        given |= _known(dict(zip(_FLAT, values, strict=False)) | named, {*_FLAT, *given}, {*_FLAT})
        mixer, common = given["mixer"], {name: given[name] for name in ("d_model", "norm_eps")}
        if not isinstance(mixer, str) or mixer not in _FLAT_MIXERS:
            raise ConfigError(f"mixer must be {' or '.join(_FLAT_MIXERS)}, not {mixer!r}")
        kind, names = _FLAT_MIXERS[mixer]
        made = CELLS[kind](**common, **{name: given[name] for name in names})
        ffn = CELLS["block_ffn"](**common, **{name: given[name] for name in _FLAT_FFN})
        return cls(given["vocab_size"], given["d_model"], given["n_layers"], made, ffn, given["norm_eps"])


_RARE: dict[str, Any] = {"norm": "rms", "tied": True}
"""Fields that ``config.json`` holds only where they are others."""
_OWN_FIELDS = {field.name for field in dataclasses.fields(ModelConfig)}


def _known(fields: dict[str, Any], known: set[str], needed: set[str]) -> dict[str, Any]:
    if unknown := sorted(set(fields) - known):
        raise ConfigError(f"unknown model configuration field {unknown[0]!r}; is the model newer than edgelm?")
    if missing := sorted(needed - set(fields)):
        raise ConfigError(f"incomplete model configuration: it lacks {missing[0]!r}")
    return fields


def _cell(name: str, fields: Any, common: dict[str, Any]) -> Cell:
    """A layer part as ``config.json`` describes it."""
    kind = fields.get("kind") if isinstance(fields, dict) else None
    if not isinstance(kind, str) or kind not in CELLS:
        raise ConfigError(f"{name}: no kind of layer part {kind!r}, known are {', '.join(CELLS)}; update edgelm")
    made = CELLS[kind]
    own = {field.name for field in dataclasses.fields(made)} - set(common)
    optional = {field.name for field in dataclasses.fields(made) if field.default is not dataclasses.MISSING}
    return made(**common, **_known({k: v for k, v in fields.items() if k != "kind"}, own, own - optional))


PRESETS = {
    "nano": ModelConfig.flat(512, 192, 6, 2, 64, 64, 96, 32, 32, 11, 64),
    "small": ModelConfig.flat(4096, 256, 8, 2, 64, 64, 256, 48, 32, 16, 64),
    "base": ModelConfig.flat(8192, 384, 10, 3, 64, 64, 384, 64, 32, 22, 128),
}
