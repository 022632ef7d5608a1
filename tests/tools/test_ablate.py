"""The variants of the model: as large as they say, causal, and blind to other documents; and the tool that compares."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgelm.bench.peers.twins import (  # noqa: E402
    chunked,
    functions,
    model,
)
from edgelm.cells.gated_delta.paper import CONV_WIDTH  # noqa: E402
from edgelm.model.config import PRESETS, ModelConfig  # noqa: E402
from edgelm.text.opening import open_tokenizer  # noqa: E402
from edgelm.text.tokenizer import DOC_ID  # noqa: E402
from tests.tools.tiny_run import kept_signals  # noqa: E402
from tools.ablate import run as tool  # noqa: E402
from tools.ablate.variants import VARIANTS, build, sized  # noqa: E402

CONFIG = ModelConfig.flat(40, 64, 2, 2, 8, 16, 32, 8, 16, 8, 16)
WINDOW = 24
LARGER = {"n-gram", "dense-awake"}  # other sizes, as their titles say


@pytest.fixture(autouse=True)
def in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recurrences by tensor operations: quick without compiled kernels too."""
    monkeypatch.setattr(functions, "recurrences", lambda x: chunked)


def logits(made: Any, ids: np.ndarray) -> Any:
    """[B,T,V], window by window."""
    states, carried = made.initial_state(len(ids)), torch.ones(len(ids), CONV_WIDTH - 1, dtype=torch.bool)
    parts = []
    with torch.no_grad():
        for start in range(0, ids.shape[1], WINDOW):
            part = torch.from_numpy(ids[:, start : start + WINDOW])
            starts, same_doc, carried = model.document_masks(part, DOC_ID, carried)
            hidden, states, _ = made(part, starts, same_doc, states, made.config.max_awake)
            parts.append(hidden @ made.embed.t())
    return torch.cat(parts, 1)


def made_of(name: str) -> Any:
    torch.manual_seed(0)
    made = build(name, sized(name, CONFIG), WINDOW, 0.25)
    with torch.no_grad():
        made.embed.mul_(10)  # so that differences show
    return made


def random_ids(rows: int, steps: int) -> np.ndarray:
    ids = np.random.default_rng(0).integers(1, CONFIG.vocab_size, (rows, steps))
    ids[:, 0] = DOC_ID
    return ids


@pytest.mark.parametrize("name", set(VARIANTS) - LARGER)
def test_variants_have_the_parameters_of_the_model(name: str) -> None:
    made = [build(n, sized(n, PRESETS["nano"]), 256, 0.22) for n in (name, "mcsd-g")]
    sizes = [sum(p.numel() for p in each.parameters()) for each in made]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_token_sees_a_later_one_or_another_document(name: str) -> None:
    made, ids = made_of(name), random_ids(2, 3 * WINDOW)
    expected = logits(made, ids)
    later = ids.copy()
    later[:, 40:] = np.random.default_rng(1).integers(1, CONFIG.vocab_size, later[:, 40:].shape)
    found = logits(made, later)
    torch.testing.assert_close(found[:, :40], expected[:, :40], rtol=1e-4, atol=1e-4)
    assert float((found[:, 40:] - expected[:, 40:]).abs().max()) > 1e-2
    first, second = ids.copy(), ids.copy()
    second[:, 1:10] = np.random.default_rng(2).integers(1, CONFIG.vocab_size, (2, 9))
    first[:, 10] = second[:, 10] = DOC_ID
    gap = (logits(made, first) - logits(made, second))[:, 10:].abs().max()
    # The rows of the last two tokens are the variant's own, and reach over the end of a document.
    assert float(gap) < 1e-4 or name == "n-gram"


@pytest.mark.parametrize("name", VARIANTS)
def test_what_was_said_windows_ago_is_seen(name: str) -> None:
    made, ids = made_of(name), random_ids(1, 2 * WINDOW)
    other = ids.copy()
    other[0, WINDOW - 2] = 1 + other[0, WINDOW - 2] % (CONFIG.vocab_size - 1)
    assert float((logits(made, ids) - logits(made, other))[0, WINDOW + 3 :].abs().max()) > 1e-3


