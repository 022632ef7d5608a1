"""Blanks, against every word of a tiny language whose probabilities are a table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from edgelm.engine import fill
from edgelm.engine.fill import Blank, fill_blank
from edgelm.engine.generate import Mix
from edgelm.engine.sampler import log_softmax
from edgelm.engine.session import Snapshot
from edgelm.engine.suggest import split_begun, suggest_words
from edgelm.errors import InputError
from edgelm.text.tokenizer import Tokenizer

SPELLED = [" a", " b", " c", "d", "e", ".", " ", ",", "a", "\n", " ab", "f", "b"]
V = len(SPELLED) + 1
DOC, A, B, C, D, E, DOT = range(7)


class Longest(Tokenizer):
    """Cuts a text into its longest tokens from the left."""

    def __init__(self, spelled: Sequence[str] = SPELLED) -> None:
        super().__init__([piece.encode() for piece in spelled])
        self.read: list[str] = []

    def encode(self, text: str) -> list[int]:
        self.read.append(text)
        ids = []
        while text:
            fits = [i for i in range(1, self.vocab_size) if text.startswith(self.decode([i]))]
            ids.append(max(fits, key=lambda i: len(self.decode([i]))))
            text = text[len(self.decode(ids[-1:])) :]
        return ids


class TableSession:
    """Logits [V, V, V] by the last two tokens; it counts the tokens that it reads."""

    def __init__(self, logits: np.ndarray) -> None:
        self.logits, self.vocab_size, self.state_bytes = logits, len(logits), 16
        self.n_read = 0
        self.reset()

    def run(self, ids: np.ndarray, first_logit: int | None = None) -> np.ndarray:
        self.n_read += len(ids)
        rows = []
        for token_id in ids:
            self._last = np.array([self._last[1], token_id])
            rows.append(self.logits[tuple(self._last)])
        return np.array(rows[len(ids) - 1 if first_logit is None else first_logit :])

    def observe(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def reset(self) -> None:
        self._last = np.array([0, 0])

    def snapshot(self) -> Snapshot:
        return [self._last.copy()]

    def restore(self, snapshot: Snapshot) -> None:
        self._last = snapshot[0].copy()


def random_session(seed: int, vocab_size: int = V) -> TableSession:
    return TableSession(np.random.default_rng(seed).normal(0, 1.5, (vocab_size,) * 3))


def slow_score(session: TableSession, before: list[int], ids: list[int], mix: Mix | None = None) -> float:
    """Log-probability of ``ids``, a token at a time from the table."""
    whole, total = [0, *before, *ids], 0.0
    for t in range(len(before) + 1, len(whole)):
        last = whole[t - 2 : t] if t > 1 else [0, whole[t - 1]]
        p = np.exp(log_softmax(session.logits[tuple(last)]))
        if mix is not None:
            p = mix(whole[:t], p)
        total += float(np.log(p[whole[t]]))
    return total


def words(firsts: Sequence[str], inner: Sequence[str], longest: int) -> list[str]:
    """Every word of at most so many tokens."""
    return [first + "".join(rest) for first in firsts for n in range(longest) for rest in product(inner, repeat=n)]


def favours(token_id: int) -> Mix:
    """A memory that knows what comes after ' b'; it is given the whole text, as ``slow_score`` does."""

    def mix(read: Sequence[int], p: np.ndarray) -> np.ndarray:
        if read[-1] == B:
            p = 0.05 * p
            p[token_id] += 0.95
        return p

    return mix


def remembering(token_id: int) -> Mix:
    """The same, given what was read since it was last asked."""
    whole: list[int] = []

    def mix(new_ids: Sequence[int], p: np.ndarray) -> np.ndarray:
        whole.extend(new_ids)
        assert whole[0] == DOC
        return favours(token_id)(whole, p)

    return mix


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """So much is searched that no word of three tokens is left out."""
    monkeypatch.setattr(fill, "STEPS", 600)
    monkeypatch.setattr(fill, "CANDIDATES", 600)


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("with_memory", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_order_is_that_of_all_words(seed: int, with_memory: bool) -> None:
    session, tokenizer = random_session(seed), Longest()
    blank = Blank.find(" b c [...] c, a.")
    new_mix = {"new_mix": lambda: remembering(D)} if with_memory else {}
    fills = fill_blank(session, tokenizer, blank, 40, max_words=1, **new_mix)
    before = tokenizer.encode(" b c")
    every = words([" a", " b", " c", " ab"], ["d", "e", "a", "f", "b"], 3)
    mix = favours(D) if with_memory else None
    slow = {w[1:]: slow_score(session, before, tokenizer.encode(w + " c, a."), mix) for w in every}
    expected = sorted(slow.items(), key=lambda item: -item[1])
    found = [(text, value) for text, value in fills if text in slow]  # and some are longer
    assert len(found) >= 10
    assert [text for text, _ in found] == [text for text, _ in expected][: len(found)]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected][: len(found)])


@pytest.mark.usefixtures("everything")
def test_what_stands_after_decides() -> None:
    logits = np.zeros((V, V, V))
    logits[:, C, A] = 9.0  # after " c" comes " a", as far as one can see from the left
    logits[:, C, B] = 5.0
    logits[:, B, DOT] = 9.0  # a full stop follows " b", and hardly " a"
    logits[:, A, DOT] = -9.0
    session, tokenizer = TableSession(logits), Longest()
    assert suggest_words(session, tokenizer, [0, *tokenizer.encode(" c")], 1)[0][0] == "a"
    assert fill_blank(session, tokenizer, Blank(" c ", "."), 1, max_words=1)[0][0] == "b"
    assert fill_blank(session, tokenizer, Blank(" c ", " c"), 1, max_words=1)[0][0] == "a"


def test_the_text_before_is_read_once_and_little_of_that_after(monkeypatch: pytest.MonkeyPatch) -> None:
    session, tokenizer = random_session(1), Longest()
    fill_blank(session, tokenizer, Blank(" a" * 5000 + " ", " b"), 1)
    assert session.n_read < 5000 + fill.STEPS + fill.CANDIDATES * 10
    session.n_read, tokenizer.read = 0, []
    fill_blank(session, tokenizer, Blank(" a ", " b" * 5000), 1)
    assert session.n_read <= 2 + fill.STEPS + fill.CANDIDATES * (fill.AFTER_TOKENS + fill.STEPS)
    assert max(map(len, tokenizer.read)) <= fill.AFTER_CHARS
    # What stands further on than is read changes nothing.
    shorter = Blank(" a ", " b" * fill.AFTER_TOKENS)
    assert fill_blank(session, tokenizer, Blank(" a ", " b" * 5000), 5) == fill_blank(session, tokenizer, shorter, 5)


@pytest.mark.usefixtures("everything")
def test_nothing_after_the_blank() -> None:
    session, tokenizer = random_session(2), Longest()
    for after in ("", "  "):
        fills = dict(fill_blank(session, tokenizer, Blank(" a b ", after), 5, max_words=1))
        ids = [0, *tokenizer.encode(" a b")]
        alone = dict(suggest_words(session, tokenizer, ids, 5))
        assert list(fills) == list(alone)
        assert list(np.exp(list(fills.values()))) == pytest.approx(list(alone.values()), rel=0.05)


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize(
    ("text", "first", "whole"),
    [
        ("[...] b.", {"a", "b", "d", "e", "f"}, ""),  # no space where a text begins
        (" a\n[...] b.", {"a", "b", "d", "e", "f"}, ""),
        (" a.[...] b.", {"a", "b", "d", "e", "f"}, ""),
        (" a. [...] b.", {"a", "b", "c"}, " "),
        (" a[...] b.", {"d", "e", "a", "f", "b", " "}, " a"),  # goes on a word: also " ab", and " a c"
    ],
)
def test_the_seam_before(text: str, first: set[str], whole: str) -> None:
    session, tokenizer, blank = random_session(3), Longest(), Blank.find(text)
    stem, begins = split_begun(blank.before)
    assert (stem + begins, begins) == (blank.before, whole)
    fills = fill_blank(session, tokenizer, blank, 2000, max_words=2)
    assert {found[0] for found, _ in fills} == first
    for found, value in fills[:20]:
        # Scored as the filled text is spelled, whatever tokens the search came along.
        assert blank.filled(found) == stem + begins + found + blank.after
        ids = tokenizer.encode(begins + found + blank.after)
        assert value == pytest.approx(slow_score(session, tokenizer.encode(stem), ids))
    assert all(found.strip() for found, _ in fills)


@pytest.mark.usefixtures("everything")
def test_the_seam_after() -> None:
    session, tokenizer = random_session(4), Longest()
    # The blank's " a" and the text's "b" are one token of the vocabulary.
    fills = dict(fill_blank(session, tokenizer, Blank(" c ", "bd."), 2000, max_words=1))
    assert tokenizer.encode(" abd.") == [11, D, DOT]
    assert fills["a"] == pytest.approx(slow_score(session, [C], [11, D, DOT]))


def test_words_of_a_fill() -> None:
    logits = np.full((V, V, V), -3.0)
    logits[:, C, A], logits[:, A, B], logits[:, B, C], logits[:, C, DOT] = 3.0, 3.0, 2.0, 2.0
    session, tokenizer = TableSession(logits), Longest()
    fills = {n: fill_blank(session, tokenizer, Blank(" c ", " c."), 9, max_words=n) for n in (1, 2, 3)}
    assert fills[2][0][0] == "a b"
    assert {n: max(text.count(" ") + 1 for text, _ in rows) for n, rows in fills.items()} == {1: 1, 2: 2, 3: 3}


def test_where_the_blank_is() -> None:
    assert Blank.find("a [...]b") == Blank("a ", "b")
    assert Blank("a ", "b").filled("x") == "a xb"
    for text in ("", "a ...", "[...] a [...]", "[...]", "\n [...] "):
        with pytest.raises(InputError, match=r"\[\.\.\.\]"):
            Blank.find(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("the fer", ("the", " fer")),
        ("the ", ("the", " ")),
        ("the  ", ("the ", " ")),
        ("the,", ("the,", "")),
        ("the\n", ("the\n", "")),
        ("fer", ("", "fer")),
        ("I don't", ("I", " don't")),
        ("'don", ("'", "don")),
        ("I don'", ("I don'", "")),
        ("well-", ("well-", "")),
        ("in 19", ("in", " 19")),
        ("今天天", ("今天天", "")),
        ("x" * 41, ("x" * 41, "")),
        ("", ("", "")),
    ],
)
def test_what_is_begun(text: str, parts: tuple[str, str]) -> None:
    assert split_begun(text) == parts


@pytest.mark.parametrize("seed", range(3))
def test_words_that_are_begun(seed: int) -> None:
    session, tokenizer = random_session(seed), Longest()
    ids = [0, *tokenizer.encode(" c")]
    for begins in (" ab", " ad", "de"):
        found = suggest_words(session, tokenizer, ids, 5, begins=begins)
        assert found
        assert all(word.startswith(begins.strip()) for word, _ in found)
    # " ab" is one token, and " a" does not go on with " b".
    word, value = suggest_words(session, tokenizer, ids, 1, begins=" ab")[0]
    spelled = tokenizer.encode(f" {word}")
    ends = [i for i in range(V) if i in (DOC, A, B, C, DOT, 7, 8, 10, 11)]
    last = [0, *ids, *spelled][-2:]
    over = np.exp(log_softmax(session.logits[tuple(last)]))[ends].sum()
    assert value == pytest.approx(float(np.exp(slow_score(session, [C], spelled))) * over)
