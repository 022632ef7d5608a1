"""RWKV-7 in three containers: the same tensors, in the shapes of a model here."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgelm.convert import rwkv7
from edgelm.convert.checkpoint import Checkpoint
from edgelm.convert.opening import open_checkpoint
from edgelm.convert.rwkv7 import Rwkv7
from edgelm.errors import ModelFileError
from tests.convert import checkpoints as c

Array = np.ndarray
SIZES = {
    "vocab_size": 290, "d_model": 128, "n_layers": 2, "n_heads": 2, "head_dim": 64, "hidden_size": 256,
    "decay_rank": 32, "rate_rank": 64, "mix_rank": 32, "gate_rank": 96,
}  # fmt: skip
ENTRIES = [
    c.gguf_entry("general.architecture", 8, c.gguf_text("rwkv7")),
    c.gguf_entry("rwkv7.wkv.head_size", 4, struct.pack("<I", 64)),
    c.gguf_entry("rwkv7.attention.layer_norm_epsilon", 6, struct.pack("<f", 1e-5)),
]


@pytest.fixture(scope="module")
def weights() -> dict[str, Array]:
    """Those of the authors' kind."""
    return c.rwkv7(np.random.default_rng(1))


def _open(path: Path, blob: bytes) -> Checkpoint:
    path.write_bytes(blob)
    return open_checkpoint(path)


def _gguf(weights: dict[str, Array], entries: list[bytes] = ENTRIES) -> bytes:
    return c.gguf(c.as_llama(weights), "F32", entries)


def _expected(weights: dict[str, Array], n_tokens: int) -> dict[str, Array]:
    """What a model here is made of, written down one by one."""
    embed = weights["emb.weight"][:n_tokens].astype(np.float64)
    embed = (embed - embed.mean(1, keepdims=True)) / np.sqrt(embed.var(1, keepdims=True) + 1e-5)
    embed = embed * weights["blocks.0.ln0.weight"] + weights["blocks.0.ln0.bias"]
    found = {
        "embed": embed.astype(np.float32), "head": weights["head.weight"][:n_tokens],
        "final_norm": weights["ln_out.weight"], "final_norm_bias": weights["ln_out.bias"],
    }  # fmt: skip
    for layer in range(2):
        att, ffn = f"blocks.{layer}.att.", f"blocks.{layer}.ffn."
        mixer = {"norm": weights[f"blocks.{layer}.ln1.weight"], "norm_bias": weights[f"blocks.{layer}.ln1.bias"]}
        vectors = ["x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "k_k", "k_a"]
        small = ["w1", "w2", "a1", "a2", "g1", "g2"]
        if layer:
            vectors, small = [*vectors, "v0"], [*small, "v1", "v2"]
        mixer |= {name: weights[att + name].reshape(128) for name in vectors}
        mixer |= {name: weights[att + name].T for name in small} | {"r_k": weights[att + "r_k"]}
        mixer |= {name: weights[f"{att}{name}.weight"] for name in ("receptance", "key", "value", "output")}
        mixer |= {"head_norm": weights[att + "ln_x.weight"], "head_norm_bias": weights[att + "ln_x.bias"]}
        found |= {f"layers.{layer}.mixer.{name}": array for name, array in mixer.items()}
        parts = {
            "norm": weights[f"blocks.{layer}.ln2.weight"], "norm_bias": weights[f"blocks.{layer}.ln2.bias"],
            "x_k": weights[ffn + "x_k"].reshape(128), "key": weights[ffn + "key.weight"],
            "value": weights[ffn + "value.weight"].T,
        }  # fmt: skip
        found |= {f"layers.{layer}.ffn.{name}": array for name, array in parts.items()}
    return found


@pytest.mark.parametrize("container", ["pth", "safetensors", "gguf"])
@pytest.mark.parametrize("first", ["with", "without"])
@pytest.mark.parametrize("rows", [7, 2048])
def test_tensors_of_every_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, Array], container: str, first: str, rows: int
) -> None:
    monkeypatch.setattr(rwkv7, "ROWS", rows)
    held = {n: a for n, a in weights.items() if first == "with" or not n.startswith("blocks.0.att.v0")}
    makers: dict[str, Callable[[dict[str, Array]], bytes]] = {"pth": c.pth, "safetensors": c.safetensors, "gguf": _gguf}
    model = Rwkv7(_open(tmp_path / f"a.{container}", makers[container](held)), 290)
    assert model.sizes == SIZES
    found, expected = list(model.tensors()), _expected(weights, 290)
    assert sorted(name for name, _ in found) == sorted(expected)
    for name, array in found:
        assert array.dtype == np.float32 and array.flags.c_contiguous and array.flags.writeable
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_all_rows_are_kept_without_a_vocabulary(tmp_path: Path, weights: dict[str, Array]) -> None:
    model = Rwkv7(_open(tmp_path / "a.pth", c.pth(weights)))
    assert model.sizes["vocab_size"] == 300 and dict(model.tensors())["head"].shape == (300, 128)