def test_attention_is_the_same_in_one_window_or_two() -> None:
    ids = random_ids(2, 2 * WINDOW)
    ids[1, [3, 20, 30]] = DOC_ID
    small = made_of("transformer")
    torch.manual_seed(0)
    large = build("transformer", CONFIG, 2 * WINDOW, 0.25)
    large.load_state_dict(small.state_dict())
    states = large.initial_state(2)
    starts, same_doc, _ = model.document_masks(torch.from_numpy(ids), DOC_ID, torch.ones(2, 3, dtype=torch.bool))
    with torch.no_grad():
        hidden, _, _ = large(torch.from_numpy(ids), starts, same_doc, states, CONFIG.n_blocks)
    torch.testing.assert_close(logits(small, ids), hidden @ large.embed.t(), rtol=1e-4, atol=1e-4)


def test_gated_rule_is_its_loop() -> None:
    rng = torch.Generator().manual_seed(0)
    shapes = [(2, 70, 2, 4), (2, 70, 2, 4), (2, 70, 2, 3), (2, 70, 2), (2, 70, 2)]
    q, k, v, g, beta = (torch.randn(*shape, generator=rng) for shape in shapes)
    g, state = -g.abs(), torch.randn(2, 2, 4, 3, generator=rng)
    starts = torch.zeros(2, 70, dtype=torch.bool)
    starts[0, [5, 66]] = True
    found, last = chunked.gated_scan(q, k, v, g, beta, starts, state)
    for t in range(70):
        state = torch.where(starts[:, t, None, None, None], 0.0, state * g[:, t].exp()[..., None, None])
        state = state + (beta[:, t, :, None] * k[:, t])[..., None] * v[:, t, :, None]
        torch.testing.assert_close(found[:, t], (q[:, t, :, None] @ state)[:, :, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last, state, rtol=1e-4, atol=1e-5)


def test_a_feature_cut_off_stays_cut_off() -> None:
    for name, kept in (("no-slope", slice(8, None)), ("no-decay", slice(0, -1))):
        mixer = made_of(name).layers[0].mixer
        x = torch.randn(1, 6, CONFIG.d_model)
        state = {n: torch.zeros(1, *shape) for n, shape in mixer.state_shapes().items()}
        out, _ = mixer(x, torch.zeros(1, 6, dtype=torch.bool), torch.ones(1, 6, 3), state)
        out.square().sum().backward()
        cut = torch.ones(len(mixer.w_out), dtype=torch.bool)
        cut[kept] = False
        assert 0 < int(cut.sum()) <= 8
        assert not mixer.w_out[cut].any()
        assert not mixer.w_out.grad[cut].any()
        assert mixer.w_out.grad[kept].any()


def test_top_k_router_wakes_as_many_and_its_loss_rewards_balance() -> None:
    made = made_of("top-k")
    ids = torch.from_numpy(random_ids(2, WINDOW))
    starts, same_doc, _ = model.document_masks(ids, DOC_ID, torch.ones(2, 3, dtype=torch.bool))
    _, _, activations = made(ids, starts, same_doc, made.initial_state(2), CONFIG.n_blocks)
    assert ((torch.stack(activations) > 0).sum(-1) == 2).all()
    before = float(made.extra_loss().detach())
    made.extra_loss().backward()
    with torch.no_grad():
        for layer in made.layers:
            layer.ffn.router -= 0.5 * layer.ffn.router.grad
    made(ids, starts, same_doc, made.initial_state(2), CONFIG.n_blocks)
    assert float(made.extra_loss().detach()) < before


def test_bits_per_byte_counts_every_token_once() -> None:
    made = made_of("mcsd-g")
    ids = np.random.default_rng(3).integers(1, CONFIG.vocab_size, 203)
    with torch.no_grad():
        made.embed.zero_()  # all tokens equally likely
    bits, _ = tool.bits_per_byte(made, ids, 500, WINDOW)
    assert bits == pytest.approx(203 * math.log2(CONFIG.vocab_size) / 500)


def test_what_remembers_gains_where_it_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "PASSAGE", 10)
    made, ids = made_of("mcsd-g"), np.random.default_rng(3).integers(1, CONFIG.vocab_size, 8 * 25)
    assert tool.recall_gain(made, ids[:-1], 5, WINDOW) is None
    gain = tool.recall_gain(made, ids, 5, WINDOW)
    assert gain is not None and 0 < abs(gain) < 0.5
    with_breaks = np.insert(ids, [5, 40, 100], DOC_ID)
    assert tool.recall_gain(made, with_breaks, 5, WINDOW) == gain
    whole, empty = made.forward, made.initial_state(8)

    def forgetful(ids: Any, starts: Any, same: Any, states: Any, awake: int) -> Any:
        return whole(ids, torch.ones_like(starts), torch.zeros_like(same), empty, awake)

    monkeypatch.setattr(made, "forward", forgetful)
    assert tool.recall_gain(made, ids, 5, WINDOW) == 0


