"""Brings a checkpoint from elsewhere here: as a model folder of int8 matrices, with what learning needs to be known.

Tensors are read, made integers and written one at a time, those with a row for each token some rows at a time: memory
holds little more than the largest matrix of a layer. The scales of gradients are measured on the general text that
comes with the package, with the model as it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.cells.rwkv7_channel_mix.paper import Rwkv7ChannelMix
from edgelm.cells.rwkv7_time_mix.paper import Rwkv7TimeMix
from edgelm.convert.opening import open_checkpoint
from edgelm.convert.rwkv7 import EPS, Rwkv7
from edgelm.errors import ModelFileError
from edgelm.learn.learner import adaptable_rms
from edgelm.matrices.quantize import BLOCK
from edgelm.model import hub, store, tensorfile
from edgelm.model.config import ModelConfig
from edgelm.model.manifest import CARD, FILES, MANIFEST, SCALES, TOKENIZER, WEIGHTS, manifest_bytes
from edgelm.model.packing import narrowed, pack
from edgelm.model.weights import adaptable_names, count_parameters, is_quantizable, tensors
from edgelm.text.general import general_text
from edgelm.text.template import Template
from edgelm.text.world import byte_tokens, read_vocabulary, write_spec

Array = np.ndarray
N_BYTES = 256
SEGMENT, MOST_SEGMENTS = 32, 64
"""Tokens of a segment, as of ``LearnConfig``, and segments on which scales of gradients are measured."""
TEMPLATE = Template(turn="{label}: {text}\n\n", system="{text}\n\n", stops=("\n\n",))
"""How the chat-trained models of this family were taught to write a conversation."""
_CARD = """# {name}

