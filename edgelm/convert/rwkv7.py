"""RWKV-7 of a checkpoint as the tensors of a model here, one after the other.

Files of the authors (``.pth``, ``.safetensors``) name tensors as their code does, ``blocks.0.att.w1``; those of
llama.cpp (``.gguf``, architecture ``rwkv7``) as ``blk.0.time_mix_w1.weight``. They differ in more than names: llama.cpp
has the six mixes of a layer in one tensor, r, w, k, v, a, g, the small matrices transposed, and ``r_k`` flat. A first
layer has no use for ``v0``, ``v1`` and ``v2``; some files hold them all the same, and they are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from edgelm.convert.checkpoint import Array, Checkpoint
from edgelm.errors import ModelFileError

EPS = 1e-5
"""Of all norms over the width."""
HEAD_DIM = 64
"""Features of a head where the file does not say."""
MOST_LAYERS = 256
ROWS = 2048
"""Of a matrix with a row for each token, that are in memory at a time."""
_MIXES = ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g")
_RANKS = {"w": "decay_rank", "a": "rate_rank", "v": "mix_rank", "g": "gate_rank"}
_SMALL = tuple(part + which for part in _RANKS for which in "12")
_SQUARE = ("receptance", "key", "value", "output")
_FIRST = "layers.0.mixer."
_UNUSED = tuple(_FIRST + name for name in ("v0", "v1", "v2"))


class _Form(NamedTuple):
    """How a kind of file names and shapes things."""

    layer: str
    """What begins the names of a layer's tensors, with its number for ``{}``."""
    layers: re.Pattern[str]
    """The same as an expression, the number its first group."""
    names: Mapping[str, str]
    """By the names here: whole ones, or of a layer part what follows ``layers.0.``."""


_WHOLE = {
    "embed": ("emb.weight", "token_embd.weight"),
    "embed_norm": ("blocks.0.ln0.weight", "token_embd_norm.weight"),
    "embed_norm_bias": ("blocks.0.ln0.bias", "token_embd_norm.bias"),
    "final_norm": ("ln_out.weight", "output_norm.weight"),
    "final_norm_bias": ("ln_out.bias", "output_norm.bias"),
    "head": ("head.weight", "output.weight"),
}
_PARTS = {
    "mixer.norm": ("ln1.weight", "attn_norm.weight"),
    "mixer.norm_bias": ("ln1.bias", "attn_norm.bias"),
    **{f"mixer.{mix}": (f"att.{mix}", "time_mix_lerp_fused.weight") for mix in _MIXES},
    **{
        f"mixer.{name}": (f"att.{name}", f"time_mix_{name}.weight")
        for name in ("w0", "w1", "w2", "a0", "a1", "a2", "v0", "v1", "v2", "g1", "g2", "k_k", "k_a", "r_k")
    },
    **{f"mixer.{name}": (f"att.{name}.weight", f"time_mix_{name}.weight") for name in _SQUARE},
    "mixer.head_norm": ("att.ln_x.weight", "time_mix_ln.weight"),
    "mixer.head_norm_bias": ("att.ln_x.bias", "time_mix_ln.bias"),
    "ffn.norm": ("ln2.weight", "attn_norm_2.weight"),
    "ffn.norm_bias": ("ln2.bias", "attn_norm_2.bias"),
    "ffn.x_k": ("ffn.x_k", "channel_mix_lerp_k.weight"),
    "ffn.key": ("ffn.key.weight", "channel_mix_key.weight"),
    "ffn.value": ("ffn.value.weight", "channel_mix_value.weight"),
}
_AUTHORS, _LLAMA = (
    _Form(layer, re.compile(layers), {ours: names[i] for ours, names in (_WHOLE | _PARTS).items()})
    for i, (layer, layers) in enumerate(
        [("blocks.{}.", r"blocks\.(0|[1-9][0-9]{0,2})\."), ("blk.{}.", r"blk\.(0|[1-9][0-9]{0,2})\.")]
    )
)


