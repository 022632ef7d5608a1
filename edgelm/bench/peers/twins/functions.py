"""What the twins of several cells compute alike, and the recurrences that suit a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

import torch
from torch import Tensor

from edgelm.bench.peers.twins import chunked, scan

State = dict[str, Tensor]
"""What one layer part carries from segment to segment, a row for each stream."""
_alone = ContextVar("_alone", default=False)


@contextmanager
def operators_alone(chunk: int) -> Iterator[None]:
    """PyTorch's own operators compute the recurrences meanwhile, on a CPU too, so many tokens at a time."""
    before, chunked.CHUNK = chunked.CHUNK, chunk
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)
        chunked.CHUNK = before


def recurrences(x: Tensor) -> ModuleType:
    """Whose ``decay_scan``, ``slope_scan`` and ``wkv_scan`` suit the device of ``x``: chunks on a GPU, else
    loops by Numba."""
    return chunked if x.is_cuda or _alone.get() else scan


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, in float32."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def l2_norm(x: Tensor) -> Tensor:
    """x / sqrt(|x|^2 + 1e-6) over the last axis, in float32."""
    x = x.float()
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def shifted(h: Tensor, starts: Tensor, before: Tensor) -> Tensor:
    """What stood one token before each of h [B,T,D], zeros where a document begins; ``before`` [B,D] is of the segment
    before."""
    return torch.cat([before.unsqueeze(1), h[:, :-1]], 1).masked_fill(starts.unsqueeze(-1), 0.0)
