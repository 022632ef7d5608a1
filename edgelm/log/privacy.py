"""A change that hides whose it is: clipped, and hidden in noise.

The Gaussian mechanism: the whole change is scaled to a Euclidean norm of at most C, then normal noise is added to every
number of every tensor that learning can change, also where nothing changed. Two profiles, however different, then give
changes that are at most 2 C apart, so that what is written tells them apart no better than (epsilon, delta) says; one
profile gives one change, so nothing adds up within it. The noise is the least one, by the analytic formula of Balle and
Wang 2018 (arXiv 1805.06530, theorem 8). A profile that exports again spends epsilon again: the sum counts.
"""

from __future__ import annotations

import math

import numpy as np

from edgelm.model.config import ModelConfig
from edgelm.model.layers import BLOCKS
from edgelm.model.weights import Weights, adaptable_names, shapes, tensors

CLIP = 1.0
"""C, a Euclidean norm over all weights together; it must not depend on what was learned."""
DELTA = 1e-6


def noise_scale(epsilon: float, delta: float = DELTA, sensitivity: float = 2 * CLIP) -> float:
    """Standard deviation of the noise that makes one release (epsilon, delta)-private.

    Raises
    ------
    ValueError
        ``epsilon`` or ``delta`` is out of range.
    """
    if not (0 < epsilon <= 1e9 and 0 < delta < 1):
        raise ValueError(f"epsilon must be above 0 and at most 1e9, not {epsilon}")
    low, high = 0.0, sensitivity
    while _delta(epsilon, high, sensitivity) > delta:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _delta(epsilon, middle, sensitivity) > delta else (low, middle)
    return high


def _delta(epsilon: float, scale: float, sensitivity: float) -> float:
    """The delta that noise of this scale reaches at this epsilon."""
    near, far = sensitivity / (2 * scale), epsilon * scale / sensitivity
    # exp(epsilon) alone overflows where its product with the tail is tiny.
    second = math.exp(min(epsilon + _log_normal_cdf(-near - far), 0.0))
    return _normal_cdf(near - far) - second


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _log_normal_cdf(x: float) -> float:
    if x > -30:
        return math.log(_normal_cdf(x))
    # Mills' ratio: beyond here the tail itself is no float any more.
    return -0.5 * x * x - math.log(-x) - 0.5 * math.log(2 * math.pi) + math.log1p(-1 / (x * x))


def hidden(changes: Weights, config: ModelConfig, epsilon: float, rng: np.random.Generator) -> Weights:
    """A change, packed as by ``pack_change``, clipped and with noise, of all tensors that learning can change."""
    norm = math.sqrt(
        sum(float(np.square(a, dtype=np.float64).sum()) for name, a in changes.items() if not name.endswith(BLOCKS))
    )
    kept, scale = min(1.0, CLIP / max(norm, 1e-300)), noise_scale(epsilon)
    private: Weights = {}
    for name in adaptable_names(config):
        values = rng.normal(0.0, scale, shapes(config)[name])
        if name in changes:
            blocks = changes.get(name + BLOCKS)
            values[slice(None) if blocks is None else blocks] += kept * changes[name].astype(np.float64)
        private[name] = values.clip(-60_000, 60_000).astype(np.float16)
        if tensors(config)[name].blocks:
            private[name + BLOCKS] = np.arange(len(values), dtype=np.int32)
    return private
