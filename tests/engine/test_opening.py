"""A session of integers follows what is learned; which kind of session is opened is said by the processor, or asked."""

from __future__ import annotations

import gc
import hashlib
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from edgelm import ports
from edgelm.engine.opening import IntegerBlocks, open_session, precision_of
from edgelm.errors import ConfigError
from edgelm.matrices.quantize import BLOCK
from edgelm.model import hub
from edgelm.model.reference import forward
from edgelm.model.state import empty_state
from tests.model_folder import edit_manifest, write_tiny_model
from tests.tiny import random_ids

W2 = "layers.1.ffn.w2"


@pytest.fixture
def model(tiny_model: Path) -> hub.Model:
    return hub.load(str(tiny_model))


def off(model: hub.Model, found: np.ndarray, ids: np.ndarray) -> float:
    """Mean difference of logits to the reference, as a share of their spread."""
    expected, _, _ = forward(ids, model.weights, empty_state(model.config), model.config)
    return float(np.abs(found - expected).mean() / expected.std())


def test_it_is_near_the_reference_whatever_is_learned(model: hub.Model) -> None:
    session, ids = open_session(model, 1, "int8"), random_ids(model.config, 50)
    before = session.run(ids, 0)
    assert W2 not in model._learning, "float32 that nobody needs before something is learned"
    assert off(model, before, ids) < 0.06
    rng = np.random.default_rng(0)
    for names in ([W2], [name for name in model.adaptable if not name.endswith("w2")], [*model.adaptable]):
        with model.guard.writing():
            for name in names:
                model.adaptable[name] += (0.3 * rng.standard_normal(model.adaptable[name].shape)).astype(np.float32)
        session.reset()
        found = session.run(ids, 0)
        assert off(model, found, ids) < 0.1 < 0.15 < off(model, before, ids)
        before = found
        session.reset()
        one_by_one = np.concatenate([session.run(ids[i : i + 1]).copy() for i in range(len(ids))])
        assert np.abs(one_by_one - found).mean() < 0.05 * found.std()
        session.reset()
        np.testing.assert_allclose(session.observe(ids)[0], found, atol=1e-5)


def test_what_was_learned_before_it_was_opened_is_seen(model: hub.Model) -> None:
    with model.guard.writing():
        model.adaptable[W2] *= 2
    ids = random_ids(model.config, 20)
    assert off(model, open_session(model, 1, "int8").run(ids, 0), ids) < 0.06


@pytest.mark.parametrize("written", [False, True])
def test_a_fixed_one_has_all_weights_as_constants(model: hub.Model, written: bool) -> None:
    if written:
        with model.guard.writing():
            for array in model.adaptable.values():
                array *= 1.5
    session, ids = open_session(model, 1, "int8", fixed=True), random_ids(model.config, 20)
    assert bool(model._learning) == written, "float32 that nobody needs"
    before = session.run(ids, 0)
    assert off(model, before, ids) < 0.06
    with model.guard.writing():
        for array in model.adaptable.values():
            array *= 0
    session.reset()
    np.testing.assert_array_equal(session.run(ids, 0), before)


def test_blocks_that_were_not_written_are_left_alone(model: hub.Model) -> None:
    blocks = IntegerBlocks(model)
    q, scale = blocks.arrays[W2 + ".q"], blocks.arrays[W2 + ".scale"]
    old = q.copy()
    awake = np.zeros((model.config.n_layers, model.config.n_blocks), bool)
    awake[1, 2] = True
    with model.guard.writing(awake):
        model.adaptable[W2] *= -3  # more than is said
    blocks.refresh()
    assert [i for i in range(model.config.n_blocks) if (q[i] != old[i]).any()] == [2]
    values = (q[2].reshape(-1, BLOCK).astype(np.float32) - 128) * scale[2].reshape(-1, 1)
    steps = scale[2].reshape(-1, 1)
    assert (np.abs(values - model.adaptable[W2][2].reshape(-1, BLOCK)) <= steps * 0.51).all()
    q[:] = 0
    blocks.refresh()
    assert not q.any(), "nothing was written since"


def test_it_needs_nothing_of_the_file_any_more(model: hub.Model) -> None:
    session, ids = open_session(model, 1, "int8"), random_ids(model.config, 20)
    before = session.run(ids, 0)
    model.release()
    gc.collect()
    rubbish = [np.full(size, 77, np.uint8) for size in np.geomspace(8, 1e6, 400).astype(int)]
    session.reset()
    np.testing.assert_array_equal(session.run(ids, 0), before)
    assert rubbish


def test_float32_is_the_reference(model: hub.Model) -> None:
    ids = random_ids(model.config, 20)
    assert off(model, open_session(model, 1, "float32").run(ids, 0), ids) < 1e-5


@pytest.mark.parametrize("block_size", [16, 32])
def test_blocks_that_do_not_divide_stay_float(tmp_path: Path, block_size: int) -> None:
    model = hub.load(str(write_tiny_model(tmp_path / "m", block_size=block_size)))
    assert bool(IntegerBlocks(model).arrays) == (block_size == 32)
    with model.guard.writing():
        model.adaptable[W2] *= 2
    ids = random_ids(model.config, 20)
    assert off(model, open_session(model, 1, "int8").run(ids, 0), ids) < 0.06


def test_which_one_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    for fast in (True, False):
        monkeypatch.setattr(ports, "multiplies_integers", lambda fast=fast: fast)
        assert precision_of() == ("int8" if fast else "float32")
        for choice in ("int8", "float32"):
            monkeypatch.setenv("EDGELM_GRAPH", choice)
            assert precision_of() == choice
        monkeypatch.delenv("EDGELM_GRAPH")
    monkeypatch.setenv("EDGELM_GRAPH", "int4")
    with pytest.raises(ConfigError, match="must be int8 or float32, not 'int4'"):
        precision_of()


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_no_graph_of_a_folder_reaches_onnxruntime(tiny_model: Path, tmp_path: Path, precision: str) -> None:
    """Older folders hold graphs; a hostile one there may say what it wants."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    for name in hub.GRAPHS:
        (folder / name).write_bytes(b"no graph")
    digests = hub.read_manifest(folder).digests
    edit_manifest(folder, sha256=digests | {name: hashlib.sha256(b"no graph").hexdigest() for name in hub.GRAPHS})
    model = hub.load(str(folder))
    ids = random_ids(model.config, 5)
    expected = open_session(hub.load(str(tiny_model)), 1, precision).run(ids, 0)
    np.testing.assert_array_equal(open_session(model, 1, precision).run(ids, 0), expected)


def test_a_writer_is_never_seen_half_way(model: hub.Model) -> None:
    """Two sets of weights take turns; every run sees one or the other."""
    session, ids = open_session(model, 1, "int8"), random_ids(model.config, 1)
    sets = [model.adaptable[W2].copy() * factor for factor in (1, np.float32(4))]
    answers = []
    for weights in sets:
        with model.guard.writing():
            model.adaptable[W2][:] = weights
        session.reset()
        answers.append(session.run(ids).copy())
    assert np.abs(answers[0] - answers[1]).max() > 1e-3
    stop = threading.Event()

    def write() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            with model.guard.writing():
                for block in range(model.config.n_blocks):
                    model.adaptable[W2][block] = sets[turn % 2][block]

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            session.reset()
            found = session.run(ids)
            assert any(np.array_equal(found, answer) for answer in answers)
    finally:
        stop.set()
        writer.join()


def test_without_onnx_runtime_the_kernels_answer(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgelm.engine.opening.has_onnxruntime", lambda: False)
    assert type(open_session(hub.load(str(tiny_model)))).__name__ == "KernelSession"
