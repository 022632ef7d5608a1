"""What a session refuses. What it computes: ``tests/test_parity.py``."""

from __future__ import annotations

import pytest

from edgelm.engine.session import OrtSession
from edgelm.errors import ModelFileError
from edgelm.export.step import build_graph
from tests.tiny import random_model, tiny_config


@pytest.mark.parametrize("graph", [b"", b"not a graph", build_graph(tiny_config())[:-100]])
def test_a_damaged_graph(graph: bytes) -> None:
    with pytest.raises(ModelFileError, match="refuses the graph") as caught:
        OrtSession(graph, {})
    assert "\n" not in str(caught.value)


def test_a_weight_that_is_missing() -> None:
    config, weights = random_model()
    del weights["final_norm"]
    with pytest.raises(ModelFileError, match="'final_norm'"):
        OrtSession(build_graph(config), weights)
