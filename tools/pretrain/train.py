"""Trains a model on token shards, on the CPU or a GPU; stops and resumes at any step.

    python -m tools.pretrain.train SHARDS RUN_DIR --preset small --minutes 100
    python -m tools.pretrain.train SHARDS RUN_DIR --resume
    python -m tools.pretrain.train SHARDS RUN_DIR --begin-from small --lr 2.5e-3 --minutes 100
    python -m tools.pretrain.train SHARDS RUN_DIR --device cuda --batch-size 64 --window 512 --tokens 2e9
    torchrun --nproc-per-node 8 -m tools.pretrain.train SHARDS RUN_DIR --device cuda ...

RUN_DIR receives ``checkpoint.pt`` (replaced atomically), ``log.csv`` and ``loss.png``. A checkpoint continues
on either kind of device. A run of several processes continues with as many; its batch size is that of one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from edgelm.bench.peers.twins.functions import State
from edgelm.bench.peers.twins.model import Model, document_masks
from edgelm.cells.block_ffn.paper import BlockFfn
from edgelm.cells.gated_delta.paper import CONV_WIDTH
from edgelm.cells.rwkv7_channel_mix.paper import Rwkv7ChannelMix
from edgelm.cells.rwkv7_time_mix.paper import Rwkv7TimeMix
from edgelm.model import hub
from edgelm.model.config import PRESETS, ModelConfig
from edgelm.text.tokenizer import DOC_ID
from tools.pretrain.corpus import read_mixture
from tools.pretrain.data import Streams
from tools.pretrain.head import head_loss
from tools.pretrain.log import Log, plot
from tools.pretrain.optim import make_optimizers
from tools.pretrain.parallel import Group
from tools.pretrain.start import begin_from
from tools.pretrain.ternary import Rounding

SHAPES = PRESETS | {
    "nano-rwkv7": ModelConfig(
        512,
        192,
        6,
        Rwkv7TimeMix(192, 1e-5, 3, 64, 32, 32, 16, 64),
        Rwkv7ChannelMix(192, 1e-5, 768),
        norm="layer",
        tied=False,
    ),
}
"""What can be trained by name: the shapes of the project's own models, and RWKV-7 of the size of ``nano``."""
MIXTURE = Path(__file__).with_name("mixture.toml")


@dataclasses.dataclass
class Plan:
    """All that decides a run, kept in its checkpoint."""

    config: ModelConfig
    mixture: dict[str, float]
    batch_size: int
    window: int
    lr: float
    weight_decay: float
    minutes: float
    tokens: float
    target_awake: float
    locality: float
    ema: float
    seed: int
    begun_from: str = ""
    mixer_rate: float = 1.0
    ternary: bool = False

    def progress(self, tokens: int, seconds: float) -> float:
        """How far the run is, 0 to 1, by tokens or by training time, whichever the plan limits."""
        parts = [tokens / self.tokens if self.tokens else 0.0, seconds / 60 / self.minutes if self.minutes else 0.0]
        return min(1.0, max(parts))

    def lr_at(self, progress: float, step: int) -> float:
        """Linear warm-up over 100 steps, then linear decay to 2 % over the rest."""
        return self.lr * min(1.0, (step + 1) / 100) * max(0.02, 1 - progress)

    def awake_target(self, progress: float) -> float:
        """Dense for a tenth of the run, then down to the target share by 35 %; a model taken up is sparse already."""
        if self.begun_from:
            return self.target_awake
        return 1 + (self.target_awake - 1) * min(1.0, max(0.0, (progress - 0.1) / 0.25))


