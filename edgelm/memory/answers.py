"""Answers that the person corrected, word for word.

Neither the weights nor recall can promise that a corrected answer is given when the same is asked again: one step of
the weights seldom changes a whole answer, and recall looks for sentences that share words with the question, which an
answer need not do. So the question and the answer are kept as a pair. When the same words are asked again, whatever
their case, punctuation and short forms, the answer is predicted id by id, the end-of-document id last.
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
    """A corrected answer, as far as it concerns the next id.

    Parameters
    ----------
    id : int
        The next id of the answer.
    at : int
        What ``Answers.learn`` was given: how many tokens recall had stored when the answer was learned.
    asked : sequence of int
        The last tokens up to the reply, its label included: the question as recall is to see it.
    words : str
        The question in the form that is compared: without case, punctuation and short forms.
    """

    id: int
    at: int
    asked: Sequence[int]
    words: str


class Answers:
    """The corrected answers by the words of the question, whatever their case, punctuation and short forms.

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
        """An independent copy: what is learned by one of them, the other does not know."""
        twin = Answers(self._spelled, self._template)
        twin._known = dict(self._known)
        return twin

    def learn(self, ids: Sequence[int], at: int) -> None:
        """Keeps the answer in ``ids`` [n], which hold a turn of the person and the reply to it.

        It replaces an earlier answer to the same words. Nothing happens if the ids hold no turn followed by a reply, or
        if the label of the reply is not within the last ``REACH`` ids. ``at`` is kept with the answer and returned by
        ``find``.
        """
        if (parts := self._split(ids)) is not None:
            self._known[parts[2]] = ([*parts[1], self._template.document_id], at)

    def find(self, history: Sequence[int]) -> Given | None:
        """The next id of the known answer to the last turn in ``history``, with what belongs to it.

        ``history`` ends with the label of a reply, after which the beginning of the reply may stand. None if no answer
        to that turn is known, if the reply differs from it in any id, or if the reply is complete.
        """
        if not self._known or (parts := self._split(history)) is None:
            return None
        asked, reply, words = parts
        answer, at = self._known.get(words, ([], 0))
        if len(reply) >= len(answer) or answer[: len(reply)] != reply:
            return None
        return Given(answer[len(reply)], at, asked, words)

    def tells(self, ids: Sequence[int], asked: str) -> bool:
        """Whether the sentence ``ids`` states something: it is neither a question nor the words ``asked`` again.

        People often leave the question mark out, so a sentence counts as a question by its first word. ``asked`` is in
        the form of ``Given.words``.
        """
        words = _words(b"".join(self._spelled[i] for i in ids).decode(errors="replace"))
        return words not in ("", asked) and words.split()[0] not in _ASKS

    def _split(self, ids: Sequence[int]) -> tuple[list[int], list[int], str] | None:
        """Splits ``ids`` at the last reply: (ids up to it, its label included; its ids; words of the turn before).

        Ids before the last ``REACH`` are not looked at, so the first part may begin late. None if there is no such
        reply.
        """
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
    """The words of a turn without case, punctuation and short forms; the turn itself if it has no words."""
    plain = _SHORT.sub(lambda found: _SHORT_FORMS[found[0]], turn.casefold().replace("’", "'"))
    return " ".join(re.findall(r"\w+", plain)) or turn.strip()
