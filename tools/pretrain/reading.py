"""Makes dialogues in which the assistant reads something before it answers, in the forms in which the runtime gives it.

    python -m tools.pretrain.reading CORPUS

Writes ``CORPUS/reminded.txt``: statements of the person, as ``edgelm.memory.reminder.reminder_text`` puts them, then a
question that one of them answers, or none does; and ``CORPUS/neighbours.txt``: the exchanges of the bank that are
nearest to a remark (never its own), then the remark and its reply.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgelm.memory.answering import NOT_TOLD
from edgelm.memory.bank import Bank, Exchange
from edgelm.memory.meaning import Meaning
from edgelm.memory.reminder import REMEMBERED
from edgelm.text.template import USUAL
from edgelm.text.tokenizer import DOC_LINE
from tools.pretrain.told import Memory, exchanges, told_and_asked

SOURCES = ("talk_plain", "talk_remarks", "talk_facts")
LONGEST = 160
"""Characters of a statement that is read."""
OF_ME = re.compile(r"\b(my|i|me|we|our)\b", re.IGNORECASE)


def reminders(statements: list[str]) -> str:
    """Statements as the runtime puts them before a question."""
    return "".join(USUAL.user_turn(text) + USUAL.assistant_turn(REMEMBERED) for text in statements)


def exchange(said: str, reply: str) -> str:
    """One exchange."""
    return USUAL.user_turn(said) + USUAL.assistant_turn(reply)


def reminded(memory: Memory, talk: list[tuple[str, str]], rng: np.random.Generator) -> Iterator[str]:
    """Questions after the statement that answers them, often with another one beside it, and after others alone."""
    known = [told.told for told in memory.told if len(told.told) < LONGEST]

    def some(texts: list[str]) -> str:
        return texts[int(rng.integers(len(texts)))]

    for told in memory.told * 2:
        given = [told.told]
        if rng.random() < 0.45:
            near = [text for text in told.others if len(text) < LONGEST] if rng.random() < 0.5 else known
            given.insert(int(rng.integers(2)), some(near or known))
        between = exchange(*talk[int(rng.integers(len(talk)))]) if rng.random() < 0.25 else ""
        yield reminders(given) + between + exchange(told.asked, told.answer)
    for asked, (said, answer) in list(zip(memory.never, memory.never_answers, strict=True)) * 6:
        near = [text for text in said if len(text) < LONGEST]
        given = [some(near or known)] if rng.random() < 0.6 else []
        yield reminders(given) + exchange(asked, answer if rng.random() < 0.6 else NOT_TOLD)
    of_me = [told.asked for told in memory.told if told.distance <= 3 and OF_ME.search(told.asked)]
    for index in rng.permutation(len(of_me))[:2000]:
        yield reminders([some(known)] if rng.random() < 0.6 else []) + exchange(of_me[index], NOT_TOLD)
    for index in rng.permutation(len(talk))[:3000]:
        yield reminders([some(known)]) + exchange(*talk[index])


def neighbours(talk: list[tuple[str, str]], rng: np.random.Generator) -> Iterator[str]:
    """Remarks after the exchanges nearest to them; some after one that has nothing to do with them."""
    bank = Bank(Meaning(), [Exchange(said, reply) for said, reply in talk])
    for said, reply in talk:
        found = [
            near.exchange
            for near in bank.nearest(said, 3)
            if (near.exchange.said, near.exchange.reply) != (said, reply)
        ]
        chosen = found[: int(rng.integers(1, 3))]
        if rng.random() < 0.15:
            chosen = [bank.exchanges[int(rng.integers(len(talk)))]]
        yield "".join(exchange(e.said, e.reply) for e in reversed(chosen)) + exchange(said, reply)


def write(path: Path, documents: Iterator[str], rng: np.random.Generator) -> None:
    """Writes documents in another order."""
    made = list(documents)
    path.write_text(f"{DOC_LINE}\n".join(made[i] for i in rng.permutation(len(made))), encoding="utf-8")
    print(f"{path}: {len(made):,} dialogues", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    talk = [pair for name in SOURCES for pair in exchanges(args.corpus, name, first_only=True)]
    write(args.corpus / "reminded.txt", reminded(told_and_asked(args.corpus), talk, rng), rng)
    write(args.corpus / "neighbours.txt", neighbours(talk, rng), rng)


if __name__ == "__main__":
    main()
