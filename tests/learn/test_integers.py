"""Learning whose products are those of integers goes the way that learning with float32 does, whoever answers."""

from __future__ import annotations

import numpy as np
import pytest

from edgelm.config import LearnConfig
from edgelm.engine.opening import open_session
from edgelm.learn.learner import Learner
from edgelm.matrices.integer_products import IntegerProducts
from edgelm.matrices.quantize import PRECISIONS
from edgelm.matrices.strips import Strips
from edgelm.model.packing import pack, unpack
from edgelm.model.weights import adaptable_names, frozen_matrices
from edgelm.network.section import integer_matrices
from tests.learn.test_learner import SEGMENT, WIDE, identical, text
from tests.tiny import MIXERS, in_memory, random_model


@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize("mixer", MIXERS)
def test_with_activations_of_integers_learning_goes_the_same_way(mixer: str, answers: bool) -> None:
    config, weights = random_model(mixer, **(WIDE | {"slope_dim": 64} if mixer == "mcsd" else WIDE))
    model, exact = in_memory(config, weights), unpack(pack(weights))
    names, before = adaptable_names(config), {name: exact[name].copy() for name in adaptable_names(config)}
    if answers:  # what answers shares its matrices, and what is learned is the same
        for name in integer_matrices(config):
            model.strips(name)
    rms, found = {name: np.full(1, 0.1, np.float32) for name in names}, []
    for operands, base in ((model.operands, model.base()), (exact, before)):
        learner = Learner(config, operands, base, rms, LearnConfig(rate=1, pull=0.1, segment=SEGMENT))
        found.append((learner.learn(text(config)), {n: np.asarray(learner.weights[n]) - before[n] for n in names}))
    made = {name for name, operand in model.operands.items() if isinstance(operand, IntegerProducts | Strips)}
    assert made == frozen_matrices(config) > {config.head}
    assert 0 < np.abs(found[0][0] - found[1][0]).mean() < 0.05 * found[1][0].mean()
    # Of random numbers a router's scores may lie close to 0, and few numbers do not average that out.
    for name in [name for name in names if before[name].size >= config.d_model]:
        one, other = (changes[name].reshape(-1) for _, changes in found)
        assert one @ other > 0.95 * np.linalg.norm(one) * np.linalg.norm(other), name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_learned_does_not_depend_on_who_answers(precision: str) -> None:
    config, weights = random_model(**WIDE)
    rms, found = {name: np.full(1, 0.1, np.float32) for name in adaptable_names(config)}, []
    for answers in (False, True):
        model = in_memory(config, weights, precision)
        if answers:
            open_session(model, engine="kernels", precision="int8")
        learner = Learner(config, model.operands, model.base(), rms, LearnConfig(rate=1, pull=0.1, segment=SEGMENT))
        found.append(
            (learner.learn(text(config)), {name: np.asarray(array) for name, array in model.adaptable.items()})
        )
    assert (found[0][0] == found[1][0]).all() and identical(found[0][1], found[1][1])
