"""PyTorch on the shape and the weights of a model: decoding, and learning what ``edgelm.learn`` learns.

    python -m edgelm.bench.peers.torch_peer [--model NAME|PATH] [--blocks N] [--seconds S] [--threads N]

Run by ``edgelm bench --compare torch``; prints one JSON line. Learning is forward, backward and the same update of
the same tensors, segments of 32. Blocks are computed densely and masked: no operator of PyTorch skips them on a
CPU. The recurrences run the kernels of ``edgelm.kernels``, as in training; of ``learn_alone``, operators of PyTorch, a
segment at a time in the form for GPUs, which is faster than a loop over tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from edgelm.bench.peers.twins.functions import operators_alone
from edgelm.bench.peers.twins.model import Model, document_masks
from edgelm.bench.timing import Step, medians
from edgelm.cells.gated_delta.paper import CONV_WIDTH
from edgelm.config import LearnConfig
from edgelm.model import hub
from edgelm.model.weights import adaptable_names, tensors
from edgelm.text.general import rehearsal_text
from edgelm.text.tokenizer import DOC_ID

TEXT_TOKENS = 1024


def twin(model: hub.Model) -> Model:
    """The model in PyTorch, with weights of its own."""
    made = Model(model.config)
    made.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in model.weights.items()})
    return made


def window_losses(model: Model, ids: Sequence[int], size: int) -> Iterator[Tensor]:
    """Losses in nats of ids, ``size`` at a time; each window is computed with the weights of its moment.

    The state goes on from window to window, without gradients, and is emptied where a document begins.
    """
    stream = torch.tensor([[DOC_ID, *ids]])
    states, carried = model.initial_state(1), torch.ones(1, CONV_WIDTH - 1, dtype=torch.bool)
    for start in range(0, len(ids), size):
        targets = stream[:, start + 1 : start + size + 1]
        inputs = stream[:, start : start + targets.shape[1]]
        starts, same_doc, carried = document_masks(inputs, DOC_ID, carried)
        hidden, states, _ = model(inputs, starts, same_doc, states, model.config.max_awake)
        yield F.cross_entropy(hidden[0] @ model.output_matrix.t(), targets[0], reduction="none")


def decoder(made: Model, ids: Sequence[int]) -> Step:
    """Reads the next token of the text, and computes the logits after it, when called."""
    states, same_doc = made.initial_state(1), torch.ones(1, 1, CONV_WIDTH - 1)
    starts = torch.zeros(1, 1, dtype=torch.bool)

    def step(done: int) -> int:
        nonlocal states
        token = torch.tensor([[ids[done % len(ids)]]])
        with torch.no_grad():
            hidden, states, _ = made(token, starts, same_doc, states, made.config.max_awake)
            F.linear(hidden[:, -1], made.output_matrix)
        return 1

    return step


def learner(made: Model, model: hub.Model, ids: Sequence[int], config: LearnConfig) -> Step:
    """Learns the next segment of the text when called."""
    adaptable = set(adaptable_names(model.config))
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(name in adaptable)
    changed = {name: p for name, p in made.named_parameters() if name in adaptable}
    weights, base = list(changed.values()), [p.detach().clone() for p in changed.values()]
    rates = [_rates(model, name, config) for name in changed]

    def segments() -> Iterator[Tensor]:
        while True:
            yield from window_losses(made, ids, config.segment)

    losses = segments()

    def step(_: int) -> int:
        loss = next(losses)
        (loss.sum() / config.segment).backward()
        with torch.no_grad():
            torch._foreach_lerp_(weights, base, config.pull * len(loss) / config.segment)
            torch._foreach_sub_(weights, torch._foreach_mul([p.grad for p in weights], rates))
        for p in weights:
            p.grad = None
        return len(loss)

    return step


def _rates(model: hub.Model, name: str, config: LearnConfig) -> Tensor:
    """How far a unit of the gradient moves a tensor, to be broadcast over it."""
    steps = torch.from_numpy(config.rate * 1e-3 / (model.grad_rms[name] + 1e-12)).float().reshape(-1)
    spec = tensors(model.config)[name]
    return steps.reshape(-1, *[1] * (len(spec.shape) - 1)) if spec.blocks else steps


def alone(step: Step, chunk: int) -> Step:
    """A step without any kernel of ours; recurrences take ``chunk`` tokens at a time."""

    def step_alone(done: int) -> int:
        with operators_alone(chunk):
            return step(done)

    return step_alone


def _compiled(model: hub.Model) -> Model:
    made = twin(model)
    for layer in made.layers:
        layer.compile()
    return made


def measure(model: hub.Model, seconds: float, *, compiled: bool = True) -> dict[str, float]:
    """Tokens per second of decoding and learning, eager, without our kernels too, and compiled where PyTorch can."""
    ids, config = model.tokenizer.encode(rehearsal_text())[:TEXT_TOKENS], LearnConfig()
    steps = {"decode": decoder(twin(model), ids), "learn_eager": learner(twin(model), model, ids, config)}
    steps["learn_alone"] = alone(learner(twin(model), model, ids, config), config.segment)
    if compiled:
        faster = {
            "decode_compiled": decoder(_compiled(model), ids),
            "learn_compiled": learner(_compiled(model), model, ids, config),
        }
        try:
            # The second call of each may compile once more: its state is no longer the empty one.
            for step in (*faster.values(), *faster.values()):
                step(0)
            steps |= faster
        except Exception as exc:  # there may be no C++ compiler; PyTorch's errors share no base class
            print(f"torch.compile does not work here: {str(exc).splitlines()[0]}", file=sys.stderr)
    return medians(steps, seconds)


def main() -> None:
    """Measures, and prints the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = hub.load(args.model)
    if args.blocks:
        model.config = model.config.resized(max_awake=args.blocks)
    speeds = measure(model, args.seconds, compiled=not args.eager)
    print(json.dumps({"version": torch.__version__, "blocks": "dense", **speeds}))


if __name__ == "__main__":
    main()
