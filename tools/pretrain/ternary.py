"""Training of matrices that are -1, 0 or 1 times one scale a tensor (BitNet b1.58, Ma et al. 2024, arXiv 2402.17764).

What is computed with is rounded, what the optimiser changes is not: the gradient of a rounded matrix is taken for that
of the numbers it was rounded from (straight through). The scale is the mean of the absolute values.

Rounded are the matrices that learning on the device reads and does not change; the embedding is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgelm.model.config import ModelConfig
from edgelm.model.weights import ternary_names


def rounded(weight: Tensor) -> Tensor:
    """The nearest of -1, 0 and 1 times the mean of the absolute values."""
    scale = weight.abs().mean().clamp(min=1e-8)
    return (weight / scale).round().clamp(-1, 1) * scale


class Rounding:
    """Exchanges the matrices of a model for rounded ones and back.

    Parameters
    ----------
    model : Module
        The twin of a model.
    config : ModelConfig
    """

    def __init__(self, model: nn.Module, config: ModelConfig) -> None:
        names = ternary_names(config)
        self._matrices = [p for name, p in model.named_parameters() if name in names]
        self._kept = [torch.empty_like(p) for p in self._matrices]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """The matrices are rounded within; gradients that are computed there are kept."""
        with torch.no_grad():
            for p, kept in zip(self._matrices, self._kept, strict=True):
                kept.copy_(p)
                p.copy_(rounded(kept))
        try:
            yield
        finally:
            with torch.no_grad():
                for p, kept in zip(self._matrices, self._kept, strict=True):
                    p.copy_(kept)
