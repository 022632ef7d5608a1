"""Asks the forty prompts of ``prompts.txt``, each in a new chat, and prints the answers as a table.

    python -m tools.measure.talk [--no-bank] [--model NAME|PATH] [--prompts FILE] [--seed 1]

The answers are those of the whole program, or with ``--no-bank`` those of the model alone; nothing is learned. The
prompts are kept out of all training text (``tools.pretrain.data --never``); those of ``prompts_later.txt`` were written
when nobody could write dialogues for them any more. Whether an answer is grammatical and on the topic is for a reader
to say; counted are the answers that repeat themselves.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from edgelm.config import SampleConfig
from edgelm.conversation import Conversation
from edgelm.runtime import Engine, EngineOptions

PROMPTS = Path(__file__).with_name("prompts.txt")


def repeats(text: str, run: int = 4) -> bool:
    """Whether a run of so many words occurs twice in a text: a loop."""
    words = text.lower().split()
    runs = [tuple(words[i : i + run]) for i in range(len(words) - run + 1)]
    return len(set(runs)) < len(runs)


def ask(engine: Engine, prompts: list[str], seed: int) -> list[tuple[str, str]]:
    """Each prompt with the answer in a new chat, a generator of the same seed for each."""
    talk, rows = Conversation(engine, SampleConfig(), learn=False), []
    for prompt in prompts:
        talk.reset()
        talk.rng = np.random.default_rng(seed)
        rows.append((prompt, "".join(talk.turn(prompt))))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--prompts", type=Path, default=PROMPTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-bank", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    prompts = args.prompts.read_text(encoding="utf-8").splitlines()
    with Engine(EngineOptions(args.model, bank=not args.no_bank), use_profile=False, fixed=True) as engine:
        rows = ask(engine, prompts, args.seed)
    if args.json:
        print(json.dumps([{"prompt": prompt, "answer": answer, "loop": repeats(answer)} for prompt, answer in rows]))
        return
    print("| person | answer |\n|---|---|")
    for prompt, answer in rows:
        print(f"| {prompt} | {' '.join(answer.split())} |")
    print(f"\nAnswers that repeat themselves: {sum(repeats(answer) for _, answer in rows)} of {len(rows)}.")


if __name__ == "__main__":
    main()