class Rwkv7:
    """The model that a checkpoint holds.

    Parameters
    ----------
    checkpoint : Checkpoint
    n_tokens : int, optional
        Tokens of its vocabulary: rows of the embedding and of the head beyond are cut off, of which the published
        models have some.

    Attributes
    ----------
    sizes : dict of int
        ``vocab_size``, ``d_model``, ``n_layers``, ``n_heads``, ``head_dim``, ``hidden_size`` and the ranks of the small
        matrices: ``decay_rank`` (w), ``rate_rank`` (a), ``mix_rank`` (v), ``gate_rank`` (g).

    Raises
    ------
    ModelFileError
        It is no RWKV-7, or a tensor of it is missing, of another shape than the others say, or one too many.
    """

    def __init__(self, checkpoint: Checkpoint, n_tokens: int | None = None) -> None:
        self._checkpoint = checkpoint
        self._form = self._found_form()
        self._check_metadata()
        n_layers = self._count_layers()
        self._n_rows, d_model = self._matrix("embed")
        n_heads, head_dim = self._heads(d_model)
        vocab_size = self._n_rows if n_tokens is None else n_tokens
        if vocab_size > self._n_rows:
            raise ModelFileError(
                f"{checkpoint.path}: {self._name('embed')!r} has {self._n_rows} rows, but the vocabulary has "
                f"{n_tokens} tokens; use the vocabulary of this model"
            )
        self.sizes = {
            "vocab_size": vocab_size, "d_model": d_model, "n_layers": n_layers, "n_heads": n_heads,
            "head_dim": head_dim, "hidden_size": self._matrix("layers.0.ffn.key")[0],
        }  # fmt: skip
        for part, size in _RANKS.items():
            if part == "v" and n_layers == 1:
                self.sizes[size] = 1  # the only layer has no such matrix
            else:
                name = f"layers.{int(part == 'v')}.mixer.{part}1"
                self.sizes[size] = self._matrix(name)[1 if self._form is _AUTHORS else 0]
        self._shapes = self._all_shapes()
        self._check_shapes()

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Names and numbers of all tensors as a model here has them: float32, in memory of their own, made when they
        are asked for.

        Raises
        ------
        ModelFileError
            A tensor cannot be read, or holds what is no number.
        """
        for name in self.names():
            parts = list(self.parts(name))
            yield name, parts[0] if len(parts) == 1 else np.concatenate(parts)

    def names(self) -> list[str]:
        """Of all tensors, by the names of a model here."""
        return [name for name in self._shapes if name not in ("embed_norm", "embed_norm_bias")]

    def parts(self, name: str) -> Iterator[Array]:
        """One tensor as ``tensors`` makes it, those with a row for each token some rows at a time."""
        if name not in ("embed", "head"):
            yield self._read(name)
            return
        norm = [self._read(norm) for norm in ("embed_norm", "embed_norm_bias")] if name == "embed" else []
        left = self.sizes["vocab_size"]
        for rows in self._checkpoint.read_rows(self._name(name), ROWS):
            self._check_numbers(name, rows)
            rows = rows[:left]
            left -= len(rows)
            if norm:
                _norm_rows(rows, *norm)
                self._check_numbers(name, rows)
            if len(rows):
                yield rows

    def _read(self, name: str) -> Array:
        """A tensor of the file in the shape that it has here."""
        found = self._checkpoint.read(self._name(name)).reshape(self._shape_there(name))
        if self._is_joined(name):
            found = found[_MIXES.index(_last(name))].copy()
        self._check_numbers(name, found)
        return np.ascontiguousarray(found.T) if self._is_turned(name) else found.reshape(self._shapes[name])

    def _check_numbers(self, name: str, found: Array) -> None:
        if not np.isfinite(found).all():
            raise ModelFileError(
                f"{self._checkpoint.path}: {self._name(name)!r} holds what is no number, or one that is too large; "
                "get it again"
            )

    def _is_joined(self, name: str) -> bool:
        return self._form is _LLAMA and ".mixer." in name and _last(name) in _MIXES

    def _is_turned(self, name: str) -> bool:
        return name.endswith(".ffn.value") or (self._form is _AUTHORS and _last(name) in _SMALL)

    def _shape_there(self, name: str) -> tuple[int, ...]:
        """That of the file, for a tensor here; sizes of 1 are kept by some and left out by others."""
        shape = self._shapes[name]
        if self._is_joined(name):
            return (len(_MIXES), *shape)
        if self._form is _LLAMA and _last(name) == "r_k":
            return (shape[0] * shape[1],)
        return shape[::-1] if self._is_turned(name) else shape

    def _name(self, name: str) -> str:
        """That of the file, for one of a model here."""
        if not name.startswith("layers."):
            return self._form.names[name]
        _, layer, part = name.split(".", 2)
        return self._form.layer.format(layer) + self._form.names[part]

    def _found_form(self) -> _Form:
        names = self._checkpoint.names()
        for form in (_AUTHORS, _LLAMA):
            if form.names["embed"] in names and form.layer.format(0) + form.names["mixer.k_k"] in names:
                return form
        raise ModelFileError(
            f"{self._checkpoint.path}: no RWKV-7: it has neither the tensors of the authors' files, blocks.0.att.k_k "
            "and so on, nor those of llama.cpp's, blk.0.time_mix_k_k.weight"
        )

    def _check_metadata(self) -> None:
        if self._form is not _LLAMA:
            return
        said = self._checkpoint.metadata
        for key, expected in (("general.architecture", "rwkv7"), ("rwkv7.attention.layer_norm_epsilon", EPS)):
            value = said.get(key, expected)
            same = abs(value - EPS) < 1e-8 if isinstance(value, float) and expected == EPS else value == expected
            if not same:
                raise ModelFileError(f"{self._checkpoint.path}: {key} is {str(value)[:80]!r}, not {expected}")

    def _count_layers(self) -> int:
        found = (self._form.layers.match(name) for name in self._checkpoint.names())
        numbers = {int(match[1]) for match in found if match}
        if numbers != set(range(len(numbers))) or len(numbers) > MOST_LAYERS:
            raise ModelFileError(
                f"{self._checkpoint.path}: its layers are not 0, 1, 2, ..., {MOST_LAYERS} at most: there are "
                f"{len(numbers)}, the last one is {max(numbers)}"
            )
        return len(numbers)

    def _matrix(self, name: str) -> tuple[int, int]:
        shape = self._checkpoint.shape(self._name(name))
        if len(shape) != 2 or not all(shape):
            raise ModelFileError(f"{self._checkpoint.path}: {self._name(name)!r} is {list(shape)}, no matrix")
        return shape[0], shape[1]

    def _heads(self, d_model: int) -> tuple[int, int]:
        if self._form is _AUTHORS:
            return self._matrix(_FIRST + "r_k")
        head_dim = self._checkpoint.metadata.get("rwkv7.wkv.head_size", HEAD_DIM)
        if type(head_dim) is not int or head_dim < 1 or d_model % head_dim:
            raise ModelFileError(
                f"{self._checkpoint.path}: rwkv7.wkv.head_size is {str(head_dim)[:80]!r}, which does not divide the "
                f"width, {d_model}"
            )
        return d_model // head_dim, head_dim

    def _all_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all tensors, by their names here, as they are here; only those of the vocabulary have all rows of the
        file."""
        s = self.sizes
        d, hidden = s["d_model"], s["hidden_size"]
        whole: dict[str, tuple[int, ...]] = dict.fromkeys(_WHOLE, (d,))
        whole["embed"] = whole["head"] = self._n_rows, d
        parts: dict[str, tuple[int, ...]] = dict.fromkeys(_PARTS, (d,))
        parts |= {f"mixer.{name}": (d, d) for name in _SQUARE}
        parts |= {"mixer.r_k": (s["n_heads"], s["head_dim"]), "ffn.key": (hidden, d), "ffn.value": (hidden, d)}
        for part, rank in _RANKS.items():
            parts |= {f"mixer.{part}1": (s[rank], d), f"mixer.{part}2": (d, s[rank])}
        layers = {f"layers.{i}.{part}": shape for i in range(s["n_layers"]) for part, shape in parts.items()}
        return whole | {name: shape for name, shape in layers.items() if name not in _UNUSED}

    def _check_shapes(self) -> None:
        path, s = self._checkpoint.path, self.sizes
        if s["n_heads"] * s["head_dim"] != s["d_model"]:
            raise ModelFileError(
                f"{path}: {self._name(_FIRST + 'r_k')!r} is {s['n_heads']} heads of {s['head_dim']}, together not "
                f"{s['d_model']}, the width"
            )
        unexpected = set(self._checkpoint.names()) - {self._name(name) for name in _UNUSED}
        for name in self._shapes:
            theirs, expected = self._name(name), self._shape_there(name)
            found = self._checkpoint.shape(theirs)
            if [n for n in found if n != 1] != [n for n in expected if n != 1]:
                raise ModelFileError(f"{path}: {theirs!r} is {list(found)}, but must be {list(expected)}")
            unexpected.discard(theirs)
        if unexpected:
            raise ModelFileError(f"{path}: holds {min(unexpected)[:200]!r} too, which is no part of RWKV-7")


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _norm_rows(rows: Array, gain: Array, bias: Array) -> None:
    """Norms rows [V,D] as the first layer would, which has no norm before it then. Overwrites them."""
    exact = rows.astype(np.float64)
    exact -= exact.mean(1, keepdims=True)
    exact /= np.sqrt((exact * exact).mean(1, keepdims=True) + EPS)
    with np.errstate(over="ignore"):  # whoever calls looks at what comes of it
        rows[:] = exact * gain + bias
