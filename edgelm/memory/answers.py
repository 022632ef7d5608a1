"""Answers that the person corrected, word for word.

Neither memory can promise that a corrected answer is given when the same is asked again: one step of the weights
seldom turns an answer round, and recall looks for sentences that share words with the question, as an answer need not.
So the pair is kept. Asked in the same words, whatever their case, signs and short forms, the model is led
through the answer id by id, the end-of-document id last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from edgelm.memory.reading import REACH
from edgelm.text.template import USUAL, Template

REACHES = (64, REACH)
"""Tokens of a question and its answer that are looked at: mostly the first number is enough, and this is done for every
token of an answer."""
_SHORT_FORMS = {"can't": "can not", "cannot": "can not", "won't": "will not", "n't": " not", "'s": " is", "'re": " are"}
_SHORT_FORMS |= {"'m": " am", "'ve": " have", "'ll": " will", "'d": " would"}
_ASKS = {"what", "who", "whom", "whose", "where", "when", "why", "how", "which", "is", "are", "am", "was", "were"}
_ASKS |= {"do", "does", "did", "can", "could", "will", "would", "tell"}
_SHORT = re.compile("|".join(_SHORT_FORMS) + r"\b")


class Given(NamedTuple):
    """What follows in an answer that is known: the next id, where it was learned, the tokens before the reply, and the
    words of the turn that it answers."""

    id: int
    at: int
    asked: Sequence[int]
    words: str


class Answers:
    """What shall be answered to which words.

    Parameters
    ----------
    spelled : sequence of bytes
        The spelling of each id.
    template : Template
        How conversations are written.
    """

    def __init__(self, spelled: Sequence[bytes], template: Template = USUAL) -> None:
        self._spelled, self._template = spelled, template
        self._reply = (template.turn_end + template.reply_prompt()).encode()
        self._known: dict[str, tuple[list[int], int]] = {}

    def copy(self) -> Answers:
        """The same answers, to which others can be added."""
        twin = Answers(self._spelled, self._template)
        twin._known = dict(self._known)
        return twin

    def learn(self, ids: Sequence[int], at: int) -> None:
        """Of a turn of the person and its answer, the ids [n]; ``at`` is handed back with the answer.

        A later answer to the same words takes the place of an earlier one.
        """
        if (parts := self._split(ids)) is not None:
            self._known[parts[2]] = ([*parts[1], self._template.document_id], at)

    def find(self, history: Sequence[int]) -> Given | None:
        """What follows ``history``, where that is the same question and the beginning of its answer."""
        if not self._known or (parts := self._split(history)) is None:
            return None
        asked, reply, words = parts
        answer, at = self._known.get(words, ([], 0))
        if len(reply) >= len(answer) or answer[: len(reply)] != reply:
            return None
        return Given(answer[len(reply)], at, asked, words)

    def tells(self, ids: Sequence[int], asked: str) -> bool:
        """Whether a sentence tells something, rather than asking, or saying the words ``asked`` another way.

        People often leave the question mark out.
        """
        words = _words(b"".join(self._spelled[i] for i in ids).decode(errors="replace"))
        return words not in ("", asked) and words.split()[0] not in _ASKS

    def _split(self, ids: Sequence[int]) -> tuple[list[int], list[int], str] | None:
        """(ids up to the reply, ids of the reply, words of the turn before it)."""
        for reach in REACHES:
            last = list(ids[-reach:])
            spelled = [self._spelled[i] for i in last]
            asked, label, _ = b"".join(spelled).rpartition(self._reply)
            _, user, turn = asked.decode(errors="replace").rpartition(self._template.user_prompt)
            ends = list(accumulate(map(len, spelled)))
            if label and user and (end := len(asked) + len(label)) in ends:
                n_asked = ends.index(end) + 1
                return last[:n_asked], last[n_asked:], _words(turn)
        return None


def _words(turn: str) -> str:
    """A turn without what does not change its sense: case, signs, short forms."""
    plain = _SHORT.sub(lambda found: _SHORT_FORMS[found[0]], turn.casefold().replace("’", "'"))
    return " ".join(re.findall(r"\w+", plain)) or turn.strip()
