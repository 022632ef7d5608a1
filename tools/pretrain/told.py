"""What talk says about telling and asking: exchanges, and questions with the earlier turn that answers them."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.pretrain.corpus import read_documents

TURN = re.compile(r"(User|Assistant): (.*)")
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+")
NEVER = re.compile(
    r"you (have|did)(n't| not) (told|tell|said|say|mention)|not told me|never told|you never (said|told)|"
    r"I do not know (that|your|who|what|where|when|how)|not (said|mentioned)", re.IGNORECASE,
)  # fmt: skip
ASKS = frozenset([
    "what", "who", "whom", "whose", "where", "when", "why", "how", "which", "is", "are", "am", "was", "were",
    "do", "does", "did", "can", "could", "will", "would", "tell", "remind", "say", "remember",
])  # fmt: skip
RARE, ENOUGH = 3.5, 5.0
"""Nats that a word must tell to count, and that an answer and a turn must share."""
COMMON, NEAR, SHARED = 120, 0.5, 3
"""So many of the most frequent stems do not count when texts are compared; and the share, and the number, of the others
from which on a text is near another one."""


@dataclass(frozen=True)
class Told:
    """A question, the earlier turn that holds its answer, the answer, the person's other turns before it, and how many
    exchanges stand between."""

    asked: str
    told: str
    answer: str
    others: list[str]
    distance: int


@dataclass
class Memory:
    """Questions that were answered from what was told, and questions about what never was, with their answers."""

    told: list[Told] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    never_answers: list[tuple[list[str], str]] = field(default_factory=list)


def dialogues(corpus: Path, name: str) -> Iterator[list[tuple[str, str]]]:
    """The dialogues of a source, each a list of (label, text); further lines of a turn are joined to it."""
    for document in read_documents(corpus, name):
        turns: list[tuple[str, str]] = []
        for line in document.splitlines():
            if found := TURN.match(line):
                turns.append((found[1], found[2]))
            elif turns:
                turns[-1] = (turns[-1][0], f"{turns[-1][1]} {line}")
        if turns:
            yield turns


def exchanges(corpus: Path, name: str, *, first_only: bool = False) -> Iterator[tuple[str, str]]:
    """What the person said and what was answered, of every exchange or of the first one of each dialogue."""
    for turns in dialogues(corpus, name):
        for (label, said), (other, reply) in itertools.pairwise(turns):
            if (label, other) == ("User", "Assistant") and said.strip() and reply.strip():
                yield said[:200], reply[:200]
                if first_only:
                    break


def stem(word: str) -> str:
    """A word without the ending of a plural or a possessive."""
    word = word.removesuffix("'s")
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def stems(text: str) -> set[str]:
    """The stems of a text."""
    return {stem(word) for word in WORD.findall(text.lower().replace("’", "'"))}


def near(texts: Sequence[str], lines: Iterable[str]) -> set[str]:
    """Those of ``texts`` that share with one of ``lines`` at least ``SHARED`` stems, and the share ``NEAR`` of those of
    the shorter one; the ``COMMON`` most frequent stems of ``texts`` do not count."""
    words = {text: stems(text) for text in texts}
    common = {stem for stem, _ in Counter(stem for found in words.values() for stem in found).most_common(COMMON)}
    lists = [stems(line) - common for line in lines]
    holders: dict[str, list[int]] = {}
    for i, found in enumerate(lists):
        for stem in found:
            holders.setdefault(stem, []).append(i)

    def is_near(own: set[str]) -> bool:
        shared = Counter(i for stem in own for i in holders.get(stem, ()))
        return any(n >= SHARED and n >= NEAR * min(len(own), len(lists[i])) for i, n in shared.items())

    return {text for text, found in words.items() if is_near(found - common)}


def is_question(text: str) -> bool:
    """Whether a turn asks: it holds a question mark or begins as questions do."""
    words = WORD.findall(text.lower())
    return "?" in text or bool(words and words[0] in ASKS)


def told_and_asked(corpus: Path, name: str = "talk_memory") -> Memory:
    """Of each question that comes late in a dialogue the turn that shares most rare words with its answer."""
    talk = list(dialogues(corpus, name))
    seen: Counter[str] = Counter()
    for turns in talk:
        for _, text in turns:
            seen.update(stems(text))
    n_turns, memory = sum(map(len, talk)), Memory()

    def worth(words: set[str]) -> float:
        told = (math.log(n_turns / (1 + seen[word])) for word in words)
        return sum(nats for nats in told if nats > RARE)

    for turns in talk:
        for i in range(3, len(turns)):
            (label, answer), asked = turns[i], turns[i - 1][1]
            if label != "Assistant" or not is_question(asked):
                continue
            said = [(j, text) for j, (who, text) in enumerate(turns[: i - 1]) if who == "User"]
            if NEVER.search(answer):
                memory.never.append(asked)
                memory.never_answers.append(([text for _, text in said], answer))
            elif said:
                news = stems(answer) - stems(asked)
                shared, at = max((worth(news & stems(text)), j) for j, text in said)
                if shared >= ENOUGH:
                    others = [text for j, text in said if j != at]
                    memory.told.append(Told(asked, turns[at][1], answer, others, (i - 1 - at) // 2))
    return memory
