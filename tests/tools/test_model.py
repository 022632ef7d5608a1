"""The PyTorch twin computes what the reference computes, and derives what the learner derives."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgelm.bench.peers.twins import (  # noqa: E402
    chunked,
    functions,
    model,
    scan,
)
from edgelm.cells.retention.paper import Retention  # noqa: E402
from edgelm.cells.top_k_ffn.paper import TopKFfn  # noqa: E402
from edgelm.model import reference  # noqa: E402
from edgelm.model.config import PRESETS, ModelConfig  # noqa: E402
from edgelm.model.state import State, empty_state, part_of, shared_part  # noqa: E402
from edgelm.model.weights import Weights, random_weights, shapes  # noqa: E402
from edgelm.network.network import Network  # noqa: E402
from edgelm.text.tokenizer import DOC_ID  # noqa: E402
from tests.tiny import tiny_config  # noqa: E402

TINY = {
    "gated_delta": ModelConfig.flat(23, 12, 2, 2, 3, 4, 6, 5, 3, 2, 5, n_channels=3),
    "published": ModelConfig.flat(23, 12, 2, 2, 3, 4, 4, 5, 3, 2, 5, n_channels=4, mixer="mcsd"),
}
TINY["retention"] = dataclasses.replace(TINY["gated_delta"], mixer=Retention(12, 1e-5, 2, 3, 4))
TINY["top_k_ffn"] = dataclasses.replace(TINY["gated_delta"], ffn=TopKFfn(12, 1e-5, 5, 3, 2, 5))
TINY["rwkv7"] = tiny_config("rwkv7")
IDLE = {f"layers.0.mixer.{name}" for name in ("v0", "v1", "v2")}
STEPS = 70

pytestmark = [
    pytest.mark.parametrize("mixer", TINY),
    pytest.mark.parametrize("sections", [scan, chunked], ids=["scan", "chunked"]),
]


@pytest.fixture
def config(mixer: str, sections: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    """The configuration; models made under it use ``sections`` for the recurrences."""
    monkeypatch.setattr(functions, "recurrences", lambda x: sections)
    return TINY[mixer]


def twin(config: ModelConfig, dtype: type = np.float32) -> tuple[Any, Weights]:
    """A model and its weights."""
    weights = random_weights(config, np.random.default_rng(5), dtype)
    made = model.Model(config).to(torch.from_numpy(weights["embed"]).dtype)
    made.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    return made, weights


def rows_of_documents(config: ModelConfig) -> np.ndarray:
    """Ids [4, 2 STEPS]: rows without a start, with one in front, with many, and with some at segment ends."""
    ids = np.random.default_rng(6).integers(1, config.vocab_size, (4, 2 * STEPS))
    ids[1, 0] = DOC_ID
    ids[2, [3, 4, 5, 20, 64, 65, STEPS + 9]] = DOC_ID
    ids[3, [STEPS - 2, STEPS, 2 * STEPS - 7]] = DOC_ID
    return ids


def segments(made: Any, ids: np.ndarray) -> tuple[list[Any], list[dict[str, Any]]]:
    """Logits [B,T,V] of each of two segments, and the states of the layers after them."""
    states, carried = made.initial_state(len(ids)), torch.ones(len(ids), 3, dtype=torch.bool)
    states = [{name: tensor.to(made.embed.dtype) for name, tensor in state.items()} for state in states]
    logits = []
    for part in np.split(ids, 2, axis=1):
        starts, same_doc, carried = model.document_masks(torch.from_numpy(part), DOC_ID, carried)
        hidden, states, _ = made(torch.from_numpy(part), starts, same_doc, states, made.config.max_awake)
        logits.append(hidden @ made.output_matrix.t())
    return logits, states


def all_logits(made: Any) -> np.ndarray:
    """Logits [B,T,V] of ``rows_of_documents``."""
    logits, _ = segments(made, rows_of_documents(made.config))
    return torch.cat(logits, 1).detach().float().numpy()  # type: ignore[no-any-return]


def state_of_layer(state: State, layer: int) -> dict[str, np.ndarray]:
    """The reference's state of a layer by the names of the twins: all running sums, and a count for each, are one."""
    own = part_of(state, f"layers.{layer}.mixer.") | part_of(state, f"layers.{layer}.ffn.")
    counts = shared_part(state)
    sums = [own.pop(name) for name in counts]
    norms = [np.broadcast_to(count, array.shape) for count, array in zip(counts.values(), sums, strict=True)]
    joined = {"slope": sums, "norm": norms} if counts else {}
    return {name: array[0] for name, array in own.items()} | {
        name: np.concatenate([array.reshape(-1) for array in arrays]) for name, arrays in joined.items()
    }


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_parameters_are_those_of_the_table(config: ModelConfig) -> None:
    for sizes in (config, PRESETS["nano"]):
        made = model.Model(sizes)
        assert {name: tuple(p.shape) for name, p in made.named_parameters()} == shapes(sizes)
        assert set(made.state_dict()) == set(shapes(sizes))


def test_logits_and_states_equal_the_reference(config: ModelConfig) -> None:
    made, weights = twin(config)
    judge = {name: array.astype(np.float64) for name, array in weights.items()}
    ids = rows_of_documents(config)
    logits, states = all_logits(made), segments(made, ids)[1]
    for row, row_ids in enumerate(ids):
        expected = []
        for document in np.split(row_ids, np.flatnonzero(row_ids == DOC_ID)):
            state = empty_state(config, np.float64)
            if len(document):
                part, state, _ = reference.forward(document, judge, state, config)
                expected.append(part)
        assert_close(logits[row], np.concatenate(expected), 1e-5)
        for layer, after in enumerate(states):
            parts = state_of_layer(state, layer)
            assert set(after) == set(parts)
            for name, array in parts.items():
                assert_close(after[name][row].numpy(), array, 1e-5)


def test_gradients_equal_the_learner(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second segment of a document; the state before it counts as given, by both."""
    # In float64, where a mistake cannot pass for rounding.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    made, weights = twin(config, np.float64)
    ids = np.random.default_rng(7).integers(1, config.vocab_size, 2 * STEPS + 1)
    inputs, targets = ids[STEPS:-1], ids[STEPS + 1 :]
    _, state, _ = reference.forward(ids[:STEPS], weights, empty_state(config, np.float64), config)
    network = Network(config, weights, shapes(config), STEPS)
    losses = network.forward(inputs, targets, state)
    network.backward()

    logits = segments(made, ids[None, :-1])[0][1][0]
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets), reduction="sum")
    loss.backward()
    assert_close(loss.detach().numpy(), losses.sum(), 1e-12)
    for name, p in made.named_parameters():
        # The share of the first layer's values in its own makes no difference.
        assert (np.abs(network.grads[name]).max() > 0) == (name not in IDLE), name
        assert_close(p.grad.numpy(), network.grads[name], 1e-9)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, while it traces
def test_layers_compile_as_one_graph(config: ModelConfig) -> None:
    made, _ = twin(config)
    plain = all_logits(made)
    for layer in made.layers:
        layer.compile(backend="aot_eager", fullgraph=True)
    compiled = all_logits(made)
    torch.compiler.reset()
    assert_close(compiled, plain, 1e-6)


def test_autocast_stays_close(config: ModelConfig) -> None:
    made, _ = twin(config)
    plain = all_logits(made)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, (_, states) = all_logits(made), segments(made, rows_of_documents(config))
    assert np.abs(low - plain).mean() <= 0.05 * np.abs(plain).mean()
    assert all(tensor.dtype == torch.float32 for state in states for tensor in state.values())
