"""Configuration objects refuse what cannot work."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edgelm.config import PRESETS, LearnConfig, ModelConfig, SampleConfig, data_dir
from edgelm.errors import ConfigError

NANO = PRESETS["nano"]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_comes_back(preset: str) -> None:
    assert ModelConfig.from_dict(PRESETS[preset].to_dict()) == PRESETS[preset]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"d_model": 0}, "d_model must be between 1"),
        ({"n_layers": -1}, "n_layers must be between 1"),
        ({"vocab_size": (1 << 20) + 1}, "vocab_size must be between 1"),
        ({"n_heads": "4"}, "n_heads must be an integer"),
        ({"n_heads": 4.0}, "n_heads must be an integer"),
        ({"n_heads": True}, "n_heads must be an integer"),
        ({"n_heads": None}, "n_heads must be an integer"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"norm_eps": float("nan")}, "norm_eps"),
        ({"norm_eps": "1e-5"}, "norm_eps"),
        ({"mixer": "attention"}, "mixer must be"),
        ({"mixer": []}, "mixer must be"),
        ({"slope_dim": 100, "n_channels": 8}, "must divide into 8 channels"),
        ({"max_awake": NANO.n_blocks + 1}, "is above n_blocks"),
        ({"depth": 3}, "unknown model configuration field 'depth'"),
    ],
)
def test_a_model_configuration_that_cannot_work(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ModelConfig.from_dict(NANO.to_dict() | changes)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(ModelConfig) if f.default is dataclasses.MISSING])
def test_a_missing_field(name: str) -> None:
    fields = NANO.to_dict()
    del fields[name]
    with pytest.raises(ConfigError, match=f"incomplete.*{name}"):
        ModelConfig.from_dict(fields)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (SampleConfig, {"temperature": -0.1}),
        (SampleConfig, {"temperature": float("nan")}),
        (SampleConfig, {"top_p": 0.0}),
        (SampleConfig, {"top_p": 1.1}),
        (SampleConfig, {"repetition_penalty": 0.9}),
        (SampleConfig, {"max_tokens": 0}),
        (LearnConfig, {"rate": -1.0}),
        (LearnConfig, {"rate": float("inf")}),
        (LearnConfig, {"pull": 1.0}),
        (LearnConfig, {"segment": 0}),
        (LearnConfig, {"segment": 257}),
    ],
)
def test_an_option_out_of_range(kind: type, changes: dict[str, Any]) -> None:
    kind()
    with pytest.raises(ConfigError, match=f"^{next(iter(changes))} must be"):
        kind(**changes)


def test_where_data_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELM_HOME", "/somewhere")
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    assert data_dir() == Path("/somewhere")
    monkeypatch.delenv("EDGELM_HOME")
    assert data_dir() == Path("/xdg/edgelm")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert data_dir() == Path("/home/me/.local/share/edgelm")
