"""The fast memory: a proper distribution, exact recall, corrections, bounded size, the same after a rebuild."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgelm
from edgelm.kernels.recall import DEPTH, recall_read
from edgelm.memory.fast_memory import FastMemory
from edgelm.memory.gates import GATES, GUESSES
from edgelm.memory.reading import REACH, Reading
from edgelm.text.opening import open_tokenizer
from edgelm.text.template import USUAL

V = 50


class Spelled:
    """A tokenizer of 50 ids: signs, words, and pieces of words."""

    vocab_size = V

    def decode_bytes(self, ids: list[int]) -> bytes:
        spelled = [b"<|doc|>\n", b".", b"\n", b"?", b":", b"s", b" not"]
        spelled += [b" word%d" % i for i in range(7, 30)] + [b"piece%d" % i for i in range(30, V)]
        return b"".join(spelled[i] for i in ids)


def fast_memory(rows: int = 1 << 10, stored: int = 1 << 10) -> FastMemory:
    return FastMemory(Spelled(), rows, stored)  # type: ignore[arg-type]


def text(seed: int, length: int) -> np.ndarray:
    """An entry with much repetition, as people write."""
    rng = np.random.default_rng(seed)
    few = rng.choice([1, 2, 8, 9, 31, 10, 5, 4], length - length // 4)
    return np.concatenate([[0], rng.integers(1, V, length // 4), few])


def model(seed: int = 9) -> np.ndarray:
    p = np.random.default_rng(seed).random(V)
    return p / p.sum()


def guesses(memory: FastMemory, history: np.ndarray) -> bool:
    """Whether the sentences recalled for a reply match nothing of the end of the text."""
    read = recall_read(history, len(history), True, DEPTH, memory._store, memory._vocab, memory._workspace)
    return bool(read[2] < GUESSES)


@pytest.mark.parametrize("as_reply", [False, True])
def test_the_mixture_is_a_distribution_and_predict_agrees_with_it(as_reply: bool) -> None:
    memory, p0 = fast_memory(), model()
    for seed in range(4):
        memory.learn(text(seed, 100), 1, np.full(100, 1 / V))
    ids = text(2, 100)
    for t in range(3, 100, 7):
        p = memory.mix(Reading(ids[:t].tolist()), p0, as_reply)
        assert p.sum() == pytest.approx(1, abs=1e-12)
        assert (p >= 0).all()
        if as_reply and guesses(memory, ids[:t]):
            continue  # generation goes its own way there
        for target in (ids[t], 1, 31):
            whole = np.array([*ids[:t], target])
            assert memory.predict(whole, t, p0[[target]], as_reply)[0] == pytest.approx(p[target], rel=1e-9)


def test_learning_predicts_with_the_mixture_and_trusts_as_it_does() -> None:
    memory, ids, p0 = fast_memory(), text(0, 120), model()
    reading = Reading()
    for t in range(1, len(ids)):
        reading.advance([int(ids[t - 1])])
        p = memory.mix(reading, p0)
        assert p.sum() == pytest.approx(1, abs=1e-12)
        assert memory.learn(ids[: t + 1], t, p0[[ids[t]]])[0] == pytest.approx(p[ids[t]], rel=1e-9)


def test_segments_are_learned_as_the_whole_is() -> None:
    whole, parts, ids = fast_memory(), fast_memory(), text(1, 90)
    p = whole.learn(ids, 1, np.full(90, 1 / V))
    learned = [parts.learn(ids[: start + 30], start, np.full(30, 1 / V)) for start in (1, 31, 61)]
    np.testing.assert_array_equal(p, np.concatenate(learned))
    np.testing.assert_array_equal(whole.gates, parts.gates)


def test_what_was_seen_often_outlives_a_flood_of_what_was_seen_once() -> None:
    rng, memory = np.random.default_rng(0), fast_memory(rows=1 << 8, stored=1 << 8)
    habit = np.array([0, 9, 10, 11, 12, 13])
    for _ in range(6):
        memory.learn(habit, 1, np.full(5, 1 / V))
    before = memory.predict(habit, 1, np.full(5, 1 / V))
    for _ in range(40):  # more contexts than there are rows, none of which says what follows those of the habit
        other = np.concatenate([[0], rng.integers(14, V, 30)])
        memory.learn(other, 1, np.full(30, 1 / V))
    memory.gates[:, :, 0] = 0.5  # what is kept counts here, not how far it is trusted
    after = memory.predict(habit, 1, np.full(5, 1 / V))
    assert (before[1:] > 2 / V).all()
    assert (after[1:] > 10 / V).all()


def test_an_empty_memory_changes_nothing() -> None:
    np.testing.assert_array_equal(fast_memory().mix(Reading([0, 3, 4]), model()), model())
    np.testing.assert_array_equal(fast_memory().predict(np.array([0, 3]), 1, model()[:1]), model()[:1])


def test_what_was_said_once_is_expected_the_next_time() -> None:
    memory, p0 = fast_memory(), np.full(V, 1 / V)
    said = np.array([0, 7, 8, 9, 10, 11])
    memory.learn(said, 1, p0[said[1:]])
    assert memory.mix(Reading([0, 30, 7, 8, 9, 10]), p0).argmax() == 11
    assert memory.mix(Reading([0, 7, 8]), p0)[9] > 5 / V


def test_a_text_of_noise_costs_little_more_than_under_the_model_alone() -> None:
    memory, rng = fast_memory(), np.random.default_rng(1)
    noise = np.concatenate([[0], rng.integers(1, V, 1500)])
    p = memory.learn(noise, 1, np.full(1500, 1 / V))
    assert -np.log(p).mean() < 1.02 * np.log(V)


def test_foreign_text_costs_what_it_costs_the_model() -> None:
    memory, rng = fast_memory(1 << 12, 1 << 12), np.random.default_rng(4)
    habit = np.tile([7, 8, 9, 10, 1], 8)
    for _ in range(5):
        own = np.concatenate([[0], *([w, *habit] for w in rng.integers(11, 30, 3))])
        memory.learn(own, 1, np.full(len(own) - 1, 1 / V))
    foreign = np.concatenate([[0], rng.integers(1, V, 400)])
    cost = -np.log(memory.predict(foreign, 1, np.full(400, 1 / V)))
    # The beginning tells that it is foreign; from then on there is next to nothing to pay.
    assert cost.mean() < 1.01 * np.log(V)
    assert cost[200:].mean() < 1.004 * np.log(V)


def test_prediction_learns_nothing() -> None:
    memory, ids = fast_memory(), text(2, 60)
    memory.learn(ids, 1, np.full(60, 1 / V))
    before, after, twin = state(memory), memory.mix(Reading(ids[:50].tolist()), model()), memory.copy()
    memory.predict(ids, 1, np.full(60, 1 / V))
    memory.mix(Reading(ids[:9].tolist()), model())
    assert state(memory) == before
    np.testing.assert_array_equal(after, memory.mix(Reading(ids[:50].tolist()), model()))
    more = text(3, 30)
    twin.learn(more, 1, np.full(30, 1 / V))
    assert state(memory) == before
    assert state(twin) != before
    np.testing.assert_array_equal(memory.learn(more, 1, np.full(30, 1 / V)), fresh_copy(more))


def fresh_copy(more: np.ndarray) -> np.ndarray:
    """What a memory with the same past as in the test above gives."""
    memory, ids = fast_memory(), text(2, 60)
    memory.learn(ids, 1, np.full(60, 1 / V))
    return memory.copy().learn(more, 1, np.full(30, 1 / V))


def state(memory: FastMemory) -> list[bytes]:
    """All that is learned, to the last bit."""
    return [array.tobytes() for array in (*memory._tables, *memory._store, memory.gates)]


def test_a_rebuilt_memory_is_the_same() -> None:
    memory, entries = fast_memory(), [text(seed, 60) for seed in range(5)]
    for ids in entries:
        for start in range(1, 61, 30):  # segment by segment, as the learner does
            memory.learn(ids[: start + 30], start, np.full(30, 1 / V))
    again = fast_memory()
    again.rebuild(entries[:2])
    again.rebuild(entries[2:])
    assert state(memory)[:-1] == state(again)[:-1]
    np.testing.assert_array_equal(again.gates, fast_memory().gates)
    again.gates[:] = memory.gates
    for cut in (1, 17, 50):
        history = entries[3][:cut].tolist()
        np.testing.assert_array_equal(memory.mix(Reading(history), model()), again.mix(Reading(history), model()))


def test_the_size_is_bounded_and_old_sentences_drop_out() -> None:
    memory, rng = fast_memory(1 << 6, 1 << 8), np.random.default_rng(5)
    size = memory.nbytes
    said = np.array([0, 20, 21, 22, 1])
    for seed in range(8):
        memory.learn(said, 1, np.full(4, 1 / V))
        ids = np.concatenate([[0], rng.integers(1, V, 120)])
        p = memory.learn(ids, 1, np.full(120, 1 / V))
        assert np.isfinite(np.log(p)).all()
        assert memory.mix(Reading(text(seed, 40).tolist()), model()).sum() == pytest.approx(1, abs=1e-12)
    assert memory.nbytes == size
    assert FastMemory(Spelled()).nbytes <= 20e6  # type: ignore[arg-type]


def test_the_gates_have_the_shape_and_the_bounds_that_profiles_rely_on() -> None:
    memory = fast_memory()
    memory.learn(text(0, 200), 1, np.full(200, 1 / V))
    assert memory.gates.shape == GATES
    assert memory.gates.dtype == np.float64
    assert np.isfinite(memory.gates).all()
    assert (memory.gates[..., 0] >= 0).all()
    assert (memory.gates[..., 0] <= 1).all()
    np.testing.assert_array_equal(memory.gates[1], fast_memory().gates[1])  # a person's words do not teach replies


TOKENIZER = open_tokenizer(Path(edgelm.__file__).parent / "models" / "small" / "tokenizer.json")
NAMES = ("Petra", "Jonas", "Nadia", "Tobias")
KIN = ("aunt", "cousin", "neighbour")
TOWNS = ("Lindau", "Trieste", "Bergen", "Ghent", "Porto", "Oulu", "Graz", "Tartu", "Turin", "Nantes", "Siena", "Basel")
FACTS = {(kin, name): TOWNS[i * 3 + j] for i, name in enumerate(NAMES) for j, kin in enumerate(KIN)}


def tell(memory: FastMemory, said: str) -> None:
    ids = np.array([0, *TOKENIZER.encode(f" {said}\n")])
    memory.learn(ids, 1, np.full(len(ids) - 1, 1e-3))


def best(memory: FastMemory, prompt: str, *, as_reply: bool) -> str:
    """The town that is expected most after a prompt, by a model that expects nothing."""
    head, scores = [0, *TOKENIZER.encode(prompt)], {}
    for town in TOWNS:
        tail = TOKENIZER.encode(f" {town}")
        p = memory.predict(np.array([*head, *tail]), len(head), np.full(len(tail), 1e-3), as_reply)
        scores[town] = float(np.log(p).sum())
    return max(scores, key=lambda town: scores[town])


@pytest.fixture(scope="module")
def told() -> FastMemory:
    """Every fact said once."""
    memory = FastMemory(TOKENIZER, 1 << 12, 1 << 12)
    for (kin, name), town in FACTS.items():
        tell(memory, f"My {kin} {name} lives in {town}.")
    return memory


def question(kin: str, name: str) -> str:
    return USUAL.user_turn(f"Where does my {kin} {name} live?") + USUAL.reply_prompt()


@pytest.mark.jit_only
def test_facts_told_once_are_recalled(told: FastMemory) -> None:
    for (kin, name), town in FACTS.items():
        assert best(told, f"My {kin} {name} lives in", as_reply=False) == town
        assert best(told, question(kin, name), as_reply=True) == town
        assert best(told, question(kin, name) + f" Your {kin} {name} lives in", as_reply=True) == town
        assert (
            best(
                told,
                USUAL.user_turn(f"Which town is {name}, my {kin}, at home in?") + USUAL.reply_prompt(),
                as_reply=True,
            )
            == town
        )


@pytest.mark.jit_only
def test_a_word_is_known_however_it_is_cut_into_tokens(told: FastMemory) -> None:
    assert TOKENIZER.encode(" Tobias")[:1] != TOKENIZER.encode("Tobias")[:1]
    assert best(told, "Tobias, my cousin, lives in", as_reply=False) == FACTS["cousin", "Tobias"]


@pytest.mark.jit_only
def test_the_question_itself_is_no_answer(told: FastMemory) -> None:
    memory = told.copy()
    for _ in range(3):
        tell(memory, "Where does my aunt Petra live?")
    assert best(memory, question("aunt", "Petra"), as_reply=True) == "Lindau"
    p = memory.mix(Reading([0, *TOKENIZER.encode(question("aunt", "Petra"))]), np.full(4096, 1 / 4096), as_reply=True)
    assert p.argmax() == TOKENIZER.encode(" Lindau")[0]


@pytest.mark.parametrize(
    "said", ["My aunt Petra lives in Oulu now.", "Actually, my aunt Petra lives in Oulu.",
             "No, my aunt Petra lives in Oulu, not in Lindau."]
)  # fmt: skip
@pytest.mark.jit_only
def test_a_correction_holds_and_disturbs_nothing_else(told: FastMemory, said: str) -> None:
    memory = told.copy()
    tell(memory, said)
    for (kin, name), town in FACTS.items():
        expected = "Oulu" if (kin, name) == ("aunt", "Petra") else town
        assert best(memory, f"My {kin} {name} lives in", as_reply=False) == expected
        assert best(memory, question(kin, name), as_reply=True) == expected
    assert best(told, question("aunt", "Petra"), as_reply=True) == "Lindau"


@pytest.mark.jit_only
def test_other_questions_are_left_to_the_model(told: FastMemory) -> None:
    flat = np.full(4096, 1 / 4096)
    for asked in ("What shall I cook tonight?", "How do bridges stay up?", "I live near the sea."):
        p = told.mix(
            Reading([0, *TOKENIZER.encode(USUAL.user_turn(asked) + USUAL.reply_prompt())]), flat, as_reply=True
        )
        assert p.max() < 0.05


@pytest.mark.jit_only
def test_a_corrected_answer_is_given_until_something_newer_is_told(told: FastMemory) -> None:
    memory, asked = told.copy(), question("aunt", "Petra")
    ids = np.array([0, *TOKENIZER.encode(asked + " In Turin, with you.\n")])
    memory.learn(ids, 1, np.full(len(ids) - 1, 1e-3))
    memory.correct(ids)
    head, flat = TOKENIZER.encode(asked), np.full(4096, 1 / 4096)
    for t in range(1 + len(head), len(ids)):
        p = memory.mix(Reading(ids[:t].tolist()), flat, as_reply=True)
        assert p[ids[t]] > 0.98
        assert p.sum() == pytest.approx(1)
    whole = memory.predict(ids, 1 + len(head), np.full(len(ids) - 1 - len(head), 1e-3), as_reply=True)
    assert (whole > 0.98).all()
    assert best(memory, question("cousin", "Petra"), as_reply=True) == FACTS["cousin", "Petra"]
    assert memory.predict(ids, 1 + len(head), whole * 0 + 1e-3)[0] < 0.9
    for again in ("Where does my aunt Petra live?", "where's my aunt Petra living", "where is my aunt Petra now"):
        tell(memory, again)
        assert memory.mix(Reading(ids[: 1 + len(head)].tolist()), flat, as_reply=True)[ids[1 + len(head)]] > 0.98
    tell(memory, "My aunt Petra lives in Oulu now.")
    assert best(memory, asked, as_reply=True) == "Oulu"
    assert memory.mix(Reading(ids[: 1 + len(head)].tolist()), flat, as_reply=True)[ids[1 + len(head)]] < 0.9


def test_the_largest_vocabulary_whose_ids_fit_16_bits() -> None:
    class Many:
        vocab_size = 1 << 16

        def decode_bytes(self, ids: list[int]) -> bytes:
            return b"".join(b" word%d" % i for i in ids)

    memory, flat = FastMemory(Many(), 1 << 10, 1 << 10), np.full(1 << 16, 2.0**-16)  # type: ignore[arg-type]
    ids = np.array([0, 65535, 40000, 65534, 65535, 40000])
    memory.learn(ids, 1, flat[:5])
    p = memory.mix(Reading([0, 65535, 40000]), flat)
    assert p.argmax() == 65534 and p.sum() == pytest.approx(1, abs=1e-9)
    assert memory.mix(Reading([0, 40000, 65534]), flat).argmax() == 65535


@pytest.mark.parametrize("as_reply", [False, True])
def test_texts_that_are_read_in_turns_know_nothing_of_each_other(as_reply: bool) -> None:
    memory, p0 = fast_memory(), model()
    for seed in range(3):
        memory.learn(text(seed, 100), 1, np.full(100, 1 / V))
    texts = [text(seed, 60).tolist() for seed in range(20)]

    def alone(ids: list[int]) -> list[np.ndarray]:
        reading, found = Reading(), []
        for token_id in ids:
            reading.advance([token_id])
            found.append(memory.mix(reading, p0, as_reply))
        return found

    expected = [alone(ids) for ids in texts]
    readings = [Reading() for _ in texts]
    for t in range(60):
        for ids, reading, found in zip(texts, readings, expected, strict=True):
            reading.advance([ids[t]])
            np.testing.assert_array_equal(memory.mix(reading, p0, as_reply), found[t])


def test_trust_begins_anew_where_several_tokens_were_read_at_once() -> None:
    memory, p0, ids = fast_memory(), model(), text(0, 60).tolist()
    memory.learn(text(0, 100), 1, np.full(100, 1 / V))
    reading = Reading()
    for token_id in ids[:40]:
        reading.advance([token_id])
        trusted = memory.mix(reading, p0)
    np.testing.assert_array_equal(memory.mix(reading, p0), memory.mix(Reading(ids[:40]), p0))
    assert (trusted != memory.mix(Reading(ids[:40]), p0)).any()
    reading.advance(ids[40:50])
    np.testing.assert_array_equal(memory.mix(reading, p0), memory.mix(Reading(ids[:50]), p0))


def test_a_reading_keeps_what_is_looked_back_upon() -> None:
    ids, reading = list(range(5000)), Reading()
    for start in range(0, 5000, 7):
        reading.advance(ids[start : start + 7])
        assert reading.ids[-REACH:] == ids[: start + 7][-REACH:]
        assert len(reading.ids) <= 2 * REACH
    assert Reading(ids).ids == ids[-REACH:]


def test_a_tokenizer_is_spelled_out_once() -> None:
    class Counting(Spelled):
        asked = 0

        def decode_bytes(self, ids: list[int]) -> bytes:
            self.asked += 1
            return super().decode_bytes(ids)

    tokenizer = Counting()
    memories = [FastMemory(tokenizer, 1 << 10, 1 << 10) for _ in range(3)]  # type: ignore[arg-type]
    for memory in memories:
        memory.learn(text(0, 50), 1, np.full(50, 1 / V))
        memory.mix(Reading([0, 3, 4]), model())
    assert tokenizer.asked == V
