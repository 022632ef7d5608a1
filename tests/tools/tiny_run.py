"""The sizes and sources of the runs that the tests make."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from edgelm.model.config import ModelConfig

MIXTURE = {"talk": 1.0, "more": 2.0}
CONFIG = ModelConfig.flat(
    vocab_size=300, d_model=32, n_layers=2, n_heads=2, key_dim=8, value_dim=16, slope_dim=16,
    n_blocks=8, block_size=32, max_awake=4, shared_size=32,
)  # fmt: skip


@contextmanager
def kept_signals() -> Iterator[None]:
    """Puts the signal handlers back that a run replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
