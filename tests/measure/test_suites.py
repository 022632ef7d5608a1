"""A trial is a process over a throw-away copy of a profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelm.config import LearnConfig
from edgelm.log.entry import CHAT
from edgelm.measure.suites import Trial
from edgelm.runtime import Engine, EngineOptions
from tests.model_folder import contents


@pytest.fixture
def options(tiny_model: Path, tmp_path: Path) -> EngineOptions:
    return EngineOptions(str(tiny_model), profiles=tmp_path / "profiles")


def _tell(options: EngineOptions, text: str) -> str:
    with Engine(options, writable=True) as engine:
        engine.adaptation.learn(engine.adaptation.tell(CHAT, text, conversation=1))
        return engine.adaptation.sha256


def test_it_begins_as_a_process_on_that_profile_would(options: EngineOptions) -> None:
    expected = _tell(options, "The ferry waits in the fog.")
    with Trial(options, LearnConfig()) as trial:
        assert trial.engine.adaptation.sha256 == expected
        assert [entry.text for entry in trial.engine.adaptation.entries] == ["The ferry waits in the fog."]


def test_it_writes_nothing_of_the_profile(options: EngineOptions) -> None:
    assert options.profiles is not None
    _tell(options, "The ferry waits in the fog.")
    before = contents(options.profiles)
    with Trial(options, LearnConfig()) as trial:
        assert trial.engine.profile is not None
        copy = trial.engine.profile.folder
        trial.tell(CHAT, "A baker brings warm rolls.")
        trial.restart()
    assert contents(options.profiles) == before
    assert not copy.exists()


def test_a_profile_that_is_not_there(options: EngineOptions) -> None:
    assert options.profiles is not None
    with Trial(options, LearnConfig()) as trial:
        trial.tell(CHAT, "A baker brings warm rolls.")
        assert trial.best("A baker brings warm", ["rolls", "boats"], as_reply=False) == "rolls"
    assert not options.profiles.exists()


def test_a_restart_keeps_what_was_learned(options: EngineOptions) -> None:
    with Trial(options, LearnConfig()) as trial:
        before = trial.bits_per_byte("A baker brings warm rolls.")
        trial.tell(CHAT, "A baker brings warm rolls.")
        first = trial.engine
        trial.restart()
        assert trial.engine is not first
        assert not trial.engine.adaptation.pending
        assert trial.bits_per_byte("A baker brings warm rolls.") < before


def test_its_answers_are_those_of_the_seed(options: EngineOptions) -> None:
    with Trial(options, LearnConfig()) as trial:
        answers = [trial.answer("Who brings the rolls?", np.random.default_rng(3)) for _ in range(2)]
        assert answers[0] == answers[1]
