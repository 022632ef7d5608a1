"""THE PAPER of ``retention``: memories that fade at fixed rates. If a kernel disagrees, the kernel is wrong.

Glossary (row vectors throughout)::

    T     tokens of a segment                  x      residual stream [T, D]; h its RMSNorm
    H     heads                                K, V   keys and values of a head
    S_    matrix memory [H, K, V]              gamma  share of it that a head keeps per token, 1 - 2^(-5-head)

    q | k | v | u = h W_in                     no position encoding, no convolution, no activation
    S_ <- gamma S_ + k v',  o = S_' q / sqrt(K)
    y = [(o - mean o) / sqrt(var o + eps) SiLU(u)] W_out        mean and variance over the V features of a head

Source: RetNet (arXiv 2307.08621). Like there, the group norm has neither gain nor bias. It cancels any factor of o, so
what the source divides scores by to keep them small is left out, but for sqrt(K). The rotation of q and k by the
position (xPos) is left out too: no cell knows the position, and the rates alone tell near from far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgelm.cells.cell import Array, Cell, Parts, Shapes
from edgelm.cells.functions import rms_norm, silu
from edgelm.matrices.spec import TensorSpec

HEAD_EPS = 1e-3
"""Epsilon of the norm over a head, ``eps`` above; the source names none. At the first tokens of a text o may be nearly
0, and the norm multiplies by up to 1 / sqrt(eps) what was rounded there: in the worst of 60 random cells, float32
kernels were 1.7e-5 from the paper with 1e-5, and 4e-6 with 1e-3."""


@dataclass(frozen=True)
class Retention(Cell):
    """Matrix memories with fixed decays.

    Parameters
    ----------
    d_model, norm_eps
        As of ``Cell``.
    n_heads, key_dim, value_dim : int
        H heads, each with a memory of K x V.
    """

    KIND: ClassVar[str] = "retention"
    MATRICES: ClassVar[Mapping[str, int]] = {"w_in": 0, "w_out": 0}

    n_heads: int
    key_dim: int
    value_dim: int

    @property
    def keys(self) -> int:
        """H K, features of all keys."""
        return self.n_heads * self.key_dim

    @property
    def values(self) -> int:
        """H V, features of all values."""
        return self.n_heads * self.value_dim

    def tensors(self) -> dict[str, TensorSpec]:
        """As of ``Cell``."""
        return {
            "norm": TensorSpec((self.d_model,), learns=True, mean=1.0, spread=0.2),
            "w_in": TensorSpec((self.d_model, 2 * self.keys + 2 * self.values), self.MATRICES["w_in"]),
            "w_out": TensorSpec((self.values, self.d_model), self.MATRICES["w_out"]),
        }

    def state(self) -> Shapes:
        """Matrix memories."""
        return {"memory": (1, self.n_heads, self.key_dim, self.value_dim)}

    def decays(self) -> Array:
        """gamma [H], float64."""
        return 1 - 2.0 ** (-5 - np.arange(self.n_heads))

    def narrowed(self, width: int) -> Retention:
        """As of ``Cell``."""
        return replace(self, d_model=width, key_dim=4, value_dim=width // math.gcd(width, self.n_heads))

    def forward(self, x: Array, weights: Parts, state: Parts, shared: Parts) -> Array:
        """As of ``Cell``."""
        h = rms_norm(x, weights["norm"], self.norm_eps)
        q, k, v, u = np.split(h @ weights["w_in"], np.cumsum([self.keys, self.keys, self.values]), axis=-1)
        q, k, v = (part.reshape(len(h), self.n_heads, -1) for part in (q, k, v))
        o, memory = retain(q, k, v, self.decays().astype(x.dtype), state["memory"][0])
        state["memory"] = memory[None]
        return (head_norm(o, HEAD_EPS).reshape(len(h), -1) * silu(u)) @ weights["w_out"]


def retain(q: Array, k: Array, v: Array, gamma: Array, memory: Array) -> tuple[Array, Array]:
    """The recurrent form: q, k [T,H,K], v [T,H,V], gamma [H], memory [H,K,V] to o [T,H,V] and the memory after."""
    out = np.empty_like(v)
    for t in range(len(q)):
        memory = gamma[:, None, None] * memory + k[t, :, :, None] * v[t, :, None, :]
        out[t] = np.einsum("hk,hkv->hv", q[t], memory) * q.dtype.type(q.shape[-1] ** -0.5)
    return out, memory


def head_norm(o: Array, eps: float) -> Array:
    """(o - mean) / sqrt(variance + eps) over the last axis."""
    o = o - np.mean(o, -1, keepdims=True)
    return o / np.sqrt(np.mean(o * o, -1, keepdims=True) + o.dtype.type(eps))
