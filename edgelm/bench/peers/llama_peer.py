"""llama.cpp on a model of its own: decoding and prefill.

    python -m edgelm.bench.peers.llama_peer --gguf FILE [--seconds S] [--threads N]

Run by ``edgelm bench --compare llama-cpp``; prints one JSON line. Needs the package ``llama-cpp-python``;
nothing is fetched.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import llama_cpp

from edgelm.bench.timing import medians
from edgelm.text.general import rehearsal_text

TEXT_TOKENS = 256
CONTEXT = 1024


def measure(model: llama_cpp.Llama, seconds: float) -> dict[str, float]:
    """Tokens per second."""
    # A file of random weights need not have a vocabulary that knows the text: then it is -1, which no model reads.
    ids = [max(token, 0) for token in model.tokenize(rehearsal_text().encode())[:TEXT_TOKENS]]

    def decode(done: int) -> int:
        if model.n_tokens + 1 >= CONTEXT:
            model.reset()
        model.eval([ids[done % len(ids)]])
        return 1

    def prefill(_: int) -> int:
        model.reset()
        model.eval(ids)
        return len(ids)

    return medians({"prefill": prefill, "decode": decode}, seconds)


def main() -> None:
    """Measures, and prints the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    threads = {"n_threads": args.threads, "n_threads_batch": args.threads}
    model = llama_cpp.Llama(str(args.gguf), n_ctx=CONTEXT, verbose=False, **threads)
    speeds = measure(model, args.seconds)
    print(json.dumps({"version": llama_cpp.__version__, "bytes": args.gguf.stat().st_size, **speeds}))


if __name__ == "__main__":
    main()