def test_one_layer(tmp_path: Path) -> None:
    model = Rwkv7(_open(tmp_path / "a.pth", c.pth(c.rwkv7(np.random.default_rng(2), n_layers=1))))
    assert model.sizes["n_layers"] == model.sizes["mix_rank"] == 1
    assert not any(".v0" in name or ".v1" in name for name, _ in model.tensors())


ZEROS = np.zeros


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"emb.weight": None}, "no RWKV-7"),
        ({"blocks.1.att.w1": None}, r"lacks the tensor 'blocks\.1\.att\.w1'"),
        ({"head.weight": ZEROS((301, 128))}, r"'head.weight' is \[301, 128\], but must be \[300, 128\]"),
        ({"blocks.1.att.w2": ZEROS((33, 128))}, r"'blocks.1.att.w2' is \[33, 128\], but must be \[32, 128\]"),
        ({"blocks.1.att.v1": ZEROS((128,))}, "no matrix"),
        ({"blocks.0.att.r_k": ZEROS((2, 32))}, "2 heads of 32, together not 128"),
        ({"blocks.1.att.r_k": ZEROS((4, 32))}, r"'blocks.1.att.r_k' is \[4, 32\]"),
        ({"blocks.1.ffn.value.weight": ZEROS((256, 128))}, r"'blocks.1.ffn.value.weight' is \[256, 128\]"),
        ({"blocks.0.ffn.s_emb.weight": ZEROS((2, 2))}, "holds 'blocks.0.ffn.s_emb.weight' too"),
        ({"blocks.3.att.w0": ZEROS(128)}, "layers are not 0, 1, 2"),
        ({"ln_out.bias": np.full(128, np.nan)}, "'ln_out.bias' holds what is no number"),
        ({"blocks.0.ln0.weight": np.full(128, 3e38)}, "'emb.weight' holds what is no number"),
        ({"emb.weight": ZEROS((0, 128))}, "no matrix"),
        ({"emb.weight": ZEROS((280, 128)), "head.weight": ZEROS((280, 128))}, "280 rows, but the vocabulary has 290"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, weights: dict[str, Array], change: dict[str, Array | None], says: str) -> None:
    changed = {name: array for name, array in {**weights, **change}.items() if array is not None}
    checkpoint = _open(tmp_path / "a.pth", c.pth(changed))
    with pytest.raises(ModelFileError, match=says) as raised:
        list(Rwkv7(checkpoint, 290).tensors())
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (c.gguf_entry("general.architecture", 8, c.gguf_text("arwkv7")), "'arwkv7', not rwkv7"),
        (c.gguf_entry("rwkv7.wkv.head_size", 4, struct.pack("<I", 48)), "does not divide the width, 128"),
        (c.gguf_entry("rwkv7.wkv.head_size", 4, struct.pack("<I", 0)), "does not divide"),
        (c.gguf_entry("rwkv7.wkv.head_size", 8, c.gguf_text("x")), "does not divide"),
        (c.gguf_entry("rwkv7.attention.layer_norm_epsilon", 6, struct.pack("<f", 1e-3)), "not 1e-05"),
        (c.gguf_entry("rwkv7.attention.layer_norm_epsilon", 8, c.gguf_text("x")), "'x', not 1e-05"),
    ],
)
def test_metadata_that_is_refused(tmp_path: Path, weights: dict[str, Array], entry: bytes, says: str) -> None:
    with pytest.raises(ModelFileError, match=says):
        Rwkv7(_open(tmp_path / "a.gguf", _gguf(weights, [entry])))


