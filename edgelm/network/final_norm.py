"""The norm before the logits, of either kind."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from edgelm.kernels import arrays
from edgelm.kernels import norm as norm_kernels
from edgelm.kernels import shift as shift_kernels
from edgelm.kernels.norm import ZERO
from edgelm.matrices.matrix import Operands
from edgelm.model.config import ModelConfig
from edgelm.model.weights import Weights

Array = np.ndarray


class FinalNorm(Protocol):
    """The norm of at most ``max_steps`` tokens. ``backward`` may follow each ``forward`` once; both may be recorded, as
    those of ``edgelm.cells.passes.CalledPass``."""

    def take(self, x: Array) -> None:
        """As of ``edgelm.cells.passes.CalledPass``."""

    def forward(self, x: Array, out: Array) -> None:
        """out [T,D] = the norm of x [T,D]; x must not change until ``backward`` is done."""

    def backward(self, dout: Array, dx: Array, grads: Weights) -> None:
        """The gradient of x is added to dx [T,D]; those of gain and bias in ``grads`` are overwritten."""


class Rms:
    """RMSNorm. Methods: ``FinalNorm``."""

    def __init__(self, config: ModelConfig, weights: Operands, max_steps: int) -> None:
        self._gain = np.asarray(weights["final_norm"])
        self._eps = self._gain.dtype.type(config.norm_eps)
        self._inverse = np.zeros(max_steps, self._gain.dtype)

    def take(self, x: Array) -> None:
        """As of ``FinalNorm``."""
        self._x = x

    def forward(self, x: Array, out: Array) -> None:
        """As of ``FinalNorm``."""
        self.take(x)
        norm_kernels.rms_forward(x, self._gain, self._eps, self._inverse, out)

    def backward(self, dout: Array, dx: Array, grads: Weights) -> None:
        """As of ``FinalNorm``."""
        arrays.fill(grads["final_norm"], ZERO)
        norm_kernels.rms_backward(dout, self._x, self._gain, self._inverse, dx, grads["final_norm"])


class Layer:
    """LayerNorm. Methods: ``FinalNorm``."""

    def __init__(self, config: ModelConfig, weights: Operands, max_steps: int) -> None:
        self._gain, self._bias = (np.asarray(weights[name]) for name in ("final_norm", "final_norm_bias"))
        dtype = self._gain.dtype
        self._eps, self._inverse = dtype.type(config.norm_eps), np.zeros(max_steps, dtype)
        self._plain = np.zeros((max_steps, config.d_model), dtype)

    def take(self, x: Array) -> None:
        """As of ``FinalNorm``."""
        self._now = self._plain[: len(x)]

    def forward(self, x: Array, out: Array) -> None:
        """As of ``FinalNorm``."""
        self.take(x)
        shift_kernels.layer_forward(x, self._gain, self._bias, self._eps, self._inverse, self._now, out)

    def backward(self, dout: Array, dx: Array, grads: Weights) -> None:
        """As of ``FinalNorm``."""
        gain, bias = grads["final_norm"], grads["final_norm_bias"]
        arrays.fill(gain, ZERO)
        arrays.fill(bias, ZERO)
        shift_kernels.layer_backward(dout, self._now, self._gain, self._inverse, dx, gain, bias)


def final_norm(config: ModelConfig, weights: Operands, max_steps: int) -> FinalNorm:
    """That of a model; its weights are kept, not copied."""
    kinds: dict[str, type[FinalNorm]] = {"rms": Rms, "layer": Layer}
    return kinds[config.norm](config, weights, max_steps)  # type: ignore[call-arg]
