"""Events of the engine, as remarks on stderr with ``--verbose``."""

from __future__ import annotations

from edgelm.cli.options import Common
from edgelm.learn.events import Consolidated, Event, Forgotten, GuardrailChecked, OnEvent, SegmentLearned, ignore


def noting(common: Common, *, wanted: bool = True) -> OnEvent:
    """What tells of events, if ``--verbose`` asks for it and nothing else is drawn on the terminal (``wanted``)."""
    return (lambda event: common.note(describe(event))) if common.verbose and wanted else ignore


def describe(event: Event) -> str:
    """An event in a line."""
    match event:
        case SegmentLearned(tokens, loss_nats, blocks_awake):
            return f"learned a segment: {tokens} tokens, {loss_nats:.2f} nats each before, {blocks_awake} blocks awake"
        case GuardrailChecked(excess, action):
            done = {"kept": "kept", "pulled": "weights pulled towards the base", "restored": "taken back"}[action]
            return f"checked general text: {excess:+.2%}; {done}"
        case Consolidated(entries, steps, complete):
            return f"repeated what was told: {entries} entries, {steps} steps{'' if complete else ', broken off'}"
        case Forgotten(entry_ids):
            return f"forgot entries {', '.join(map(str, entry_ids))}"
