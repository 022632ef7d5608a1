"""The last good point: the same bits as of whole copies, whatever was written, told block by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelm.learn.good_point import GoodPoint
from edgelm.model import hub
from edgelm.model.guard import Guard
from edgelm.model.weights import block_names
from tests.model_folder import write_tiny_model


class Plain:
    """Whole copies, each time."""

    def __init__(self, model: hub.Model) -> None:
        self.base = {name: np.asarray(base) for name, base in model.base().items()}

    def save(self, adapted: dict[str, np.ndarray]) -> None:
        self.change = {name: (adapted[name] - base).astype(np.float16) for name, base in self.base.items()}

    def restored(self) -> dict[str, np.ndarray]:
        return {name: base + self.change[name] for name, base in self.base.items()}


@pytest.mark.parametrize("block_size", [16, 32])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_whole_copies_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_size: int, seed: int
) -> None:
    """w2 of blocks of 32 is integers in the file, of 16 it is float32; a block or all of them are copied at a time."""
    monkeypatch.setattr("edgelm.matrices.changed._NUMBERS", 1 if seed % 2 else 1 << 16)
    model = hub.load(str(write_tiny_model(tmp_path / "m", block_size=block_size)))
    rng, guard, adapted, plain = np.random.default_rng(seed), model.guard, model.adaptable, Plain(model)
    good = GoodPoint(model.config, adapted, model.base(), guard)
    good.save()
    plain.save(adapted)
    for step in range(40):
        awake = rng.random((model.config.n_layers, model.config.n_blocks)) < rng.choice([0, 0.3, 1])
        with guard.writing(awake):
            for row, name in enumerate(block_names(model.config)):
                for block in np.flatnonzero(awake[row]):
                    adapted[name][block] += 0.01 * rng.standard_normal(adapted[name].shape[1:]).astype(np.float32)
            adapted["final_norm"] += np.float32(0.01)
        if step % 7 == 3:
            with guard.writing():
                for name, base in plain.base.items():
                    adapted[name][:] = base
        if rng.random() < 0.4:
            good.save()
            plain.save(adapted)
        if rng.random() < 0.3:
            with guard.writing():
                good.restore()
            for name, array in plain.restored().items():
                np.testing.assert_array_equal(adapted[name], array)


def test_what_another_saved_goes_on_here(tiny_model: Path) -> None:
    model = hub.load(str(tiny_model))
    base, copies, other_guard = model.base(), {n: a.copy() for n, a in model.adaptable.items()}, Guard(model.config)
    other, good = (
        GoodPoint(model.config, weights, base, guard)
        for weights, guard in ((copies, other_guard), (model.adaptable, model.guard))
    )
    good.save()
    w2 = "layers.0.ffn.w2"
    for change in (1, 2):  # the second one is written, and not saved
        with other_guard.writing():
            copies[w2][1] += change
        if change == 1:
            other.save()
    with model.guard.writing():
        for name, array in copies.items():
            np.copyto(model.adaptable[name], array)
    good.take_over(other)
    good.save()
    with model.guard.writing():
        model.adaptable[w2][:] = 0
        good.restore()
    np.testing.assert_allclose(model.adaptable[w2][1], np.asarray(base[w2])[1] + 3, rtol=1e-3)
    np.testing.assert_array_equal(model.adaptable[w2][0], np.asarray(base[w2])[0])