class Trainer:
    """One run: model, optimisers, data streams and their checkpoint.

    Parameters
    ----------
    plan : Plan
    shards, run_dir : Path
    group : Group
        The processes that share the run.
    make_model : callable
        What is trained, from its configuration.
    """

    def __init__(
        self, plan: Plan, shards: Path, run_dir: Path, group: Group, make_model: Callable[[ModelConfig], Model] = Model
    ) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.run_dir, self.group, self.device = plan, run_dir, group, group.device
        self.model = make_model(plan.config).to(self.device)
        self.optimizers = make_optimizers(self.model, plan.lr, plan.weight_decay, plan.mixer_rate)
        self.ema = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        seed = [plan.seed, group.rank] if group.rank else plan.seed
        self.streams = Streams(shards, plan.mixture, plan.batch_size, plan.window, seed)
        self.states = self.model.initial_state(plan.batch_size)
        self.carried = torch.ones(plan.batch_size, CONV_WIDTH - 1, dtype=torch.bool, device=self.device)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self._pressure = torch.tensor(1e-4, device=self.device)
        self.stop_asked = False
        self.drawn = torch.zeros(0)
        self._rounding = Rounding(self.model, plan.config) if plan.ternary else contextlib.nullcontext
        self.awake_by_block = torch.ones(plan.config.n_layers, plan.config.n_blocks, device=self.device)

    def begin_from(self, name: str) -> None:
        """Takes up the weights of a model, by its name or folder; see ``tools.pretrain.start``."""
        other = hub.load(name)
        weights = {tensor: torch.from_numpy(array) for tensor, array in other.weights.items()}
        lacking = begin_from(self.model, self.plan.config, weights, other.config)
        for tensor, parameter in self.model.named_parameters():
            self.ema[tensor].copy_(parameter.detach())
        print(
            f"begun from {name}; anew: {', '.join(sorted({part.split('.', 2)[-1] for part in lacking})) or 'nothing'}"
        )

    @property
    def pressure(self) -> float:
        """How much an awake block costs."""
        return float(self._pressure)

    def progress(self) -> float:
        return self.plan.progress(self.tokens, self.seconds)

    def train_step(self) -> dict[str, Tensor | float]:
        """One optimiser step; returns the row of the log, of which a GPU may not yet have computed all."""
        plan, progress = self.plan, self.progress()
        begun = time.monotonic()
        lr = plan.lr_at(progress, self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("factor", 1.0)
        drawn = self.streams.next_batch()
        batch = torch.from_numpy(drawn.astype("int64"))
        if self.device != "cpu":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        ids, targets = batch[:, :-1], batch[:, 1:]
        self.drawn = ids
        starts, same_doc, self.carried = document_masks(ids, DOC_ID, self.carried)
        target = plan.awake_target(progress)
        # The cap comes once the router is nearly sparse by itself.
        is_dense = progress <= 0.3 and not plan.begun_from
        max_awake = plan.config.n_blocks if is_dense else plan.config.max_awake
        with self._rounding():
            loss, states, a = self._gradients(ids, targets, (starts, same_doc), max_awake, target)
        awake_by_block = (a > 0).float().mean((1, 2)).expand_as(self.awake_by_block).contiguous()
        loss_nats = loss
        self.seconds += time.monotonic() - begun
        if self.group.size > 1:
            shared = [p.grad for p in self.model.parameters() if p.grad is not None] + [awake_by_block]
            # The clock and the wish to stop are shared too: they decide the rate and the end for all.
            means = self.group.average(shared, [float(loss_nats), self.seconds, float(self.stop_asked)])
            loss_nats, self.seconds, self.stop_asked = torch.tensor(means[0]), means[1], means[2] > 0
        begun = time.monotonic()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        awake = awake_by_block.mean()
        self._steer(awake, target, awake_by_block)
        self.states = states
        shadow = list(self.ema.values())
        torch._foreach_lerp_(
            shadow, [p.detach() for p in self.model.parameters()], 1 - min(plan.ema, self.step / (self.step + 10))
        )
        self.step += 1
        self.tokens += ids.numel() * self.group.size
        dead = (self.awake_by_block < 1e-3).sum()
        if self.device != "cpu" and self.step % 10 == 0:
            torch.cuda.synchronize()  # what was asked for so far is done: the clock and the log mean it
        self.seconds += time.monotonic() - begun
        return {
            "loss_nats": loss_nats,
            "bits_per_byte": loss_nats / math.log(2) / self.streams.bytes_per_token(drawn[:, 1:]),
            "awake": awake,
            "dead_blocks": dead,
            "pressure": self._pressure,
            "lr": lr,
        }

    def _gradients(
        self, ids: Tensor, targets: Tensor, masks: tuple[Tensor, Tensor], max_awake: int, target: float
    ) -> tuple[Tensor, list[State], Tensor]:
        """Loss in nats, the states after, and the activations a [L,B,T,M]; every parameter has its gradient then."""
        plan = self.plan
        with torch.autocast(ids.device.type, dtype=torch.bfloat16):
            hidden, states, activations = self.model(ids, *masks, self.states, max_awake)
            loss = head_loss(hidden, self.model.output_matrix, targets)
        a = torch.stack(activations)
        total = loss + self.model.extra_loss()
        if target < 1:
            total = total + self._pressure * a.mean() * plan.config.n_blocks
            if plan.locality:
                # Soft on/off patterns of neighbouring tokens should agree (after BlockFFN's locality loss).
                # It also puts blocks to sleep, so it fades as the pressure does when too few are awake.
                pattern = torch.tanh(a)
                weight = plan.locality * (self._pressure / 1e-4).clamp(max=1.0)
                total = total + weight * (pattern[:, :, 1:] - pattern[:, :, :-1]).abs().mean()
        total.backward()
        return loss.detach(), states, a.detach()

    @torch.no_grad()
    def _steer(self, awake: Tensor, target: float, awake_by_block: Tensor) -> None:
        # ReMoE's controller (arXiv 2412.14711): pressure times m when too dense, divided by m when too sparse.
        if target < 1:
            self._pressure = (self._pressure * torch.where(awake > target, 1.02, 1 / 1.02)).clamp(1e-6, 1.0)
        # Blocks that never wake get a nudge, so that none dies.
        self.awake_by_block.lerp_(awake_by_block, 0.02)
        for layer, share in zip(self.model.layers, self.awake_by_block, strict=True):
            if isinstance(getattr(layer.ffn, "router_bias", None), Tensor):
                layer.ffn.router_bias.add_((share < 2e-3).float(), alpha=1e-2)

    def save(self) -> None:
        """Writes the checkpoint; the old one stays until the new one is complete."""
        own = {"streams": json.dumps(self.streams.state()), "states": self.states, "carried": self.carried}
        ranks = self.group.gather(own)
        if not ranks:
            return
        plan = dataclasses.asdict(self.plan) | {"config": self.plan.config.to_dict()}
        state = {
            "plan": json.dumps(plan),
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "ranks": ranks,
            "awake_by_block": self.awake_by_block,
            "counters": [self.step, self.tokens, self.seconds, self.pressure],
        }
        temporary = self.run_dir / "checkpoint.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self.run_dir / "checkpoint.pt")

    def load(self, state: dict) -> None:  # type: ignore[type-arg]
        """Continues from a checkpoint.

        Raises
        ------
        ValueError
            It was written by another number of processes.
        """
        # Before several processes could share a run, a checkpoint held the streams of its only one.
        ranks = state.get("ranks", [state])
        if len(ranks) != self.group.size:
            raise ValueError(f"this run is one of {len(ranks)} processes, not {self.group.size}")
        self.model.load_state_dict(state["model"])
        self.ema = state["ema"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        own = ranks[self.group.rank]
        self.streams.load_state(json.loads(own["streams"]))
        self.states = [{n: t.to(self.device) for n, t in part.items()} for part in own["states"]]
        self.carried = own["carried"].to(self.device)
        self.awake_by_block = state["awake_by_block"]
        self.step, self.tokens, self.seconds, pressure = state["counters"]
        self._pressure = torch.tensor(pressure, device=self.device)


def run(trainer: Trainer, save_minutes: float | None, max_steps: int) -> None:
    """Trains to the end of the plan; SIGINT and SIGTERM save and stop, all processes after the same step.

    Without ``save_minutes`` nothing is saved.
    """

    def ask_to_stop(*_: object) -> None:
        trainer.stop_asked = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    last_save = trainer.seconds
    with Log(trainer) as log:
        while trainer.progress() < 1 and not trainer.stop_asked and not (max_steps and trainer.step >= max_steps):
            log.add(trainer.train_step())
            if save_minutes is not None and trainer.seconds - last_save > save_minutes * 60:
                trainer.save()
                last_save = trainer.seconds
    if save_minutes is not None:
        trainer.save()


def make_plan(args: argparse.Namespace) -> Plan:
    """The plan that the command line asks for."""
    config = SHAPES[args.preset]
    if args.vocab_size:
        config = config.resized(vocab_size=args.vocab_size)
    # Only a router can be pressed to wake fewer blocks.
    target_awake = args.target_awake if isinstance(config.ffn, BlockFfn) else 1.0
    return Plan(
        config, read_mixture(args.mixture or MIXTURE), args.batch_size, args.window, args.lr, args.weight_decay,
        args.minutes, args.tokens, target_awake, args.locality, args.ema, args.seed, args.begin_from or "",
        ternary=args.ternary,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--preset", choices=sorted(SHAPES), default="small")
    parser.add_argument("--vocab-size", type=int, default=0, help="default: the preset's")
    parser.add_argument("--mixture", type=Path, help="default: mixture.toml, or that of the run resumed")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--lr", type=float, default=6e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--minutes", type=float, default=0, help="training time of the whole run")
    parser.add_argument("--tokens", type=float, default=0, help="tokens of the whole run")
    parser.add_argument("--target-awake", type=float, default=0.22)
    parser.add_argument("--locality", type=float, default=0.05)
    parser.add_argument("--ema", type=float, default=0.99)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-steps", type=int, default=0, help="stop after this step, to continue later")
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument("--begin-from", metavar="MODEL", help="a model whose weights the run begins with")
    parser.add_argument("--ternary", action="store_true", help="matrices of -1, 0 and 1 times a scale (ternary.py)")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    args.run_dir.mkdir(parents=True, exist_ok=True)
    saved = None
    if args.resume:
        saved = torch.load(args.run_dir / "checkpoint.pt", weights_only=True, map_location=args.device)
        fields = json.loads(saved["plan"])
        plan = Plan(**(fields | {"config": ModelConfig.from_dict(fields["config"])}))
        plan.minutes, plan.tokens = args.minutes or plan.minutes, args.tokens or plan.tokens
        plan.mixture = read_mixture(args.mixture) if args.mixture else plan.mixture
    else:
        if not (args.minutes or args.tokens):
            parser.error("give --minutes or --tokens")
        plan = make_plan(args)
    group = Group(args.device)
    trainer = Trainer(plan, args.shards, args.run_dir, group)
    if saved:
        trainer.load(saved)
    elif args.begin_from:
        trainer.begin_from(args.begin_from)
    if not args.no_compile:
        for layer in trainer.model.layers:
            layer.compile()
    run(trainer, args.save_minutes, args.max_steps)
    if group.rank == 0:
        plot(args.run_dir)
    group.close()


if __name__ == "__main__":
    main()
