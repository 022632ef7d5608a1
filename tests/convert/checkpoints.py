"""Makes small checkpoints in every container, by hand and byte for byte: what whoever is hostile would do."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from tests.fuzz.mutations import join_tensors

Array = np.ndarray
STORAGES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}
ORDERED = b"ccollections\nOrderedDict\n)R"


def encoded(array: Array, kind: str) -> bytes:
    """The numbers of an array as bytes of a kind; those of BF16 are cut, not rounded."""
    if kind == "BF16":
        return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(array).astype({"F32": "<f4", "F16": "<f2"}[kind]).tobytes()


def as_kind(array: Array, kind: str) -> Array:
    """An array as it comes back from numbers of a kind, float32."""
    if kind == "BF16":
        return (np.ascontiguousarray(array, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    return array.astype({"F32": "<f4", "F16": "<f2"}[kind]).astype(np.float32)


def text(value: str) -> bytes:
    """A text in a pickle."""
    blob = value.encode()
    return b"X" + struct.pack("<I", len(blob)) + blob


def integer(value: int) -> bytes:
    """A number in a pickle."""
    return b"J" + struct.pack("<i", value)


def integers(values: Sequence[int]) -> bytes:
    """A tuple of numbers in a pickle."""
    return b"(" + b"".join(map(integer, values)) + b"t"


def row_major(shape: Sequence[int]) -> list[int]:
    """The strides of a contiguous tensor."""
    return [int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape))]


def tensor(
    key: str,
    n_numbers: int,
    shape: Sequence[int],
    kind: str = "F32",
    offset: int = 0,
    stride: Sequence[int] | None = None,
) -> bytes:
    """A tensor in a pickle."""
    storage = b"(" + text("storage") + f"ctorch\n{STORAGES[kind]}\n".encode() + text(key) + text("cpu")
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + integer(n_numbers) + b"tQ" + integer(offset)
        + integers(shape) + integers(row_major(shape) if stride is None else stride) + b"\x89" + ORDERED + b"tR"
    )  # fmt: skip


def program(entries: Mapping[str, bytes]) -> bytes:
    """The pickle of a state dict."""
    return b"\x80\x02" + ORDERED + b"(" + b"".join(text(name) + made for name, made in entries.items()) + b"u."


def zipped(records: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of records, as they are or packed."""
    with zipfile.ZipFile(file := io.BytesIO(), "w", method) as archive:
        for name, blob in records.items():
            archive.writestr(zipfile.ZipInfo(name), blob, method)
    return file.getvalue()


def pth(tensors: Mapping[str, Array], kind: str = "F32", table: bytes | None = None) -> bytes:
    """A ``.pth`` of tensors, or of another table than theirs."""
    entries = {name: tensor(str(i), a.size, a.shape, kind) for i, (name, a) in enumerate(tensors.items())}
    records = {"model/data.pkl": program(entries) if table is None else table, "model/byteorder": b"little"}
    records |= {f"model/data/{i}": encoded(array, kind) for i, array in enumerate(tensors.values())}
    return zipped(records | {"model/version": b"3\n"})


def safetensors(tensors: Mapping[str, Array], kind: str = "F32") -> bytes:
    """A ``.safetensors`` file."""
    parts = [(name, kind, list(a.shape), encoded(a, kind)) for name, a in tensors.items()]
    return join_tensors({"from": "here"}, parts)


