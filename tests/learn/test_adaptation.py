"""What was learned is a function of the log: however it is replayed, and without what was forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgelm.config import LearnConfig
from edgelm.errors import ProfileError
from edgelm.learn.adaptation import GATES, Adaptation
from edgelm.log.entry import CHAT, CHECKPOINT, CONSOLIDATION, UNLOGGED
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.model.weights import Weights
from tests.command import ROOT
from tests.learn.acts import (
    DAY,
    LIVELY,
    NEVER,
    Act,
    Open,
    after,
    close,
    own_word,
    perform,
    perform_without,
    random_acts,
)
from tests.model_folder import contents, write_tiny_model


@pytest.mark.jit_only
@pytest.mark.parametrize("config", [LearnConfig(), LIVELY], ids=["usual", "lively"])
@pytest.mark.parametrize("mixer", ["mcsd_g", "rwkv7"])
def test_a_log_has_one_outcome(open_: Open, tmp_path: Path, config: LearnConfig, mixer: str) -> None:
    open_ = partial(open_, model=write_tiny_model(tmp_path / "m", mixer=mixer))
    at_once = open_("at-once", config)
    perform(at_once, DAY)
    expected = at_once.sha256
    close(at_once)
    # After a crash, from the checkpoint in the middle.
    for aside in (False, True):
        again = open_("at-once", config)
        assert [entry.id for entry in again.pending] == [8, 9, 10]
        assert again.sha256 != expected
        again.catch_up(aside=aside)
        assert again.pending == []
        assert again.sha256 == expected
        close(again)
    # In sessions that end at any point; and from the beginning, when the checkpoint is lost.
    for end in (3, 6, 7, 9):
        first = open_(f"in-two-{end}", config)
        ids = perform(first, DAY[:end])
        close(first)
        second = open_(f"in-two-{end}", config)
        second.catch_up()
        perform(second, DAY[end:], ids)
        assert second.sha256 == expected, end
        close(second)
    for path in (tmp_path / "profiles").glob("at-once.weights-*"):
        path.unlink()
    for aside in (False, True):
        again = open_("at-once", config)
        assert len(again.pending) == 10
        again.catch_up(aside=aside)
        assert again.sha256 == expected
        close(again)


REPLAY = """
import sys
from pathlib import Path
from tests.learn.acts import open_adaptation
adaptation = open_adaptation(Path(sys.argv[1]), Path(sys.argv[2]))
adaptation.catch_up()
print(adaptation.sha256)
"""


@pytest.mark.jit_only
def test_the_number_of_threads_is_nothing_to_it(open_: Open, tiny_model: Path, tmp_path: Path) -> None:
    adaptation = open_()
    perform(adaptation, [*DAY[:4], Act(CONSOLIDATION)])
    close(adaptation)
    for threads in ("1", "2"):
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, threads)}
        command = [sys.executable, "-c", REPLAY, str(tiny_model), str(tmp_path / "profiles")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
        assert done.stdout.strip() == adaptation.sha256, done.stderr


@pytest.mark.jit_only
@pytest.mark.parametrize("case", range(26, 56))
def test_forgetting_is_exact(open_: Open, tmp_path: Path, case: int) -> None:
    """The last six logs are those of a model whose neurons each write a row."""
    open_ = partial(open_, model=write_tiny_model(tmp_path / "m", mixer="mcsd_g" if case < 50 else "rwkv7"))
    rng = np.random.default_rng(case)
    config = LIVELY if case % 2 else LearnConfig()
    acts = random_acts(rng, int(rng.integers(4, 11)))
    adaptation = open_("me", config)
    ids = perform(adaptation, acts)
    if in_a_later_process := case % 3 == 0:
        close(adaptation)
        adaptation = open_("me", config)
    told = [entry for entry in adaptation.entries if entry.text]
    chosen = rng.choice([entry.id for entry in told], int(rng.integers(1, min(3, len(told)) + 1)), replace=False)
    removed = adaptation.remove(map(int, chosen))
    adaptation.catch_up(aside=case % 4 == 0)
    assert set(map(int, chosen)) <= set(removed)
    for entry in told:
        is_there = any(own_word(entry.text).encode() in blob for blob in contents(tmp_path / "profiles").values())
        assert is_there == (entry.id not in removed), entry.text

    without = open_("without", config)
    perform_without(without, acts, ids, removed)
    assert adaptation.sha256 == without.sha256
    # Both go on alike, also from a checkpoint that was made after forgetting.
    more = [Act(CHECKPOINT), Act(CHAT, "And the fog?"), Act(CONSOLIDATION), Act(CHAT, "It lifts.")]
    for other in (adaptation, without):
        perform(other, more[: 1 + 3 * (not in_a_later_process)])
    if in_a_later_process:
        close(adaptation)
        adaptation = open_("me", config)
        adaptation.catch_up()
        for other in (adaptation, without):
            perform(other, more[1:])
    assert adaptation.sha256 == without.sha256
    close(adaptation)
    close(without)


def test_a_consolidation_that_was_broken_off_may_be_whole_without_what_was_forgotten(open_: Open) -> None:
    acts = [Act(CHAT, "one"), Act(CHAT, "two"), Act(CONSOLIDATION, amount=3), Act(CHAT, "three"), Act(CHECKPOINT)]
    adaptation, without = open_("me"), open_("without")
    ids = perform(adaptation, acts)
    assert [entry.amount for entry in adaptation.entries] == [None, None, 3, None, None]
    adaptation.remove([ids[1]])
    adaptation.catch_up()
    adaptation.write_replayed_checkpoint(0)
    close(adaptation)
    adaptation = open_("me")
    assert adaptation.pending == []
    adaptation.prepare()
    perform_without(without, acts, ids, [ids[1]])
    for other in (adaptation, without):
        perform(other, [Act(CONSOLIDATION)])
    assert adaptation.sha256 == without.sha256


@pytest.mark.jit_only
def test_what_was_learned_of_everything_can_be_forgotten(open_: Open, tiny_model: Path) -> None:
    untouched = hub.load(str(tiny_model))
    adaptation = open_()
    nothing = adaptation.sha256
    adaptation.prepare()
    assert adaptation.sha256 == nothing
    perform(adaptation, DAY)
    assert adaptation.sha256 != nothing
    adaptation.remove([entry.id for entry in adaptation.entries if entry.text])
    adaptation.catch_up()
    assert {entry.kind for entry in adaptation.entries} == {CONSOLIDATION, CHECKPOINT}
    assert adaptation.sha256 == nothing
    for name, array in untouched.weights.items():
        np.testing.assert_array_equal(adaptation.model.weights[name], array)
    close(adaptation)
    again = open_()
    again.catch_up()
    assert again.sha256 == nothing


@pytest.mark.jit_only
@pytest.mark.parametrize("n_left", [0, 1, 4, 6, 7, 9, 10])
def test_rollback_is_the_log_up_to_there(open_: Open, n_left: int) -> None:
    adaptation, expected = open_("me"), open_("expected")
    perform(adaptation, DAY)
    perform(expected, DAY[:n_left])
    adaptation.remove([entry.id for entry in adaptation.entries if entry.id > n_left])
    adaptation.catch_up()
    assert adaptation.sha256 == expected.sha256
    assert [entry.text for entry in adaptation.entries] == [act.text for act in DAY[:n_left]]


@pytest.mark.jit_only
def test_a_consolidation_that_was_broken_off(open_: Open) -> None:
    acts = [Act(CHAT, "My boat is called Heron."), Act(CHAT, "It is green.")]
    found: dict[int | None, str] = {}
    for steps in (0, 1, 3, 4, None):
        adaptation = open_(f"after-{steps}")
        perform(adaptation, acts)
        adaptation.consolidate(after(steps))
        entry = adaptation.entries[-1]
        whole = steps in (4, None)  # twice through two turns
        assert (entry.kind, entry.amount) == (CONSOLIDATION, None if whole else steps)
        # What was not repeated to the end is left to the next time.
        assert adaptation.has_unconsolidated == (not whole)
        adaptation.consolidate()
        assert not adaptation.has_unconsolidated
        assert len(adaptation.entries) == (3 if whole else 4)
        adaptation.consolidate()
        assert len(adaptation.entries) == (3 if whole else 4)
        found[steps] = adaptation.sha256
        close(adaptation)
        again = open_(f"after-{steps}")
        again.catch_up()
        assert again.sha256 == found[steps]
        assert not again.has_unconsolidated
        close(again)
    assert found[4] == found[None]
    assert len(set(found.values())) == 4 or found[0] == found[None]


@pytest.mark.jit_only
def test_what_was_told_while_the_log_is_replayed(open_: Open) -> None:
    expected = open_("expected")
    perform(expected, [*DAY, Act(CHAT, "Said meanwhile.")])
    first = open_("me")
    perform(first, DAY)
    close(first)
    second = open_("me")
    told: list[object] = []

    def tell(_: int) -> None:
        if not told:
            told.append(second.tell(CHAT, "Said meanwhile.", conversation=1))

    second.catch_up(tell, aside=True)
    second.learn(told[0])  # type: ignore[arg-type]
    assert second.sha256 == expected.sha256


@pytest.mark.jit_only
def test_readers_meet_the_checkpoint_until_the_replay_is_complete(open_: Open) -> None:
    first = open_()
    perform(first, DAY)
    close(first)
    second = open_()
    before = {name: second.model.weights[name].copy() for name in second.base}
    seen = []

    def look(_: int) -> None:
        seen.append(all(np.array_equal(second.model.weights[name], array) for name, array in before.items()))

    second.catch_up(look, aside=True)
    assert seen
    assert all(seen)
    assert not all(np.array_equal(second.model.weights[name], array) for name, array in before.items())


def test_small_sessions_write_no_weights(open_: Open, tmp_path: Path) -> None:
    adaptation = open_()
    perform(adaptation, DAY[:2])
    adaptation.write_checkpoint(1000)
    assert adaptation.entries[-1].kind == CHECKPOINT
    assert not list(tmp_path.rglob("*.safetensors"))
    adaptation.write_checkpoint(0)
    assert len(adaptation.entries) == 3  # nothing was learned since
    expected = adaptation.sha256
    close(adaptation)
    again = open_()
    assert len(again.pending) == 3
    again.catch_up()
    again.write_replayed_checkpoint(NEVER)
    assert not list(tmp_path.rglob("*.safetensors"))
    again.write_replayed_checkpoint(1)
    assert again.sha256 == expected
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["me.weights-3.safetensors"]
    close(again)
    third = open_()
    assert third.pending == []
    assert third.sha256 == expected


def test_without_a_profile_nothing_is_kept(tiny_model: Path, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    model = hub.load(str(tiny_model))
    adaptation = Adaptation(model, None, LearnConfig(), lambda: 0.0)
    nothing = adaptation.sha256
    adaptation.learn(adaptation.tell(CHAT, "Hello", conversation=1))
    adaptation.consolidate()
    adaptation.write_checkpoint()
    assert adaptation.entries == []
    assert adaptation.sha256 != nothing
    assert set(tmp_path.iterdir()) == before


def test_weights_whose_words_are_not_kept(open_: Open) -> None:
    adaptation = open_()
    perform(adaptation, DAY[:2])
    adaptation.replay.learn_document(np.arange(60), keep_words=False)
    adaptation.append_unlogged("60 tokens")
    unlogged = adaptation.sha256
    perform(adaptation, [Act(CHAT, "Later"), Act(CHECKPOINT)])
    with pytest.raises(ProfileError, match="nothing before it can be forgotten"):
        adaptation.remove([1])
    with pytest.raises(ProfileError, match="cannot be moved"):
        adaptation.rebase()
    close(adaptation)
    again = open_()
    assert again.entries[2].kind == UNLOGGED
    again.remove([4])
    again.catch_up()
    close(again)
    again = open_()
    again.catch_up()
    again.remove([entry.id for entry in again.entries if entry.id > 3])
    assert again.pending == []
    assert again.sha256 == unlogged


@pytest.mark.jit_only
@pytest.mark.parametrize("block_size", [32, 24])
def test_moving_to_another_model(tiny_model: Path, open_: Open, tmp_path: Path, block_size: int) -> None:
    folder = tmp_path / "profiles"
    first = open_()
    perform(first, DAY)
    before = first.sha256
    close(first)
    other = write_tiny_model(tmp_path / "other", seed=5, name="other", block_size=block_size)
    expected = open_("expected", model=other)
    perform(expected, DAY)
    close(expected)

    model = hub.load(str(other))
    profile = Profile(folder, "me", model, writable=True, any_base=True)
    moved = Adaptation(model, profile, LearnConfig(), lambda: 0.0)
    moved.rebase()
    moved.catch_up()
    # A consolidation that was broken off is broken off at the same step, and all else is as if learned there.
    assert moved.sha256 == expected.sha256 != before
    moved.write_replayed_checkpoint(0)
    close(moved)
    again = open_(model=other)
    again.catch_up()
    assert again.sha256 == expected.sha256
    with pytest.raises(ProfileError, match="another model"):
        open_("expected")


@pytest.mark.jit_only
@pytest.mark.parametrize(
    ("says", "change"),
    [
        ("'embed'", lambda t: t.update(embed=np.zeros((300, 32), np.float16))),
        ("'final_norm'", lambda t: t.update(final_norm=np.zeros(1, np.float16))),
        (GATES, lambda t: t.pop(GATES)),
        (GATES, lambda t: t.update({GATES: t[GATES][:-1]})),
        (GATES, lambda t: t.update({GATES: t[GATES] * np.nan})),
        (GATES, lambda t: t.update({GATES: t[GATES] + 3})),
        (GATES, lambda t: t.update({GATES: t[GATES].astype(np.float32)})),
    ],
)
def test_weights_that_do_not_fit(open_: Open, says: str, change: Callable[[Weights], object]) -> None:
    adaptation = open_()
    perform(adaptation, [*DAY[:2], Act(CHECKPOINT)])
    assert adaptation.profile is not None
    tensors = adaptation.profile.checkpoint()[1]  # type: ignore[index]
    change(tensors)
    adaptation.profile.write_checkpoint(tensors)
    close(adaptation)
    with pytest.raises(ProfileError, match=f"its weights are damaged at .*{says}"):
        assert open_().memory is not None
