"""Makes the bank of exchanges that comes with edgelm, ``edgelm/models/talk/bank.tsv.gz``, of the project's own talk.

    python -m tools.pretrain.bank CORPUS edgelm/models/talk/bank.tsv.gz

The first exchange of each dialogue, for later ones lean on what was said before; and of the everyday dialogues
(``tools.pretrain.everyday``) simple questions with their answers, each answer once. A line holds what was said, a tab,
and the reply.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections import Counter, defaultdict
from pathlib import Path

from tools.pretrain.told import exchanges, is_question

SOURCES, QUESTIONS = ("talk_plain", "talk_facts", "talk_remarks", "talk_threads"), "everyday"
LONGEST_SAID, LONGEST_REPLY = 140, 180
OF_SOMEBODY = re.compile(r"\b(?:I|I'm|I've|I'll|you|your|my|me|we|our|mi|name|edgelm)\b", re.IGNORECASE)
"""Where these words stand, question or answer is about the two who talk."""

OPERATION = re.compile(r"\b(?:plus|minus|times|divided)\b")


def simple_questions(corpus: Path) -> list[tuple[str, str]]:
    """Questions about the world with their answers, each answer once, with the question that was asked most often."""
    asked: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for said, reply in exchanges(corpus, QUESTIONS):
        if is_question(said) and said[0].isupper() and "?" in said and not OF_SOMEBODY.search(said + " " + reply):
            # "What is eight and six?" may mean another operation than its answer names.
            operation = OPERATION.search(reply)
            if operation is None or operation[0] in said:
                asked[reply][said] += 1
    return [(min(forms, key=lambda said: (-forms[said], len(said), said)), reply) for reply, forms in asked.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    found: dict[str, tuple[str, str]] = {}
    talk = [pair for name in SOURCES for pair in exchanges(args.corpus, name, first_only=True)]
    for said, reply in talk + simple_questions(args.corpus):
        if len(said) <= LONGEST_SAID and len(reply) <= LONGEST_REPLY and "\t" not in said + reply:
            found.setdefault(said.casefold(), (said, reply))
    text = "".join(f"{said}\t{reply}\n" for _, (said, reply) in sorted(found.items()))
    # No time of day in the file: the same text makes the same bytes.
    args.out.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{len(found):,} exchanges, {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