Imported from `{file}` ({size:,} bytes, SHA-256 {sha256}): RWKV-7, {n_layers} layers of width {d_model}, {vocab_size:,}
tokens, {n:,} parameters. Matrices are int8, with a scale for 32 numbers. Its licence is that of the file it comes from;
the authors' own models are published under Apache-2.0.
"""
Progress = Callable[[int], None]


def import_checkpoint(
    path: Path, pulled: Path, name: str, vocabulary: Path | None = None, on_progress: Progress = lambda _: None
) -> Path:
    """Makes a model folder of a checkpoint of RWKV-7, in one step and only if nothing is wrong with it.

    Parameters
    ----------
    path : Path
        ``.safetensors``, ``.pth`` or ``.gguf`` (``edgelm.convert.opening``).
    pulled : Path
        Where models are kept; made if it is not there yet.
    name : str
        What the model is called here.
    vocabulary : Path, optional
        The vocabulary file of the package ``rwkv``. Without one a model of 256 tokens is one of bytes.
    on_progress : callable
        Called with the number of parts that are done by now, of ``n_parts``.

    Returns
    -------
    Path
        The model's folder.

    Raises
    ------
    ModelFileError
        The file is no such checkpoint, the vocabulary is missing or does not fit, the name is taken or no name, or the
        folder cannot be written. Nothing is left behind.
    """
    config, tokens, source = _read(path, pulled, name, vocabulary)

    def build(folder: Path) -> None:
        tensorfile.write_streamed(folder / WEIGHTS, _table(config), _packed(source, config, on_progress))
        (folder / TOKENIZER).write_bytes(write_spec(tokens))
        sha256 = store.digest(path)
        card = {"imported": {"file": path.name, "sha256": sha256}}
        # To be loaded it needs scales; what they are changes nothing of what is measured.
        tensorfile.write(folder / SCALES, {name: np.ones(1, np.float32) for name in adaptable_names(config)})
        _write_manifest(folder, name, config, card)
        tensorfile.write(folder / SCALES, _scales(folder, on_progress))
        _write_manifest(folder, name, config, card)
        sizes = {key: source.sizes[key] for key in ("n_layers", "d_model", "vocab_size")}
        n, size = count_parameters(config), path.stat().st_size
        text = _CARD.format(name=name, file=path.name, size=size, sha256=sha256, n=n, **sizes)
        (folder / CARD).write_text(text, encoding="utf-8")

    return store.put(pulled, name, build)


def _read(path: Path, pulled: Path, name: str, vocabulary: Path | None) -> tuple[ModelConfig, list[bytes], Rwkv7]:
    """The sizes, the tokens and the tensors of a checkpoint that may be imported by this name."""
    store.check_name(name)
    if name in store.folders(pulled):
        raise ModelFileError(f"another model is called {name!r} here; choose another --name")
    checkpoint = open_checkpoint(path)
    tokens = _tokens(path, Rwkv7(checkpoint, None).sizes["vocab_size"], vocabulary)
    source = Rwkv7(checkpoint, len(tokens))
    return model_config(source.sizes), tokens, source


def _write_manifest(folder: Path, name: str, config: ModelConfig, card: dict[str, Any]) -> None:
    digests = {file: store.digest(folder / file) for file in FILES}
    (folder / MANIFEST).write_bytes(manifest_bytes(name, config, digests, card, TEMPLATE))


def n_parts(path: Path) -> int:
    """How many parts there are to be done, for a progress bar; raises as ``import_checkpoint``."""
    return len(tensors(model_config(Rwkv7(open_checkpoint(path), None).sizes))) + MOST_SEGMENTS


def _tokens(path: Path, vocab_size: int, vocabulary: Path | None) -> list[bytes]:
    if vocabulary is not None:
        return read_vocabulary(vocabulary)
    if vocab_size == N_BYTES:
        return byte_tokens()
    raise ModelFileError(
        f"{path}: its {vocab_size:,} tokens need a vocabulary; give the file rwkv_vocab_v20230424.txt, which comes in "
        "the package rwkv, by --vocabulary"
    )


def model_config(sizes: Mapping[str, int]) -> ModelConfig:
    """The shape of a model with the ``sizes`` that ``edgelm.convert.rwkv7.Rwkv7`` found."""
    width, ranks = sizes["d_model"], ("decay_rank", "rate_rank", "mix_rank", "gate_rank")
    mixer = Rwkv7TimeMix(width, EPS, sizes["n_heads"], sizes["head_dim"], *(sizes[rank] for rank in ranks))
    ffn = Rwkv7ChannelMix(width, EPS, sizes["hidden_size"])
    return ModelConfig(sizes["vocab_size"], width, sizes["n_layers"], mixer, ffn, EPS, norm="layer", tied=False)


def _table(config: ModelConfig) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Types and shapes of the tensors of the file."""
    table: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
    for name, spec in tensors(config).items():
        if is_quantizable(name) and spec.divides:
            table[name + ".q"] = np.dtype(np.uint8), spec.shape
            table[name + ".scale"] = np.dtype(np.float16), (*spec.shape[:-1], spec.shape[-1] // BLOCK)
        else:
            table[name] = np.dtype(np.float32), spec.shape
    return table


def _packed(source: Rwkv7, config: ModelConfig, on_progress: Progress) -> Iterator[tuple[str, Array]]:
    """The tensors of the file, one after the other."""
    missing, done = dict(tensors(config)), 0
    for name in source.names():
        del missing[name]
        for part in source.parts(name):
            yield from narrowed(pack({name: part})).items()
        done += 1
        on_progress(done)
    for name, spec in missing.items():  # what the first layer has no use for
        yield from narrowed(pack({name: np.zeros(spec.shape, np.float32)})).items()
        done += 1
        on_progress(done)


def _scales(folder: Path, on_progress: Progress) -> dict[str, Array]:
    """The scales of gradients that learning needs, of the model that lies in a folder."""
    model = hub.load(str(folder))
    ids = model.template.document(model.tokenizer.encode(general_text()))
    done = len(tensors(model.config))
    measured = adaptable_rms(
        model.config, model.operands, ids[: SEGMENT * MOST_SEGMENTS + 1], SEGMENT, lambda n: on_progress(done + n)
    )
    on_progress(done + MOST_SEGMENTS)
    return measured
