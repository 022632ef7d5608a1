"""A learned change that leaves a profile, or begins another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelm.errors import ModelFileError, ProfileError
from edgelm.learn.adaptation import GATES, Adaptation
from edgelm.learn.transfer import export_change, import_file, write_change
from edgelm.log.entry import CHAT, CHECKPOINT, IMPORT
from edgelm.model import tensorfile
from edgelm.model.weights import Weights
from tests.learn.acts import DAY, LIVELY, Act, Open, close, perform
from tests.model_folder import write_tiny_model


def _adapted(adaptation: Adaptation) -> Weights:
    return {name: adaptation.model.weights[name] for name in adaptation.base}


def _assert_same(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.jit_only
def test_a_change_goes_to_somebody_else(open_: Open, tmp_path: Path) -> None:
    mine, file = open_("mine"), tmp_path / "change.safetensors"
    perform(mine, [*DAY[:6], Act(CHECKPOINT)])
    size = write_change(mine, file, export_change(mine))
    assert size == file.stat().st_size
    for act in DAY[:5]:
        for word in act.text.split():
            assert len(word) < 5 or word.encode() not in file.read_bytes()
    yours = open_("yours")
    import_file(yours, file)
    _assert_same(_adapted(yours), _adapted(mine))
    assert [(entry.kind, entry.note) for entry in yours.entries] == [(IMPORT, "from change.safetensors")]
    assert yours.pending == []
    assert yours.memory is None
    # It goes on from there, and back to there.
    start = yours.sha256
    ids = perform(yours, [Act(CHAT, "Hello"), Act(CHECKPOINT), Act(CHAT, "Good morning")])
    told = yours.sha256
    close(yours)
    yours = open_("yours")
    yours.catch_up()
    assert yours.sha256 == told
    yours.remove([ids[0]])
    yours.catch_up()
    assert yours.sha256 != told
    yours.remove([entry.id for entry in yours.entries if entry.id > 1])
    yours.catch_up()
    assert yours.sha256 == start
    _assert_same(_adapted(yours), _adapted(mine))
    yours.remove([1])
    _assert_same(_adapted(yours), yours.base)


def test_changes_that_cannot_be_imported(open_: Open, tmp_path: Path) -> None:
    mine, file = open_("mine"), tmp_path / "change.safetensors"
    perform(mine, DAY[:1])
    write_change(mine, file, export_change(mine))
    with pytest.raises(ProfileError, match="profile 'mine' is not empty; import into a new one: --profile NAME"):
        import_file(mine, file)
    other = open_("other", model=write_tiny_model(tmp_path / "other", seed=5))
    with pytest.raises(ProfileError, match=r"was learned on another model \('tiny'\)"):
        import_file(other, file)
    yours = open_("yours")
    tensors, metadata = tensorfile.read(file)
    tensorfile.write(file, tensors | {"final_norm": np.zeros(1, np.float16)}, metadata)
    with pytest.raises(ProfileError, match="damaged at 'final_norm'"):
        import_file(yours, file)
    tensorfile.write(file, tensors | {GATES: np.zeros(1)}, metadata)
    with pytest.raises(ProfileError, match="damaged at 'memory"):
        import_file(yours, file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="damaged"):
        import_file(yours, file)
    assert yours.entries == []
    _assert_same(_adapted(yours), yours.base)


@pytest.mark.jit_only
@pytest.mark.parametrize("factor", [1000, 65_504])
def test_a_change_that_harms_is_not_imported(open_: Open, tmp_path: Path, factor: float) -> None:
    """A change times 1,000, and one of nothing but the largest number of float16."""
    mine, file = open_("mine", LIVELY), tmp_path / "change.safetensors"
    perform(mine, DAY[:5])
    write_change(mine, file, export_change(mine))
    tensors, metadata = tensorfile.read(file)
    for name, array in tensors.items():
        if array.dtype == np.float16:
            scaled = array.astype(np.float64) * factor if factor == 1000 else np.full(array.shape, factor)
            tensors[name] = scaled.clip(-65_504, 65_504).astype(np.float16)
    tensorfile.write(file, tensors, metadata)
    yours = open_("yours")
    with pytest.raises(ProfileError, match=r"general text would cost .*; it is not imported") as raised:
        import_file(yours, file)
    assert "\n" not in str(raised.value)
    assert yours.entries == []
    _assert_same(_adapted(yours), yours.base)


@pytest.mark.jit_only
def test_a_change_in_noise(open_: Open, tmp_path: Path) -> None:
    """So much noise that no model is left is refused; so little that all is left can be imported."""
    mine, file = open_("mine"), tmp_path / "change.safetensors"
    perform(mine, DAY[:5])
    with pytest.raises(ProfileError, match=r"epsilon 0.001: with it general text would cost .*; nothing is written"):
        export_change(mine, 0.001)
    write_change(mine, file, export_change(mine, 1e9))
    yours = open_("yours")
    import_file(yours, file)
    for name, array in _adapted(mine).items():
        assert np.abs(array - _adapted(yours)[name]).max() < 0.01
