"""Makes the bank of exchanges that comes with edgelm, ``edgelm/models/talk/bank.tsv.gz``, of the project's own talk.

    python -m tools.pretrain.bank CORPUS edgelm/models/talk/bank.tsv.gz [--also FILE...] [--never PROMPTS...]

The first exchange of each dialogue, for later ones lean on what was said before; and of the everyday dialogues
(``tools.pretrain.everyday``) simple questions with their answers, each answer once. A line holds what was said, a tab,
and the reply. Files of ``--also`` have such lines, which take the place of what says the same; of those what is near a
line of ``--never``, on which answers are measured, is left out.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from edgelm.measure.point import read_pairs
from tools.pretrain.told import exchanges, is_question, near, stems

SOURCES, QUESTIONS = ("talk_plain", "talk_facts", "talk_remarks", "talk_threads"), "everyday"
LONGEST_SAID, LONGEST_REPLY, MOST_WORDS = 140, 180, 14
"""Characters; and words of what was said, for hardly anybody says the same in more."""
SAME = 0.6
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


def read_lines(path: Path) -> list[tuple[str, str]]:
    """The exchanges of a file of lines: what was said, a tab, the reply.

    Raises
    ------
    ValueError
        A line is something else.
    """
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or not all(map(str.strip, row)):
            raise ValueError(f"{path}, line {number}: not what was said, a tab and the reply")
    return [(said.strip(), reply.strip()) for said, reply in rows]


def read_prompts(path: Path) -> list[str]:
    """What is said in a file of prompts, one a line, or of pairs (``.jsonl``)."""
    text = path.read_text(encoding="utf-8")
    return [said for said, _ in read_pairs(text, path.name)] if path.suffix == ".jsonl" else text.splitlines()


def plain_words(said: str) -> str:
    """What was said, without signs and capitals; signs of sums stay."""
    words = re.findall(r"\w+|[+*/-](?=\s*\d)", said.casefold().replace("'", "").replace("’", ""))
    return " ".join(words) or said


def in_other_order(said: str, lines: Sequence[set[str]]) -> bool:
    """Whether one of ``lines``, given by their stems, has the share ``SAME`` of the words of both."""
    own = stems(said)
    return bool(own) and any(len(own & other) >= SAME * len(own | other) for other in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--also", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--never", type=Path, nargs="*", default=[], metavar="PROMPTS")
    args = parser.parse_args()
    found: dict[str, tuple[str, str]] = {}
    talk = [pair for name in SOURCES for pair in exchanges(args.corpus, name, first_only=True)]
    also = [pair for path in args.also for pair in read_lines(path)]
    never = [line for path in args.never for line in read_prompts(path)]
    words = [stems(line) for line in never]
    close = near([said for said, _ in talk + also], never)
    kept = [(said, reply) for said, reply in also if said not in close and not in_other_order(said, words)]
    for said, reply in list(reversed(kept)) + talk + simple_questions(args.corpus):
        key = plain_words(said)
        is_short = len(said) <= LONGEST_SAID and len(reply) <= LONGEST_REPLY and key.count(" ") < MOST_WORDS
        if is_short and "\t" not in said + reply:
            found.setdefault(key, (said, reply))
    text = "".join(f"{said}\t{reply}\n" for _, (said, reply) in sorted(found.items()))
    # No time of day in the file: the same text makes the same bytes.
    args.out.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    if also:
        print(f"{len(also) - len(kept):,} of {len(also):,} further ones are near what is measured on, and left out")
    print(f"{len(found):,} exchanges, {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