def gguf_text(value: str) -> bytes:
    """A text of a ``.gguf`` file."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf_head(entries: Sequence[bytes], infos: Sequence[bytes], version: int = 3) -> bytes:
    """What stands before the numbers, up to a multiple of 32."""
    blob = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(entries)) + b"".join([*entries, *infos])
    return blob + bytes(-len(blob) % 32)


def gguf_entry(key: str, kind: int, value: bytes) -> bytes:
    """An entry of the metadata."""
    return gguf_text(key) + struct.pack("<I", kind) + value


def gguf_info(name: str, shape: Sequence[int], kind: int, offset: int) -> bytes:
    """What is said about a tensor."""
    sizes = shape[::-1]
    return gguf_text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def gguf(tensors: Mapping[str, Array], kind: str = "F32", entries: Sequence[bytes] = ()) -> bytes:
    """A ``.gguf`` file."""
    number = {"F32": 0, "F16": 1, "BF16": 30}[kind]
    infos, blobs, at = [], [], 0
    for name, array in tensors.items():
        infos.append(gguf_info(name, array.shape, number, at))
        blob = encoded(array, kind)
        blobs.append(blob + bytes(-len(blob) % 32))
        at += len(blobs[-1])
    listed = gguf_entry("tokens", 9, struct.pack("<IQ", 8, 2) + gguf_text("a") + gguf_text("b"))
    numbers = gguf_entry("scores", 9, struct.pack("<IQ", 6, 2) + bytes(8))
    return gguf_head([listed, numbers, *entries], infos) + b"".join(blobs)


def rwkv7(
    rng: np.random.Generator, n_layers: int = 2, d: int = 128, hidden: int = 256, n_rows: int = 300, head_dim: int = 64
) -> dict[str, Array]:
    """Random weights of an RWKV-7, named and shaped as its authors do."""
    ranks = {"w": 32, "a": 64, "v": 32, "g": 96}
    shapes: dict[str, tuple[int, ...]] = {"emb.weight": (n_rows, d), "head.weight": (n_rows, d)}
    norms = ["ln_out", "blocks.0.ln0"]
    for layer in range(n_layers):
        at = f"blocks.{layer}."
        norms += [at + "ln1", at + "ln2", at + "att.ln_x"]
        shapes |= {f"{at}att.x_{mix}": (1, 1, d) for mix in "rwkvag"} | {f"{at}ffn.x_k": (1, 1, d)}
        shapes |= {f"{at}att.{name}": (1, 1, d) for name in ("w0", "a0", "v0", "k_k", "k_a")}
        for part, rank in ranks.items():
            shapes |= {f"{at}att.{part}1": (d, rank), f"{at}att.{part}2": (rank, d)}
        shapes |= {f"{at}att.{name}.weight": (d, d) for name in ("receptance", "key", "value", "output")}
        shapes |= {f"{at}att.r_k": (d // head_dim, head_dim)}
        shapes |= {f"{at}ffn.key.weight": (hidden, d), f"{at}ffn.value.weight": (d, hidden)}
    shapes |= {f"{norm}.{part}": (d,) for norm in norms for part in ("weight", "bias")}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


_LLAMA = {
    "emb.weight": "token_embd.weight", "blocks.0.ln0.weight": "token_embd_norm.weight",
    "blocks.0.ln0.bias": "token_embd_norm.bias", "ln_out.weight": "output_norm.weight",
    "ln_out.bias": "output_norm.bias", "head.weight": "output.weight",
}  # fmt: skip
_IN_LAYER = {"ln1": "attn_norm", "ln2": "attn_norm_2", "att.ln_x": "time_mix_ln", "ffn.x_k": "channel_mix_lerp_k"}


def as_llama(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The same weights named, joined and turned as llama.cpp's converter does."""
    found = {_LLAMA[name]: array for name, array in tensors.items() if name in _LLAMA}
    for name, array in tensors.items():
        if name in _LLAMA:
            continue
        _, layer, part = name.split(".", 2)
        stem, dot, end = part.rpartition(".")
        if end in ("weight", "bias") and dot:
            changed = _IN_LAYER.get(stem, stem.replace("att.", "time_mix_").replace("ffn.", "channel_mix_"))
        else:
            end, changed = "weight", _IN_LAYER.get(part, part.replace("att.", "time_mix_"))
        if part.startswith("att.x_"):
            if part == "att.x_r":
                mixes = [tensors[f"blocks.{layer}.att.x_{mix}"] for mix in "rwkvag"]
                found[f"blk.{layer}.time_mix_lerp_fused.weight"] = np.stack(mixes)
            continue
        array = array.squeeze()
        if part[-1] in "12" and part.startswith("att.") and len(part) == 6:
            array = np.ascontiguousarray(array.T)
        found[f"blk.{layer}.{changed}.{end}"] = array.reshape(-1) if part == "att.r_k" else array
    return found