def test_files_of_the_libraries_themselves(tmp_path: Path, weights: dict[str, Array]) -> None:
    """What torch and safetensors write of the same weights, in each of the kinds that checkpoints come in."""
    torch = pytest.importorskip("torch", reason="it writes the .pth files that are imported")
    library = pytest.importorskip("safetensors.torch", reason="it writes the .safetensors files that are imported")
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        held = {name: torch.from_numpy(array).to(kind) for name, array in weights.items()}
        rounded = {name: array.to(torch.float32).numpy() for name, array in held.items()}
        torch.save(held, tmp_path / "a.pth")
        library.save_file(held, tmp_path / "a.safetensors")
        for name in ("a.pth", "a.safetensors"):
            model = Rwkv7(open_checkpoint(tmp_path / name), 290)
            assert model.sizes == SIZES
            found = dict(model.tensors())
            for ours, array in _expected(rounded, 290).items():
                np.testing.assert_array_equal(found[ours], array, err_msg=f"{name} {kind} {ours}")


def test_a_state_dict_of_a_module(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="it writes the .pth files that are imported")
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    torch.save(module.state_dict(), tmp_path / "a.pth")
    checkpoint = open_checkpoint(tmp_path / "a.pth")
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(checkpoint.read(name), tensor.numpy())
    torch.save(module, tmp_path / "b.pth")
    with pytest.raises(ModelFileError, match="no part of a state dict"):
        open_checkpoint(tmp_path / "b.pth")


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
def test_files_of_llama_cpp(tmp_path: Path, weights: dict[str, Array], kind: str) -> None:
    """What llama.cpp's own package writes of the same weights; of Q8_0 are the matrices that it would quantise."""
    package = pytest.importorskip("gguf", reason="it writes the .gguf files that are imported")
    quants = pytest.importorskip("gguf.quants")
    writer = package.GGUFWriter(tmp_path / "a.gguf", "rwkv7")
    writer.add_wkv_head_size(64)
    writer.add_layer_norm_eps(1e-5)
    writer.add_token_list(["a"] * 300)
    number, plain = package.GGMLQuantizationType[kind], package.GGMLQuantizationType.F32
    for name, array in c.as_llama(weights).items():
        small = any(f"time_mix_{part}" in name for part in ("w", "a1", "a2", "v1", "v2", "g"))
        type_ = number if array.ndim == 2 and not small else plain
        writer.add_tensor(name, quants.quantize(array, type_), raw_dtype=None if type_ == plain else type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    rounded = {
        name: quants.dequantize(quants.quantize(array, number), number)
        if array.ndim == 2 and name.endswith("weight")
        else array
        for name, array in weights.items()
    }
    model = Rwkv7(open_checkpoint(tmp_path / "a.gguf"), 290)
    assert model.sizes == SIZES
    expected, exact = _expected(rounded, 290), _expected(weights, 290)
    # Steps are half an 11th, an 8th bit of each number, or half a 127th of the largest of 32.
    step = {"F32": 0.0, "F16": 2.0**-11, "BF16": 2.0**-8, "Q8_0": 0.51 / 127}[kind]
    for name, array in model.tensors():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
        if name != "embed":  # which was normed since
            np.testing.assert_allclose(array, exact[name], rtol=0, atol=step * np.abs(array).max(), err_msg=name)
