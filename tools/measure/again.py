"""How much less a passage costs where it was read before: what the model's own memory recalls.

    python -m tools.measure.again FILE... [--model NAME|PATH] [--distances 16 64 256 1024]

Passages A and C of 256 tokens and B of so many as the distance are consecutive; compared are the costs of A in A B A
and in C B A, the mean over eight places of each file. No fast memory, nothing learned.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np

from edgelm.engine.opening import open_session
from edgelm.engine.ort_session import OrtSession
from edgelm.engine.sampler import log_softmax
from edgelm.model import hub
from edgelm.text.tokenizer import DOC_ID

PASSAGE, PLACES = 256, 8


def cost(session: OrtSession, *passages: np.ndarray) -> float:
    """Nats of the last passage, its first token left out, after the others."""
    ids = np.concatenate([[DOC_ID], *passages])
    session.reset()
    n = len(passages[-1]) - 1
    scores = log_softmax(session.run(ids[:-1], len(ids) - 1 - n))
    return -float(scores[np.arange(n), ids[-n:]].sum())


def gain(session: OrtSession, ids: np.ndarray, distance: int) -> float:
    """The share that is saved, over PLACES of a text."""
    first = again = 0.0
    for place in range(PLACES):
        part = ids[place * (2 * PASSAGE + distance) :]
        a, c, b = part[:PASSAGE], part[PASSAGE : 2 * PASSAGE], part[2 * PASSAGE : 2 * PASSAGE + distance]
        first += cost(session, c, b, a)
        again += cost(session, a, b, a)
    return 1 - again / first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--model")
    parser.add_argument("--distances", type=int, nargs="+", default=[16, 64, 256, 1024])
    args = parser.parse_args()
    model = hub.load(args.model)
    session = open_session(model, fixed=True)
    texts = []
    for path in args.files:
        ids = np.array(model.tokenizer.encode_document_lines(path.read_text(encoding="utf-8")))
        texts.append(ids[ids != DOC_ID])
        if len(texts[-1]) < PLACES * (2 * PASSAGE + max(args.distances)):
            parser.error(f"{path} is too short")
    print("| tokens between | " + " | ".join(path.stem for path in args.files) + " | mean |")
    print("|--:|" + "--:|" * (len(texts) + 1))
    for distance in args.distances:
        gains = [gain(session, ids, distance) for ids in texts]
        cells = " | ".join(f"{-value:+.2%}" for value in [*gains, statistics.mean(gains)])
        print(f"| {distance:,} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
