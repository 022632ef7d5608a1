"""Several processes that train one model: each has streams of its own, all make the same step.

``torchrun --nproc-per-node 8 -m tools.pretrain.train ...``. Gradients are averaged as one flat vector: the model is
small, so one message a step costs less than hiding many behind the backward pass.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Group:
    """The processes of a run; alone when not started by torchrun.

    Parameters
    ----------
    device : {"cpu", "cuda"}

    Attributes
    ----------
    rank, size : int
    device : str
        This process's: ``cpu`` or ``cuda:N``.
    """

    def __init__(self, device: str) -> None:
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.device = device
        if self.size > 1:
            if device == "cuda":
                self.device = f"cuda:{os.environ['LOCAL_RANK']}"
                torch.cuda.set_device(self.device)
            dist.init_process_group("nccl" if device == "cuda" else "gloo")

    def average(self, tensors: list[Tensor], figures: list[float]) -> list[float]:
        """Replaces float32 tensors by their means over the processes; returns the means of the figures."""
        if self.size == 1:
            return figures
        flat = torch.cat([t.flatten() for t in tensors] + [torch.tensor(figures, device=self.device)])
        dist.all_reduce(flat)
        flat /= self.size
        *parts, means = flat.split([t.numel() for t in tensors] + [len(figures)])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
        return means.tolist()  # type: ignore[no-any-return]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in rank order, on rank 0; elsewhere an empty list."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size if self.rank == 0 else []
        dist.gather_object(value, values if self.rank == 0 else None)
        return values

    def close(self) -> None:
        """Leaves the group."""
        if self.size > 1:
            dist.destroy_process_group()
