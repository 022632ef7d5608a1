"""Makes the bank of exchanges that comes with edgelm, ``edgelm/models/talk/bank.tsv.gz``, of the project's own talk.

    python -m tools.pretrain.bank CORPUS edgelm/models/talk/bank.tsv.gz

The first exchange of each dialogue, for later ones lean on what was said before; a line holds what was said, a tab, and
the reply. The plainest wording comes first where two begin with the same words.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

from tools.pretrain.told import exchanges

SOURCES = ("talk_plain", "talk_facts", "talk_remarks", "talk_threads")
LONGEST_SAID, LONGEST_REPLY = 140, 180


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    found: dict[str, tuple[str, str]] = {}
    for name in SOURCES:
        for said, reply in exchanges(args.corpus, name, first_only=True):
            if len(said) <= LONGEST_SAID and len(reply) <= LONGEST_REPLY and "\t" not in said + reply:
                found.setdefault(said.casefold(), (said, reply))
    text = "".join(f"{said}\t{reply}\n" for _, (said, reply) in sorted(found.items()))
    # No time of day in the file: the same text makes the same bytes.
    args.out.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{len(found):,} exchanges, {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
