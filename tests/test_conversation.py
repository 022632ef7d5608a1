"""A conversation that is learned from: approved, corrected, taken back, explained."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from edgelm.config import SampleConfig
from edgelm.conversation import Conversation
from edgelm.engine.generate import Ended
from edgelm.errors import InputError
from edgelm.log.entry import CHAT, CHECKPOINT, CONSOLIDATION, FIX, GOOD, Entry
from edgelm.log.profile import Profile
from edgelm.measure.influence import influences_on_reply
from edgelm.runtime import Engine, EngineOptions
from tests.model_folder import contents

Open = Callable[..., Conversation]


@pytest.fixture
def open_(tiny_model: Path, home: Path) -> Iterator[Open]:
    """``open_("mine")``: a chat that learns; an earlier one with the same profile is closed."""
    engines: dict[str, Engine] = {}

    def run(profile: str = "default", *, learn: bool = True, patient: bool = True, max_tokens: int = 6) -> Conversation:
        if profile in engines:
            engines[profile].close()
        options = EngineOptions(str(tiny_model), profile=profile, seed=1)
        engines[profile] = Engine(options, writable=learn)
        engines[profile].adaptation.catch_up()
        return Conversation(engines[profile], SampleConfig(max_tokens=max_tokens), learn=learn, patient=patient)

    yield run
    for engine in engines.values():
        engine.close()


def _say(chat: Conversation, *texts: str) -> str:
    """The last answer."""
    answer = ""
    for text in texts:
        answer = "".join(chat.turn(text))
    return answer


def _told(chat: Conversation) -> list[tuple[str, str]]:
    return [(entry.kind, entry.text) for entry in chat.engine.adaptation.entries if entry.text]


def _entries(chat: Conversation) -> list[Entry]:
    return chat.engine.adaptation.entries


def test_what_waits_in_the_log_is_seen_by_a_session_that_was_to_be_fixed(
    open_: Open, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGELM_GRAPH", "int8")
    chat = open_()
    chat.engine.adaptation.tell(CHAT, "The ferry waits in the fog, and a baker brings warm rolls. " * 5, conversation=1)
    chat.engine.close()
    options, ids = EngineOptions(str(tiny_model)), np.arange(9)
    found = []
    for is_first in (True, False):
        with Engine(options, fixed=True) as engine:
            assert len(engine.adaptation.pending) == 1
            if is_first:
                before = engine.session.run(ids).copy()
            engine.adaptation.catch_up()
            engine.session.reset()
            found.append(engine.session.run(ids))
    assert (before != found[0]).any()
    assert np.abs(found[1] - found[0]).mean() < np.abs(before - found[0]).mean()


@pytest.mark.parametrize("place", ["COMMIT", "BEGIN"])
def test_an_interrupt_while_a_turn_is_written_down(open_: Open, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = open_()
    _say(chat, "Hello")
    written = Profile._writing

    @contextmanager
    def interrupted(profile: Profile) -> Iterator[sqlite3.Connection]:
        if place == "BEGIN":
            signal.raise_signal(signal.SIGINT)
        with written(profile) as database:
            yield database
        if place == "COMMIT":
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Profile, "_writing", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _say(chat, "Are you there?")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    chat.close()
    assert _told(chat) == [(CHAT, "Hello"), (CHAT, "Are you there?")]
    assert _entries(chat)[-1].kind == CHECKPOINT, "what was written down is learned, and the session ended"
    sha256 = chat.engine.adaptation.sha256
    assert open_().engine.adaptation.sha256 == sha256


def test_a_turn_is_in_the_log_before_it_is_answered(open_: Open) -> None:
    chat = open_()
    answer = chat.turn("Hello")
    piece = next(answer)
    assert _told(chat) == [(CHAT, "Hello")]
    rest = "".join(answer)
    (turn,) = chat.turns
    assert turn.reply == piece + rest
    assert turn.entry_ids == [1]
    assert turn.learned is not None
    fields = turn.to_json()
    assert (fields["turn"], fields["learned_tokens"]) == (1, turn.learned.tokens)


def test_the_end_consolidates_and_rounds(open_: Open) -> None:
    chat = open_()
    _say(chat, "One", "Two")
    chat.close()
    assert [entry.kind for entry in _entries(chat)] == [CHAT, CHAT, CONSOLIDATION, CHECKPOINT]
    sha256 = chat.engine.adaptation.sha256
    again = open_()
    assert again.engine.adaptation.sha256 == sha256
    again.close()  # nothing was said
    assert len(_entries(again)) == 4


@pytest.mark.jit_only
def test_the_same_words_give_the_same_weights_patient_or_not(open_: Open) -> None:
    found = []
    for patient in (True, False):
        chat = open_(f"patient-{patient}", patient=patient)
        _say(chat, "One", "Two", "Three")
        assert chat.undo() == [3]
        _say(chat, "Four")  # is told while the rest is replayed
        chat.engine.worker.call(lambda _: None).result()
        assert not chat.engine.adaptation.pending
        found.append((_told(chat), chat.engine.adaptation.sha256))
    assert found[0] == found[1]


def test_a_good_answer_is_learned(open_: Open) -> None:
    chat = open_()
    answer = _say(chat, "Hello", "Good morning")
    before = chat.engine.adaptation.sha256
    chat.approve().result()
    assert chat.engine.adaptation.sha256 != before
    entry = _entries(chat)[-1]
    assert (entry.kind, entry.text, entry.parent) == (GOOD, answer, 2)
    assert entry.conversation == _entries(chat)[0].conversation


def test_an_approved_answer_that_holds_a_secret_is_not_learned(open_: Open) -> None:
    chat = open_()
    _say(chat, "Hello")
    chat.turns[-1].reply = "Your password is hunter22."
    with pytest.raises(InputError, match="looks like a secret; it was not learned"):
        chat.approve()
    assert len(_entries(chat)) == 1


def test_a_correction_takes_the_place_of_the_answer(open_: Open) -> None:
    chat = open_()
    _say(chat, "What is my boat called?")
    before = chat.engine.adaptation.sha256
    chat.correct("  It is called Heron. ").result()
    assert chat.engine.adaptation.sha256 != before
    entry = _entries(chat)[-1]
    assert (entry.kind, entry.text, entry.parent) == (FIX, "It is called Heron.", 1)
    assert chat.turns[-1].reply == "It is called Heron."
    for text in ("", "  ", "my password is hunter22"):
        with pytest.raises(InputError, match="empty or looks like a secret"):
            chat.correct(text)
    assert len(_entries(chat)) == 2


def test_a_corrected_answer_is_given_from_then_on(open_: Open) -> None:
    chat = open_(max_tokens=20)
    asked = "What is my boat called?"
    assert _say(chat, asked) != "It is called Heron."
    chat.correct("It is called Heron.").result()
    for again in (False, True):
        chat = open_(max_tokens=20) if again else chat
        chat.sampling = SampleConfig(temperature=0, max_tokens=20)
        assert _say(chat, "what's my boat called") == "It is called Heron."
        assert _say(chat, "What is my cat called?") != "It is called Heron."
    found = {item.entry.kind: item.bits_fast for item in (_say(chat, asked), influences_on_reply(chat))[1]}
    assert found[FIX] > 20
    chat.forget("Heron")
    assert _say(chat, asked) != "It is called Heron."


def test_a_secret_has_no_entry_to_answer(open_: Open) -> None:
    chat = open_()
    _say(chat, "my password is hunter22")
    assert chat.turns[0].secrets_skipped == 1
    chat.correct("I will not remember it.").result()
    assert [entry.parent for entry in _entries(chat)] == [None]
    assert chat.undo() == [1]


@pytest.mark.jit_only
def test_undo_takes_a_turn_back(open_: Open) -> None:
    chat, other = open_("one"), open_("other")
    _say(other, "First")
    _say(chat, "First", "Second")
    chat.approve().result()
    chat.correct("Another answer").result()
    assert chat.undo() == [2, 3, 4]
    assert chat.engine.adaptation.sha256 == other.engine.adaptation.sha256
    # The conversation goes on where it was before, and so does what is learned from it.
    _say(chat, "Third")
    _say(other, "Third")
    assert chat.engine.adaptation.sha256 == other.engine.adaptation.sha256
    assert chat.undo() == [5]
    assert chat.undo() == [1]
    with pytest.raises(InputError, match="nothing was said yet"):
        chat.undo()
    assert _told(chat) == []


@pytest.mark.jit_only
def test_forget_reaches_all_conversations(open_: Open, home: Path) -> None:
    chat, other = open_("one"), open_("other")
    for talk in (chat, other):
        _say(talk, "The ferry waits.")
        if talk is chat:
            _say(talk, "A WOLVERINE sleeps.")
        talk.reset()
        if talk is chat:
            _say(talk, "Where is the wolverine now?")
        _say(talk, "Good night")
    assert chat.forget(" Wolverine ") == [2, 3]
    assert chat.engine.adaptation.sha256 == other.engine.adaptation.sha256
    assert not any(b"olverine" in blob.lower() for blob in contents(home).values())
    assert all("olverine" not in turn.text.lower() + turn.reply.lower() for turn in chat.turns)
    assert chat.forget("wolverine") == []
    with pytest.raises(InputError, match="say which words to forget"):
        chat.forget(" ")


def test_the_conversation_forgets_it_too(open_: Open) -> None:
    chat = open_()
    _say(chat, "Hello", "A wolverine sleeps.", "What sleeps?")
    chat.forget("wolverine")
    read = chat.engine.tokenizer.decode_bytes(chat._unread).decode(errors="replace")
    assert "Hello" in read
    assert "What sleeps?" in read
    assert "wolverine" not in read
    assert chat.turns[-1].reply == ""  # it may have repeated it
    assert _say(chat, "And now?") is not None


def test_approved_answers_after_what_is_forgotten_go_too(open_: Open) -> None:
    chat = open_()
    _say(chat, "A wolverine sleeps.", "What sleeps?")
    chat.approve().result()
    assert chat.forget("wolverine") == [1, 3]
    assert _told(chat) == [(CHAT, "What sleeps?")]


def test_a_new_conversation(open_: Open) -> None:
    chat = open_()
    _say(chat, "One")
    chat.reset()
    with pytest.raises(InputError, match="nothing was said yet"):
        chat.approve()
    _say(chat, "Two")
    assert [entry.conversation for entry in _entries(chat)] == [1, 2]
    chat = open_()
    _say(chat, "Three")
    assert _entries(chat)[-1].conversation == 3


@pytest.mark.jit_only
def test_which_words_moved_an_answer(open_: Open) -> None:
    chat = open_(max_tokens=12)
    with pytest.raises(InputError, match="no answer to explain"):
        influences_on_reply(chat)
    _say(chat, "The harbour sleeps.", "My boat is called Heron.", "What is my boat called?")
    chat.correct("Your boat is called Heron.").result()
    before = chat.engine.adaptation.sha256
    found = influences_on_reply(chat)
    assert {item.entry.id for item in found} == {1, 2, 3, 4}
    assert [item.bits for item in found] == sorted((item.bits for item in found), reverse=True)
    # The very words, learned as the answer, weigh most; what has nothing to do with it weighs least.
    assert found[0].entry.kind == FIX
    assert found[0].bits > found[-1].bits
    assert all(item.bits == item.bits_slow + item.bits_fast for item in found)
    assert chat.engine.adaptation.sha256 == before


def test_a_chat_that_does_not_learn(open_: Open, home: Path) -> None:
    chat = open_(learn=False)
    _say(chat, "Hello")
    for command in (chat.approve, chat.undo, lambda: chat.correct("x"), lambda: chat.forget("x")):
        with pytest.raises(InputError, match="does not learn"):
            command()
    chat.close()
    assert not home.exists()


def test_an_answer_that_was_cut_off(open_: Open) -> None:
    chat = open_()
    answer = chat.turn("Hello")
    piece = next(answer)
    answer.close()
    assert chat.turns[0].reply == piece
    assert _told(chat) == [(CHAT, "Hello")]
    chat.approve().result()
    assert _told(chat)[-1] == (GOOD, piece)


def _engine_that_learned(tiny_model: Path, profile: str = "default") -> Engine:
    """An engine whose fast memory knows something; nothing more is learned by itself."""
    engine = Engine(EngineOptions(str(tiny_model), profile, seed=3, bank=False), writable=True)
    for text in ("The ferry leaves the island at seven.", "The baker brings warm rolls in a basket."):
        engine.adaptation.learn(engine.adaptation.tell(CHAT, text, conversation=1))
    assert engine.adaptation.memory is not None
    return engine


SUBJECTS = ("ferry", "baker", "captain", "harbour", "basket")


def _turns(number: int) -> list[str]:
    return [f"{SUBJECTS[number % 5]} {number}", f"morning {number * 7 % 13}, {SUBJECTS[number % 3]}"]


def _answers(conversations: list[Conversation], order: str) -> list[list[str]]:
    """The answers of each, turn after turn: one conversation after the other, or interleaved by turn or by piece."""
    answers: list[list[str]] = [[] for _ in conversations]
    if order == "alone":
        for number, conversation in enumerate(conversations):
            answers[number] = ["".join(conversation.turn(text)) for text in _turns(number)]
        return answers
    for turn in range(2):
        pieces = [conversation.turn(_turns(number)[turn]) for number, conversation in enumerate(conversations)]
        if order == "turns":
            for number, generator in enumerate(pieces):
                answers[number].append("".join(generator))
            continue
        said = [""] * len(pieces)
        running = dict(enumerate(pieces))
        while running:
            for number in list(running):
                piece = next(running[number], None)
                if piece is None:
                    del running[number]
                else:
                    said[number] += piece
        for number, text in enumerate(said):
            answers[number].append(text)
    return answers


def test_a_hundred_interleaved_conversations_answer_as_one_after_another(tiny_model: Path, home: Path) -> None:
    sampling = SampleConfig(max_tokens=5)
    with _engine_that_learned(tiny_model) as engine:
        found = {}
        for order in ("alone", "turns", "pieces"):
            conversations = [Conversation(engine, sampling, learn=False) for _ in range(100)]
            for number, conversation in enumerate(conversations):
                conversation.rng = np.random.default_rng(number)
            found[order] = _answers(conversations, order)
            assert {turn.ended for c in conversations for turn in c.turns} <= {*Ended}
    assert found["alone"] == found["turns"] == found["pieces"]
    assert len({text for answers in found["alone"] for text in answers}) > 50


def test_conversations_that_are_told_something_while_learning_is_paused(
    tiny_model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgelm.conversation.SEGMENT_SECONDS", 0)
    found = []
    for order in ("alone", "turns", "pieces"):
        goes_on = Event()
        with _engine_that_learned(tiny_model, order) as engine:
            paused = engine.worker.call(lambda _, goes_on=goes_on: goes_on.wait(60))  # type: ignore[misc]
            conversations = [
                Conversation(engine, SampleConfig(max_tokens=4), learn=True, patient=False) for _ in range(12)
            ]
            found.append(_answers(conversations, order))
            told = [t for c in conversations for t in c.turns]
            numbers = {entry.id: entry.conversation for entry in engine.adaptation.entries}
            assert len({frozenset(numbers[i] for t in c.turns for i in t.entry_ids) for c in conversations}) == 12
            assert all(turn.learning is not None and not turn.learning.done() for turn in told)
            assert sum(entry.kind == CHAT for entry in engine.adaptation.entries) == 2 + len(told)
            goes_on.set()
            paused.result()
            for turn in told:
                assert turn.learning is not None and turn.learning.result() is not None
    assert found[0] == found[1] == found[2]
