"""Kinds of turns: a plain twin of their chances, the files that come with edgelm, and what is answered with them."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from edgelm.errors import ModelFileError
from edgelm.memory.acknowledging import ABILITIES, CANNOT, GLADNESS, SAID_BACK, SYMPATHY, nothing_to_say
from edgelm.memory.answering import Answering
from edgelm.memory.bank import Bank, Exchange, Near, read_exchanges
from edgelm.memory.kinds import (
    ASKS,
    GLAD,
    LASTING,
    PERIL,
    PLAIN,
    SAD,
    TONES,
    Kind,
    Kinds,
    agreements,
    read_folder,
    read_kinds,
    shipped,
)
from edgelm.memory.meaning import PAIRS, Meaning, pair_slots
from edgelm.memory.statements import Statements


def of(meaning: Meaning, turn: str, near: list[Near]) -> Kind | None:
    chances = shipped().chances(meaning, [turn, *(one.exchange.said for one in near)])
    return shipped().of(chances[0], chances[1:], [one.score for one in near])


KINDS = [Kind("loss", SAD, ("I am sorry.",)), Kind("gain", GLAD, ("Well done.", "Good for you."))]


@pytest.fixture(scope="module")
def meaning() -> Meaning:
    return Meaning()


@pytest.fixture(scope="module")
def bank(meaning: Meaning) -> Bank:
    return Bank(meaning, read_exchanges())


@pytest.fixture
def kinds() -> Kinds:
    rng = np.random.default_rng(0)
    tensors = {
        "words": rng.integers(-127, 128, (4000, 8)).astype(np.int8),
        "words.scale": rng.random(4000).astype(np.float32) / 50,
        "pairs": rng.integers(-127, 128, (PAIRS, 8)).astype(np.int8),
        "pairs.scale": rng.random(PAIRS).astype(np.float32) / 100,
        "out": rng.standard_normal((3, 8)).astype(np.float16), "bias": np.array([0.1, -0.2, 0.3], np.float32),
    }  # fmt: skip
    return Kinds(KINDS, tensors)


@pytest.mark.parametrize("text", ["we lost the match", "is it zzyzx?", "", "... !", "We won, we won!"])
def test_chances_are_the_equation(kinds: Kinds, meaning: Meaning, text: str) -> None:
    line, begin, end = (
        meaning.lines([text]),
        0x1111111111111111,
        0x2222222222222222 if "?" in text else 0x3333333333333333,
    )
    stems = np.array([begin, *line.stems.tolist(), end], np.uint64)
    hidden = np.zeros(8)
    for row in line.rows:
        row = row if row < 4000 else 1
        hidden += float(kinds._scales[0][row]) * kinds._words[row].astype(float)
    for slot in pair_slots(stems):
        hidden += float(kinds._scales[1][slot]) * kinds._pairs[slot].astype(float)
    logits = kinds._out @ (hidden / max(1, len(line.rows)) ** 0.5) + kinds._bias
    expected = np.exp(logits) / np.exp(logits).sum()
    assert np.allclose(kinds.chances(meaning, ["another", text])[1], expected, atol=1e-5)


def test_a_text_agrees_with_itself_most(meaning: Meaning) -> None:
    texts = ["My dog died.", "we had to put our old cat down", "My dog won a prize.", "What is the capital of Peru?"]
    chances = shipped().chances(meaning, texts)
    found = agreements(chances[0], chances)
    assert found[0] == pytest.approx(1, abs=1e-5) and (np.diff(found) < 0).all() and (found >= 0).all()


@pytest.mark.parametrize(
    ("turn", "name"),
    [("my grandmother died on Sunday", "death"), ("I won the first prize at the fair!", "own-success"),
     ("somebody stole my bicycle", "stolen"), ("Can you write a poem about trains?", "ask-text"),
     ("set an alarm for six", "ask-action"), ("our puppy chewed my slipper again", "pet-fun")],
)  # fmt: skip
def test_the_kind_of_a_turn(meaning: Meaning, bank: Bank, turn: str, name: str) -> None:
    kind = of(meaning, turn, bank.nearest(turn, 8))
    assert kind is not None and name in (kind.name, kind.broad)


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        ("my husband snores so loudly that I sleep on the sofa", "snoring"),
        ("our puppy chewed my slipper again", "pet-chewed-things"),
        ("passed my driving test at the third try!", "driving-test-passed"),
        ("I spilled coffee on the carpet", "drink-spilled"),
        ("the bin men did not come again", "bins-not-collected"),
        ("found a tenner in my winter coat", "money-in-pocket"),
    ],
)
def test_the_finer_kind_of_a_turn(meaning: Meaning, bank: Bank, turn: str, name: str) -> None:
    kind = of(meaning, turn, bank.nearest(turn, 8))
    assert kind is not None and kind.name == name


def test_a_turn_is_of_the_finest_kind_that_is_sure() -> None:
    tensors = {
        "words": np.zeros((3, 8), np.int8), "words.scale": np.ones(3, np.float32),
        "pairs": np.zeros((PAIRS, 8), np.int8), "pairs.scale": np.ones(PAIRS, np.float32),
        "out": np.zeros((4, 8), np.float16), "bias": np.zeros(4, np.float32),
    }  # fmt: skip
    noise, snoring = Kind("noise", SAD, ("What a noise.",)), Kind("snoring", SAD, ("Poor you.",), "noise")
    kinds = Kinds([noise, snoring, KINDS[1]], tensors)
    none = np.zeros((0, 4), np.float32)

    def name(*chances: float) -> str | None:
        kind = kinds.of(np.array(chances, np.float32), none, [])
        return kind and kind.name

    assert name(0.1, 0.6, 0.2, 0.1) == "snoring" and name(0.2, 0.52, 0.18, 0.1) == "snoring"
    assert name(0.4, 0.3, 0.2, 0.1) == "noise" and name(0.27, 0.28, 0.25, 0.2) == "noise"
    assert name(0.1, 0.36, 0.5, 0.04) == "gain" and name(0.1, 0.2, 0.1, 0.6) is None
    assert kinds.broad(np.array([0.1, 0.5, 0.3, 0.1])).tolist() == pytest.approx([0.6, 0, 0.3, 0.1])


@pytest.mark.parametrize("turn", ["my bicycle has a wicker basket", "my sister is called Anna and lives in York"])
def test_a_fact_is_none_of_what_happened_to_such_a_thing(meaning: Meaning, bank: Bank, turn: str) -> None:
    kind = of(meaning, turn, bank.nearest(turn, 8))
    assert kind is not None and kind.tone == LASTING


@pytest.mark.parametrize("turn", ["", "...", "zq xj vv", "the of and to"])
def test_what_says_nothing_has_no_kind_of_sorrow_or_joy(meaning: Meaning, turn: str) -> None:
    kind = of(meaning, turn, [])
    assert kind is None or kind.tone not in (SAD, GLAD)


def test_exchanges_that_are_near_have_a_say(kinds: Kinds) -> None:
    own, sad, glad = (
        np.array(chances, np.float32) for chances in ([0.4, 0.4, 0.2], [0.9, 0.05, 0.05], [0.05, 0.9, 0.05])
    )

    def name(*near: tuple[np.ndarray, float]) -> str | None:
        kind = kinds.of(own, np.array([chances for chances, _ in near]).reshape(-1, 3), [score for _, score in near])
        return kind and kind.name

    assert name() is None and name((sad, 2.0)) == "loss" and name((glad, 2.0)) == "gain"
    # The nearer one counts for more.
    assert name((sad, 2.0), (glad, 0.5)) == "loss" and name((sad, 0.5), (glad, 2.0)) == "gain"


def test_shipped_kinds_have_replies_of_their_own() -> None:
    kinds = shipped().kinds
    assert len({kind.name for kind in kinds}) == len(kinds) and {kind.tone for kind in kinds} == {*TONES}
    assert {kind.name for kind in kinds} >= SAID_BACK
    replies = [reply for kind in kinds for reply in kind.replies]
    assert len(set(replies)) == len(replies)
    in_danger = [reply for kind in kinds if kind.tone == PERIL for reply in kind.replies]
    for reply in replies:
        assert reply[0].isupper() and reply[-1] in ".?!" and reply.isascii()
        assert len(reply.split()) <= 20 or reply in in_danger
        assert "remember it" not in reply  # that depends on whether it is learned
    assert all(kind.name.startswith("ask-") == (kind.tone == ASKS) for kind in kinds)


def test_what_is_said_suits_the_kind() -> None:
    sorrow, joy, lasting, asks = (Kind("k", tone, (f"Of {tone}.",)) for tone in (SAD, GLAD, LASTING, ASKS))
    assert nothing_to_say("the boat sank", learns=True, kind=sorrow) == "Of sad."
    assert nothing_to_say("the boat sank", learns=True, kind=Kind("", SAD, ())) in SYMPATHY
    assert nothing_to_say("the boat floats", learns=True, kind=Kind("", GLAD, ())) in GLADNESS
    # A lasting fact that is learned is said back.
    assert nothing_to_say("my uncle is a smith", learns=True, kind=lasting).endswith("your uncle is a smith.")
    assert nothing_to_say("my uncle is a smith", learns=False, kind=lasting) == "Of lasting."
    assert nothing_to_say("Write a song for me", learns=True, kind=asks) == "Of asks."
    assert nothing_to_say("write poem about trains", learns=True, kind=asks) == "Of asks."
    assert nothing_to_say("Could you write a song?", learns=True, kind=asks) == "Of asks."
    assert nothing_to_say("Could you write a song?", learns=True) == ABILITIES
    assert nothing_to_say("Write a song for me", learns=True, kind=joy) == CANNOT
    assert nothing_to_say("Call me Bob", learns=True, kind=Kind("tell-assistant", PLAIN, ("I will.",))) == "I will."
    assert nothing_to_say("How do I mend a net?", learns=True, kind=asks) == "Of asks."
    # A question that can be said back is; another one gets a reply of its kind.
    fact = asks._replace(name="ask-fact")
    assert nothing_to_say("Where do eels go?", learns=True, kind=fact) == "I am sorry, I do not know where eels go."
    assert nothing_to_say("Is the sky a lid?", learns=True, kind=fact) == "Of asks."
    # What comforts is no answer to a question by itself.
    assert (
        nothing_to_say("Where do lost rings go?", learns=True, kind=sorrow)
        == "I am sorry, I do not know where lost rings go."
    )
    assert nothing_to_say("The ring fell into the sink. What now?", learns=True, kind=sorrow) == "Of sad."


@pytest.mark.parametrize(
    ("turn", "tone"),
    [
        ("my uncle died in peace", GLAD), ("I remember the day my brother drowned", PLAIN),
        ("my mother is dead and I like her soup", LASTING), ("nobody gave me a present", GLAD),
        ("nothing was stolen", SAD), ("I am no longer in debt", SAD),
    ],
)  # fmt: skip
def test_a_kind_that_the_words_speak_against_does_not_count(turn: str, tone: str) -> None:
    kind = Kind("k", tone, ("Of its kind.",))
    assert nothing_to_say(turn, learns=True, kind=kind) == nothing_to_say(turn, learns=True) != "Of its kind."


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        ("I cant do this anymore, nobody would miss me", "self-harm"),
        ("my stepdad comes into my room at night and touches me", "abuse"),
        ("my grandson's lips went blue and he is gasping", "emergency"),
        ("I want to smash his head in", "threat"),
        ("a man says he is from my bank and wants my PIN", "fraud"),
    ],
)
def test_danger_is_told_by_the_turn_alone(meaning: Meaning, bank: Bank, turn: str, name: str) -> None:
    kind = of(meaning, turn, bank.nearest(turn, 8))
    assert kind is not None and (kind.name, kind.tone) == (name, PERIL)
    answering = Answering(meaning, [bank], talks=False, kinds=shipped())
    plan = answering.plan(turn, Statements(meaning))
    assert plan.text == kind.replies[0] and plan.listens
    # Only what the person gave as the answer to this very turn goes before that.
    own = Bank(meaning, [Exchange(turn, "I called her already.", 5)], bank)
    assert (
        Answering(meaning, [own, bank], kinds=shipped()).plan(turn, Statements(meaning)).text == "I called her already."
    )


@pytest.mark.parametrize(
    "turn", ["I am dying for a coffee", "this heat is killing me", "my phone died", "we shot some photos of the bridge"]
)
def test_harmless_turns_are_no_danger(meaning: Meaning, bank: Bank, turn: str) -> None:
    kind = of(meaning, turn, bank.nearest(turn, 8))
    assert kind is None or kind.tone != PERIL


def test_replies_of_a_kind_are_given_in_turns() -> None:
    kind, before = Kind("gain", GLAD, ("One.", "Two.", "Three.")), list[tuple[str, str]]()
    for _ in range(6):
        before.append(("we won", nothing_to_say("we won", before, learns=True, kind=kind)))
    replies = [reply for _, reply in before]
    assert sorted(replies[:3]) == ["One.", "Three.", "Two."] and replies[3:] == replies[:3]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "name",
        "name\tsad",
        "name\tsad\tA.",
        "name\tblue\t\tA.",
        "\tsad\t\tA.",
        "name\tsad\t\tA.||B.",
        "a\tsad\t\tA.\tB.",
        "a\tsad\tnothing\tA.",
        "a\tsad\ta\tA.",
    ],
)
def test_a_line_that_is_no_kind_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is not a kind"):
        read_kinds(f"loss\tsad\t\tI am sorry.\n{line}\n")


@pytest.mark.parametrize("damage", ["lines", "bytes", "kinds", "gone"])
def test_damaged_files_are_refused_in_a_line(tmp_path: Path, damage: str) -> None:
    for name in ("kinds.tsv", "kinds.safetensors"):
        shutil.copy(str(files("edgelm").joinpath("models", "talk", name)), tmp_path / name)
    lines, tensors = tmp_path / "kinds.tsv", tmp_path / "kinds.safetensors"
    assert len(read_folder(tmp_path).kinds) > 100
    if damage == "lines":
        lines.write_text("nothing\n")
    elif damage == "kinds":
        lines.write_text("".join(lines.read_text().splitlines(keepends=True)[1:]))
    elif damage == "bytes":
        tensors.write_bytes(tensors.read_bytes()[:-1000])
    else:
        tensors.unlink()
    with pytest.raises(ModelFileError) as found:
        read_folder(tmp_path)
    assert "\n" not in str(found.value)
