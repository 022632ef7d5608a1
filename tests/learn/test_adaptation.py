"""What was learned is a function of the log: however it is replayed, and without what was forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgelm.config import LearnConfig
from edgelm.errors import DivergenceError, ModelFileError, ProfileError
from edgelm.learn.adaptation import GATES, Adaptation
from edgelm.learn.documents import remember
from edgelm.learn.learner import Learner
from edgelm.learn.transfer import export_change, import_file, write_change
from edgelm.log.entry import CHAT, CHECKPOINT, CONSOLIDATION, FIX, GOOD, IMPORT, TEXT, UNLOGGED
from edgelm.log.profile import Profile
from edgelm.memory.fast_memory import FastMemory
from edgelm.model import hub, tensorfile
from edgelm.model.weights import Weights
from tests.command import ROOT
from tests.learn.acts import (
    HARM,
    LIVELY,
    NEVER,
    Act,
    after,
    close,
    open_adaptation,
    own_word,
    perform,
    perform_without,
    random_acts,
)
from tests.model_folder import contents, write_tiny_model

Open = Callable[..., Adaptation]
DAY = [
    Act(CHAT, "My boat is called Heron."),
    Act(CHAT, "When does the ferry leave?"),
    Act(GOOD, "It leaves at seven.", parent=1),
    Act(FIX, "It leaves at eight.", parent=1),
    Act(TEXT, "The harbour sleeps.\nThe lamps are lit one by one. " * 5, conversation=2),
    Act(CONSOLIDATION),
    Act(CHECKPOINT),
    Act(CHAT, f"The baker is called {HARM}.", conversation=3),
    Act(CONSOLIDATION, amount=1),
    Act(CHAT, "Ada brings warm rolls.", conversation=3),
]


@pytest.fixture
def open_(tiny_model: Path, tmp_path: Path) -> Iterator[Open]:
    """``open_("me", config)``: a profile held for writing."""
    opened: list[Adaptation] = []

    def run(name: str = "me", config: LearnConfig | None = None, *, model: Path = tiny_model) -> Adaptation:
        opened.append(open_adaptation(model, tmp_path / "profiles", config, name=name))
        return opened[-1]

    yield run
    for adaptation in opened:
        close(adaptation)


@pytest.mark.jit_only
@pytest.mark.parametrize("config", [LearnConfig(), LIVELY], ids=["usual", "lively"])
def test_a_log_has_one_outcome(open_: Open, tmp_path: Path, config: LearnConfig) -> None:
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


@pytest.mark.jit_only
def test_the_guardrail_has_something_to_do(open_: Open) -> None:
    lively = open_("lively", LIVELY)
    perform(lively, DAY)
    assert any("taken back" in entry.note for entry in lively.entries)
    usual = open_("usual")
    perform(usual, DAY)
    assert not any(entry.note for entry in usual.entries)
    assert usual.sha256 != lively.sha256


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
@pytest.mark.parametrize("case", range(100))
def test_forgetting_is_exact(open_: Open, tmp_path: Path, case: int) -> None:
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


@pytest.mark.jit_only
@pytest.mark.parametrize("rate", [1000, 300])
def test_what_harms_is_taken_back(open_: Open, rate: float) -> None:
    config = LearnConfig(rate=rate)
    adaptation = open_("me", config)
    # Two hundred segments of the usual length.
    adaptation.learn(adaptation.tell(TEXT, "zq" * (100 * config.segment), conversation=1))
    note = adaptation.entries[-1].note
    assert note.startswith("general text became ")
    assert note.endswith("% worse: taken back to the last good point")
    assert all(np.isfinite(adaptation.model.weights[name]).all() for name in adaptation.base)
    close(adaptation)
    again = open_("me", config)
    again.catch_up()
    assert again.sha256 == adaptation.sha256


@pytest.mark.jit_only
def test_what_is_taken_back_are_all_weights_since_the_last_good_point(open_: Open) -> None:
    config = LearnConfig(rate=1000, gate_segments=4)
    adaptation = open_("me", config)
    count = adaptation.model.tokenizer.encode_document_lines
    text = next(text for n in range(1000) if len(count(text := "zq" * n)) >= 4 * config.segment)
    segments: list[int] = []
    adaptation.learn(adaptation.tell(TEXT, text, conversation=1), on_tokens=segments.append)
    assert len(segments) == 4
    assert "general text became" in adaptation.entries[-1].note
    for name, array in adaptation.base.items():
        np.testing.assert_array_equal(adaptation.model.weights[name], array)


@pytest.mark.jit_only
@pytest.mark.parametrize("per_session", [3, 5, 7])
def test_sessions_shorter_than_the_interval_are_checked_too(open_: Open, per_session: int) -> None:
    """What harms, told in five sessions, none of which is as long as the segments between two checks."""
    config = LearnConfig(rate=1000, gate_segments=8, gate_limit=0.01, gate_draw=0.001)
    for number in range(5):
        adaptation = open_("me", config)
        adaptation.catch_up()
        count = adaptation.model.tokenizer.encode_document_lines
        text = next(text for n in range(1000) if len(count(text := "zq" * n)) >= per_session * config.segment)
        adaptation.learn(adaptation.tell(TEXT, text, conversation=number + 1))
        adaptation.write_checkpoint()
        excess = adaptation.replay.guardrail.excess_of_all(adaptation.replay.learner.network)
        unchecked = adaptation.replay._segments
        assert 2 * unchecked < config.gate_segments, "what is not checked is kept for the next session to check"
        assert excess < config.gate_limit or unchecked > 0
        expected, watch = adaptation.sha256, (unchecked, adaptation.replay._checks, adaptation.replay._mean_excess)
        close(adaptation)
        again = open_("me", config)
        assert again.sha256 == expected
        assert (again.replay._segments, again.replay._checks, again.replay._mean_excess) == watch
        close(again)
    assert any("general text became" in entry.note for entry in adaptation.entries)


@pytest.mark.jit_only
def test_a_good_point_that_was_none_is_shrunk(open_: Open) -> None:
    """A checkpoint counts as good; where it harms, a check that takes back to it goes on towards the base."""
    config = LearnConfig(rate=1000, gate_segments=1 << 20, gate_limit=0.01, gate_draw=0.001)
    adaptation = open_("me", config)
    adaptation.learn(adaptation.tell(TEXT, HARM * 4, conversation=1))
    replay = adaptation.replay
    replay._save_good_point()
    assert replay.guardrail.excess_of_all(replay.learner.network) > config.gate_limit
    replay._check(thorough=True)
    assert replay.guardrail.excess_of_all(replay.learner.network) < config.gate_limit


@pytest.mark.jit_only
def test_weights_are_pulled_back_before_that(open_: Open) -> None:
    found = {}
    for draw in (0.001, 0.05):
        adaptation = open_(f"{draw}", LearnConfig(rate=300, gate_segments=1, gate_limit=0.05, gate_draw=draw))
        perform(adaptation, [Act(TEXT, HARM)])
        assert adaptation.entries[-1].note == ""
        found[draw] = sum(float(np.abs(adaptation.model.weights[n] - b).sum()) for n, b in adaptation.base.items())
    assert 0 < found[0.001] < found[0.05]


def _assert_knows_the_whole_log(adaptation: Adaptation) -> None:
    tokenizer = adaptation.model.tokenizer
    memory, fresh = adaptation.replay.memory, FastMemory(tokenizer)
    befores = [adaptation.before(entry) for entry in adaptation.entries]
    remember(fresh, adaptation.entries, befores, tokenizer)
    fresh.gates[:] = memory.gates
    assert memory._answers._known == fresh._answers._known
    for entry in adaptation.entries:
        ids = np.array([0, *tokenizer.encode(" " + entry.text), 1])
        for as_reply in (False, True):
            guess = np.full(len(ids) - 1, 1e-3)
            np.testing.assert_array_equal(
                memory.predict(ids, 1, guess, as_reply), fresh.predict(ids, 1, guess, as_reply)
            )
            np.testing.assert_array_equal(
                memory.mix(ids[:-1].tolist(), np.full(tokenizer.vocab_size, 1e-3), as_reply),
                fresh.mix(ids[:-1].tolist(), np.full(tokenizer.vocab_size, 1e-3), as_reply),
            )


@pytest.mark.jit_only
def test_the_memory_is_that_of_the_whole_log(open_: Open) -> None:
    adaptation = open_()
    perform(adaptation, DAY)
    _assert_knows_the_whole_log(adaptation)


@pytest.mark.jit_only
@pytest.mark.parametrize("failing", range(1, 8))
def test_the_memory_learns_what_the_weights_cannot(open_: Open, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    adaptation = open_()
    adaptation.prepare()
    update, calls = Learner._update, []

    def broken(learner: Learner, losses: np.ndarray) -> None:
        calls.append(1)
        if len(calls) == failing:
            raise DivergenceError("a gradient is not finite")
        update(learner, losses)

    monkeypatch.setattr(Learner, "_update", broken)
    perform(adaptation, DAY[:5])
    assert len(calls) >= 7
    notes = [entry.note for entry in adaptation.entries if entry.note]
    assert notes == ["a gradient is not finite: taken back to the last good point"]
    _assert_knows_the_whole_log(adaptation)


def test_a_loss_that_is_not_finite_is_taken_back(open_: Open) -> None:
    adaptation = open_()
    perform(adaptation, [*DAY[:2], Act(CHECKPOINT)])
    before = {name: adaptation.model.weights[name].copy() for name in adaptation.base}
    adaptation.model.weights["final_norm"][:] = np.nan
    perform(adaptation, [DAY[0]], dict.fromkeys(range(3), 0))
    assert "taken back to the last good point" in adaptation.entries[-1].note
    for name, array in before.items():
        np.testing.assert_array_equal(adaptation.model.weights[name], array)
    _assert_knows_the_whole_log(adaptation)


def test_what_a_turn_taught(open_: Open) -> None:
    adaptation = open_()
    text = "The ferry leaves at seven."
    entry = adaptation.tell(CHAT, text, conversation=1)
    counted: list[int] = []
    learned = adaptation.learn(entry, on_tokens=counted.append, report=True)
    assert learned is not None
    assert learned.tokens == sum(counted) > len(adaptation.model.tokenizer.encode(text))
    assert learned.loss_after < learned.loss_before
    assert learned.bits_gained > 0
    assert adaptation.learn(adaptation.tell(CHAT, text, conversation=1)) is None


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
