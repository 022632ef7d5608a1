"""Configuration objects refuse what cannot work."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edgelm.config import LearnConfig, SampleConfig, data_dir
from edgelm.errors import ConfigError
from edgelm.model.config import PRESETS, ModelConfig

NANO = PRESETS["nano"]
MIXER, FFN = NANO.to_dict()["mixer"], NANO.to_dict()["ffn"]
FLAT = {
    "vocab_size": 512, "d_model": 192, "n_layers": 6, "n_heads": 2, "key_dim": 64, "value_dim": 64, "slope_dim": 96,
    "n_blocks": 32, "block_size": 32, "max_awake": 11, "shared_size": 64, "n_channels": 8, "mixer": "mcsd_g",
    "norm_eps": 1e-5,
}  # fmt: skip
"""``NANO`` in the first format."""


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_comes_back(preset: str) -> None:
    assert ModelConfig.from_dict(PRESETS[preset].to_dict()) == PRESETS[preset]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"d_model": 0}, "d_model must be between 1"),
        ({"n_layers": -1}, "n_layers must be between 1"),
        ({"vocab_size": (1 << 20) + 1}, "vocab_size must be between 1"),
        ({"mixer": MIXER | {"n_heads": "4"}}, "n_heads must be an integer"),
        ({"mixer": MIXER | {"n_heads": 4.0}}, "n_heads must be an integer"),
        ({"mixer": MIXER | {"n_heads": True}}, "n_heads must be an integer"),
        ({"ffn": FFN | {"block_size": None}}, "block_size must be an integer"),
        ({"ffn": FFN | {"block_size": 0}}, "block_size must be between 1"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"norm_eps": float("nan")}, "norm_eps"),
        ({"norm_eps": "1e-5"}, "norm_eps"),
        ({"mixer": MIXER | {"kind": "attention"}}, "no kind of layer part 'attention'"),
        ({"mixer": MIXER | {"kind": ["gated_delta"]}}, "no kind of layer part"),
        ({"mixer": MIXER | {"depth": 3}}, "unknown model configuration field 'depth'"),
        ({"ffn": []}, "no kind of layer part None"),
        ({"mixer": MIXER | {"slope_dim": 100}}, "must divide into 8 channels"),
        ({"ffn": FFN | {"max_awake": NANO.n_blocks + 1}}, "is above n_blocks"),
        ({"depth": 3}, "unknown model configuration field 'depth'"),
    ],
)
def test_a_model_configuration_that_cannot_work(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ModelConfig.from_dict(NANO.to_dict() | changes)


def test_the_first_format_is_read() -> None:
    assert ModelConfig.from_dict(FLAT) == NANO
    assert (
        ModelConfig.from_dict({k: v for k, v in FLAT.items() if k not in ("mixer", "n_channels", "norm_eps")}) == NANO
    )
    assert ModelConfig.from_dict(FLAT | {"mixer": "mcsd"}).mixer.KIND == "published"
    for changes, says in (
        ({"mixer": "attention"}, "mixer must be"),
        ({"mixer": ["mcsd_g"]}, "mixer must be"),
        ({"mixer": None}, "mixer must be"),
        ({"depth": 3}, "unknown model configuration field 'depth'"),
        ({"n_heads": "4"}, "n_heads must be an integer"),
        ({"max_awake": 33}, "is above n_blocks"),
    ):
        with pytest.raises(ConfigError, match=says):
            ModelConfig.from_dict(FLAT | changes)
    with pytest.raises(ConfigError, match=r"incomplete.*n_blocks"):
        ModelConfig.from_dict({k: v for k, v in FLAT.items() if k != "n_blocks"})


def test_other_sizes() -> None:
    wider = NANO.resized(vocab_size=600, d_model=96, max_awake=3, slope_dim=32, norm_eps=1e-3)
    assert (wider.vocab_size, wider.max_awake, wider.mixer.d_model, wider.ffn.norm_eps) == (600, 3, 96, 1e-3)
    assert wider.mixer.sizes()["slope_dim"] == 32 and wider.ffn.sizes()["block_size"] == 32
    with pytest.raises(ConfigError, match="no size 'depth'"):
        NANO.resized(depth=3)


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


def test_every_token_id_that_fits_16_bits_may_be_used() -> None:
    assert NANO.resized(vocab_size=1 << 16).vocab_size == 1 << 16
    with pytest.raises(ConfigError, match="must be between 1"):
        NANO.resized(vocab_size=(1 << 16) + 1)
