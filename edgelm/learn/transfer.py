"""A learned change that leaves a profile, or begins an empty one.

What leaves is the difference of the weights to the base model, without any words (``export_change``, ``write_change``).
What enters is such a difference, or the log of another profile (``import_file``). A change from outside is measured
before any of it is kept: one that would make general text worse is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelm.errors import ProfileError
from edgelm.learn.adaptation import Adaptation
from edgelm.log.change import GATES, apply_change, misfit, pack_change
from edgelm.log.entry import IMPORT
from edgelm.log.privacy import hidden
from edgelm.log.profile import Profile
from edgelm.model import tensorfile
from edgelm.model.weights import Weights

HARM, HARM_STEPS = 2, 8
"""A change from outside may cost general text this many times what learning may; tokens that are scored at a time."""


def export_change(adaptation: Adaptation, epsilon: float | None = None) -> Weights:
    """The learned change as ``import_change`` reads it.

    Parameters
    ----------
    adaptation : Adaptation
        With nothing pending.
    epsilon : float, optional
        The change is clipped and hidden in noise (``edgelm.log.privacy``).

    Raises
    ------
    ValueError
        ``epsilon`` is out of range.
    ProfileError
        The noise would leave no model that anybody could use.
    """
    config = adaptation.model.config
    changes = pack_change(adaptation.model.adaptable, adaptation.base, config)
    if epsilon is not None:
        changes = hidden(changes, config, epsilon, np.random.default_rng())
        _refuse_harm(adaptation, changes, f"epsilon {epsilon:g}", "nothing is written; a larger one hides less")
    return changes


def write_change(adaptation: Adaptation, path: Path, changes: Weights) -> int:
    """Writes what ``export_change`` returned; returns the bytes of the file."""
    model = adaptation.model
    metadata = {"base": model.identity, "base_name": model.name, "kind": "edgelm learned change"}
    tensorfile.write(path, changes, metadata)
    return path.stat().st_size


def import_file(adaptation: Adaptation, path: Path) -> None:
    """Begins an empty profile with another profile's ``.db``, or with a change; ``catch_up`` is to follow.

    Raises
    ------
    ProfileError
        The profile is not empty, the file does not fit the model, or general text would become worse with it.
    ModelFileError
        The file cannot be read.
    """
    assert adaptation.profile is not None
    if adaptation.entries:
        raise ProfileError(f"profile {adaptation.profile.name!r} is not empty; import into a new one: --profile NAME")
    if path.suffix == ".db":
        import_log(adaptation, path)
    else:
        import_change(adaptation, path)


def import_log(adaptation: Adaptation, path: Path) -> None:
    """Copies the entries of another profile, and none of its weights: those are learned anew, under the guardrail."""
    assert adaptation.profile is not None
    if not path.is_file():
        raise ProfileError(f"{path}: no such file")
    source = Profile(path.absolute().parent, path.stem, adaptation.model, writable=False)
    try:
        adaptation.profile.copy_log(source.entries)
    finally:
        source.close()
    adaptation.load_checkpoint()


def import_change(adaptation: Adaptation, path: Path) -> None:
    """Appends a change that ``write_change`` wrote, as an entry without words, with a checkpoint that holds it."""
    from edgelm.memory.fast_memory import FastMemory

    assert adaptation.profile is not None
    changes, metadata = tensorfile.read(path)
    if metadata.get("base") != adaptation.model.identity:
        beside = " or on other layers" if adaptation.model.layers else ""
        raise ProfileError(f"{path} was learned on another model ({metadata.get('base_name')!r}){beside}")
    _refuse_harm(adaptation, changes, str(path), "it is not imported")
    changes[GATES] = FastMemory(adaptation.model.tokenizer).gates
    adaptation.profile.append(IMPORT, time=adaptation.clock(), note=f"from {path.name}", tensors=changes)
    adaptation.load_checkpoint()


def _refuse_harm(adaptation: Adaptation, changes: Weights, what: str, advice: str) -> None:
    """Raises ``ProfileError`` if tensors are no change, or one that costs general text more than learning may."""
    model, config = adaptation.model, adaptation.config
    if name := misfit(changes, model.config):
        raise ProfileError(f"{what}: damaged at {name!r}")
    from edgelm.learn.guardrail import Guardrail
    from edgelm.network.network import Network

    weights = {name: array.copy() for name, array in model.adaptable.items()}
    apply_change(changes, adaptation.base, weights)
    operands = {**model.operands, **weights}
    guardrail = Guardrail(model.config, model.tokenizer, operands, adaptation.base, config)
    excess = guardrail.excess_of_all(Network(model.config, operands, (), HARM_STEPS, forward_alone=True))
    if not excess < HARM * config.gate_limit:
        cost = f"{excess:.0%} more" if excess < 10 else "many times as much, or nothing that is finite"
        raise ProfileError(f"{what}: with it general text would cost {cost}; {advice}")
