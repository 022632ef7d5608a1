"""Muon for the matrices, AdamW for the rest.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum, then the nearest
semi-orthogonal matrix by a Newton-Schulz iteration. The step is scaled to the root mean square of an
AdamW step (Liu et al. 2025, arXiv 2502.16982), so one learning rate serves both. Blocks are matrices of
their own: a stack [M,B,D] is orthogonalised block by block.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from edgelm.cells.table import CELLS

MATRICES = frozenset(name for cell in CELLS.values() for name in cell.MATRICES)
"""Names of the matrices of layer parts."""


def orthogonalize(g: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices of a stack [..., R, C], approximately (singular values 0.7 to 1.2)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    wide = x.shape[-2] <= x.shape[-1]
    if not wide:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Muon with decoupled weight decay."""

    def __init__(self, params: list[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            learned = [p for p in group["params"] if p.grad is not None]
            for p in learned:
                self.state[p].setdefault("momentum", torch.zeros_like(p))
            # Matrices of one shape, those of the same place in every layer above all, are one stack.
            for shape in dict.fromkeys(p.shape for p in learned):
                self._step([p for p in learned if p.shape == shape], group)

    def _step(self, params: list[nn.Parameter], group: dict[str, Any]) -> None:
        gradients, momentum = torch.stack([cast(Tensor, p.grad) for p in params]), group["momentum"]
        buffers = [self.state[p]["momentum"] for p in params]
        torch._foreach_lerp_(buffers, list(gradients.unbind()), 1 - momentum)
        update = orthogonalize(gradients.lerp(torch.stack(buffers), momentum)).to(gradients.dtype)
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        scale = 0.2 * max(params[0].shape[-2:]) ** 0.5
        torch._foreach_add_(params, list(update.unbind()), alpha=-group["lr"] * scale)


def make_optimizers(
    model: nn.Module, lr: float, weight_decay: float, mixer_rate: float = 1.0
) -> list[torch.optim.Optimizer]:
    """Muon over the matrices, AdamW over embedding, router, gains and biases.

    The rate of a group is that of the run times its ``factor``: ``mixer_rate`` for the tensors of the mixers.
    """
    matrices: dict[float, list[nn.Parameter]] = {}
    others: dict[float, list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        kind = matrices if name.rsplit(".", 1)[-1] in MATRICES else others
        kind.setdefault(mixer_rate if ".mixer." in name else 1.0, []).append(p)
    groups = [[{"params": p, "factor": f} for f, p in kind.items()] for kind in (matrices, others)]
    return [
        Muon(groups[0], lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(groups[1], lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