def test_costs_by_windows_are_those_of_one_window() -> None:
    made, ids = made_of("mcsd-g"), torch.from_numpy(random_ids(2, 3 * WINDOW))
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(
            torch.from_numpy(logits(made, ids[:, :-1].numpy()).numpy()).transpose(1, 2), ids[:, 1:], reduction="none"
        )
    torch.testing.assert_close(tool.token_costs(made, ids, WINDOW), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tool.token_costs(made, ids, 7), expected, rtol=1e-4, atol=1e-4)


def test_first_mixer_differs_in_its_start_alone() -> None:
    torch.manual_seed(0)
    now = build("mcsd-g", CONFIG, WINDOW, 0.25).layers[0].mixer
    first = build("rare-wide", CONFIG, WINDOW, 0.25).layers[0].mixer
    keys = slice(CONFIG.mixer.slope_dim + 16, CONFIG.mixer.slope_dim + 32)
    assert (now.conv[keys, -2] > now.conv[keys, -1]).all() and (first.conv[keys, -2] < first.conv[keys, -1]).all()
    assert first.write_bias.tolist() == [-2, -2]
    kept = build("reset", sized("reset", CONFIG), WINDOW, 0.25).layers[0].mixer
    assert kept.cell.n_heads == 4 and not kept.write_bias.any()


@pytest.mark.jit_only
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tool_trains_scores_and_continues(
    shards: Path, tokenizer_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("How are you today?\n" * 40, encoding="utf-8")
    mixture = tmp_path / "mixture.toml"
    mixture.write_text("talk = 1.0\n", encoding="utf-8")
    options = ["--mixture", str(mixture)]
    monkeypatch.setattr(tool, "PRESETS", dict.fromkeys(PRESETS, CONFIG))
    vocab_size = str(open_tokenizer(tokenizer_file).vocab_size)
    options += ["--vocab-size", vocab_size, "--tokens", "500", "--batch-size", "2", "--window", "32", "--no-compile"]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(json.dumps({"said": f"How is {i}?", "reply": f"{i} is well."}) + "\n" for i in range(20)),
        encoding="utf-8",
    )
    options += ["--pairs", str(pairs)]
    for variants in (["transformer"], ["transformer", "mcsd-g", "retention"]):
        arguments = [shards, tokenizer_file, tmp_path / "out", text, *options, "--seeds", "0", "--variants", *variants]
        monkeypatch.setattr(sys, "argv", ["run", *map(str, arguments)])
        with kept_signals():
            tool.main()
    rows = tool.read_rows(tmp_path / "out")
    assert [row["variant"] for row in rows] == ["transformer", "mcsd-g", "retention"]
    assert all(0 < row["texts"]["text"] < 9 and 0 <= row["first_of_20"] <= 1 for row in rows)
    assert rows[0]["keys"] is rows[2]["keys"] is None and 1 <= rows[1]["keys"]["key_rank"] <= 8
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["run", "--table", str(tmp_path / "out")])
    tool.main()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    best = min(rows, key=lambda row: row["bits_per_byte"])
    assert VARIANTS[best["variant"]].title in printed[2]
    assert json.loads((tmp_path / "out" / "rows.jsonl").read_text().splitlines()[0])["seed"] == 0
