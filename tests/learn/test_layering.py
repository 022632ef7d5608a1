"""Layers beneath a log: another base, on which the same log has one outcome, and nothing when they are gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelm.config import LearnConfig
from edgelm.errors import ModelFileError, ProfileError
from edgelm.learn.adaptation import Adaptation
from edgelm.learn.layering import check_layers, general_cost, set_layers
from edgelm.log.entry import CHAT, CHECKPOINT, CONSOLIDATION
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.model.layers import Layer, identity
from tests.learn.acts import DAY, LIVELY, Act, Open, close, perform, perform_without, random_acts
from tests.learn.packed import random_changes
from tests.model_folder import write_tiny_model

pytestmark = pytest.mark.jit_only


def _layers(adaptation: Adaptation, *seeds: int) -> list[Layer]:
    return [Layer(f"layer-{i}", f"{i:064x}", random_changes(adaptation.model, i)) for i in seeds]


def _with(adaptation: Adaptation, layers: list[Layer], *, aside: bool = False) -> str:
    set_layers(adaptation, layers)
    adaptation.catch_up(aside=aside)
    return adaptation.sha256


def _reopened(model: Path, folder: Path, name: str, layers: list[Layer], config: LearnConfig) -> Adaptation:
    """The same profile as another process opens it."""
    loaded = hub.load(str(model))
    loaded.set_layers(layers)
    return Adaptation(loaded, Profile(folder, name, loaded, writable=True), config, lambda: 0.0)


@pytest.mark.parametrize("config", [LearnConfig(), LIVELY], ids=["usual", "lively"])
def test_what_goes_leaves_nothing(open_: Open, tiny_model: Path, tmp_path: Path, config: LearnConfig) -> None:
    adaptation = open_("me", config)
    perform(adaptation, DAY)
    before = adaptation.sha256
    sea, hill = _layers(adaptation, 1, 2)
    found = {
        names: _with(adaptation, layers, aside=bool(aside))
        for aside, (names, layers) in enumerate({"sea": [sea], "both": [sea, hill], "hill": [hill]}.items())
    }
    assert len({before, *found.values()}) == 4
    assert _with(adaptation, [sea]) == found["sea"]
    assert adaptation.profile is not None
    assert [layer.name for layer in adaptation.profile.layers] == ["layer-1"]
    # A process that opens it finds the same, from the log and from a checkpoint.
    for write in (True, False):
        if write:
            adaptation.write_checkpoint()
            found["sea"] = adaptation.sha256
        close(adaptation)
        adaptation = _reopened(tiny_model, tmp_path / "profiles", "me", [sea], config)
        assert bool(adaptation.pending) != write
        adaptation.catch_up()
        assert adaptation.sha256 == found["sea"]
        if write:
            for path in (tmp_path / "profiles").glob("me.weights-*"):
                path.unlink()
    close(adaptation)
    again = open_("again", config)
    perform(again, [*DAY, Act(CHECKPOINT)])
    adaptation = _reopened(tiny_model, tmp_path / "profiles", "me", [sea], config)
    assert _with(adaptation, []) == again.sha256
    assert adaptation.profile is not None
    assert adaptation.profile.layers == ()
    close(adaptation)
    plain = open_("me", config)
    plain.catch_up()
    assert plain.sha256 == again.sha256


@pytest.mark.jit_only
@pytest.mark.parametrize("case", range(24))
def test_forgetting_is_exact_with_layers(open_: Open, case: int) -> None:
    """Entries are forgotten, and layers come or go, in any order: it is as if the entries had never been."""
    rng = np.random.default_rng(1000 + case)
    config = LIVELY if case % 2 else LearnConfig()
    acts = random_acts(rng, int(rng.integers(4, 9)))
    adaptation, without = open_("me", config), open_("without", config)
    first, last = _layers(adaptation, 1, 2)[: case % 3], _layers(adaptation, 2)[: case % 4]
    _with(adaptation, first)
    ids = perform(adaptation, acts)
    told = [entry.id for entry in adaptation.entries if entry.text]
    chosen = map(int, rng.choice(told, 1 + int(rng.integers(0, len(told))), replace=False))
    if case % 4 < 2:
        removed = adaptation.remove(chosen)
        adaptation.catch_up(aside=bool(case % 2))
        _with(adaptation, last)
    else:
        _with(adaptation, last)
        removed = adaptation.remove(chosen)
        adaptation.catch_up()
    _with(without, last)
    perform_without(without, acts, ids, removed)
    more = [Act(CHECKPOINT), Act(CHAT, "And the fog?"), Act(CONSOLIDATION)]
    for other in (adaptation, without):
        perform(other, more)
    assert adaptation.sha256 == without.sha256


def test_rollback_with_layers_is_the_log_up_to_there(open_: Open) -> None:
    adaptation, expected = open_("me"), open_("expected")
    for other in (adaptation, expected):
        _with(other, _layers(adaptation, 1))
    perform(adaptation, DAY)
    perform(expected, DAY[:4])
    adaptation.remove([entry.id for entry in adaptation.entries if entry.id > 4])
    adaptation.catch_up()
    assert adaptation.sha256 == expected.sha256


def test_the_order_of_layers_counts(open_: Open) -> None:
    one, two = _layers(open_("me"), 1, 2)
    assert identity("a", [one, two]) != identity("a", [two, one])
    assert identity("a", []) == "a"
    adaptation = open_("ordered")
    perform(adaptation, DAY[:3])
    for layers in ([one, two], [two, one]):
        _with(adaptation, layers)
        assert adaptation.profile is not None
        assert list(adaptation.profile.layers) == layers == list(adaptation.model.layers)
        assert adaptation.profile.identity == adaptation.model.identity


def test_layers_that_harm_are_refused(open_: Open) -> None:
    adaptation = open_("me")
    perform(adaptation, DAY[:3])
    before = adaptation.sha256
    (good,) = _layers(adaptation, 1)
    assert check_layers(adaptation, [good]) == general_cost(adaptation, [good])
    bad = Layer("bad", "0" * 64, random_changes(adaptation.model, 3, 1000))
    broken = Layer("broken", "0" * 64, {"final_norm": np.full(32, 60000, np.float16)})
    for layer in (bad, broken):
        with pytest.raises(
            ProfileError, match=r"with the layers good, \w+ general text would cost .*nothing was"
        ) as raised:
            check_layers(adaptation, [Layer("good", good.sha256, good.changes), layer])
        assert "\n" not in str(raised.value)
    assert adaptation.sha256 == before


def test_what_layers_cost_is_taken_from_what_learning_may(open_: Open) -> None:
    adaptation = open_("me")
    _with(adaptation, [Layer("noise", "1" * 64, random_changes(adaptation.model, 5, 0.05))])
    cost = general_cost(adaptation, adaptation.model.layers)
    limit = adaptation.replay.guardrail.limit
    assert limit == pytest.approx(min(0.02, 1.02 / (1 + cost) - 1), abs=1e-5)
    assert open_("plain").replay.guardrail.limit == 0.02


def test_without_words_nothing_can_lie_beneath(open_: Open) -> None:
    adaptation = open_("me")
    perform(adaptation, DAY[:2])
    adaptation.replay.learn_document(np.arange(60), keep_words=False)
    adaptation.append_unlogged("60 tokens")
    before = adaptation.sha256
    with pytest.raises(ProfileError, match="it cannot be replayed on other layers"):
        set_layers(adaptation, _layers(adaptation, 1))
    assert adaptation.model.layers == ()
    assert adaptation.sha256 == before


def test_a_model_whose_neurons_each_write_a_row(tmp_path: Path, open_: Open) -> None:
    """Its layers are set before it is used; afterwards that is refused."""
    folder = write_tiny_model(tmp_path / "m", mixer="rwkv7")
    plain = open_("plain", model=folder)
    perform(plain, DAY[:5])
    layers = _layers(plain, 1)
    plain.model.adaptable  # noqa: B018  in use from now on
    with pytest.raises(ModelFileError, match="its layers cannot change while it is in use; start again"):
        set_layers(plain, layers)
    assert plain.profile is not None
    plain.profile.set_layers(layers)
    close(plain)
    found = []
    for _ in range(2):
        layered = _reopened(folder, tmp_path / "profiles", "plain", layers, LearnConfig())
        layered.catch_up()
        found.append(layered.sha256)
        close(layered)
    assert found[0] == found[1] != plain.sha256
    fresh = _reopened(folder, tmp_path / "profiles", "fresh", [], LearnConfig())
    fresh.profile.set_layers(layers)  # type: ignore[union-attr]
    close(fresh)
    fresh = _reopened(folder, tmp_path / "profiles", "fresh", layers, LearnConfig())
    perform(fresh, DAY[:5])
    assert fresh.sha256 == found[0]
    close(fresh)


def test_rebase_leaves_layers_behind(open_: Open, tmp_path: Path) -> None:
    adaptation = open_("me")
    _with(adaptation, _layers(adaptation, 1))
    perform(adaptation, DAY[:2])
    close(adaptation)
    other = write_tiny_model(tmp_path / "other", seed=5, name="other")
    model = hub.load(str(other))
    profile = Profile(tmp_path / "profiles", "me", model, writable=True, any_base=True)
    moved = Adaptation(model, profile, LearnConfig(), lambda: 0.0)
    moved.rebase()
    moved.catch_up()
    expected = open_("expected", model=other)
    perform(expected, DAY[:2])
    assert moved.sha256 == expected.sha256
    assert profile.layers == ()
    close(moved)
