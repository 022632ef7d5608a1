"""Documents, shards, and the streams drawn from them."""

from __future__ import annotations

import io
import json
import lzma
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from edgelm.text.opening import open_tokenizer
from edgelm.text.tokenizer import DOC_ID
from tools.pretrain.corpus import documents, read_documents, read_mixture
from tools.pretrain.data import TOKEN_BYTES, Streams, write_shard, write_token_bytes

MIXTURE = {"short": 1.0, "long": 0.5, "rare": 3.0}
LENGTHS = {"short": 5, "long": 60, "rare": 11}  # tokens of a document, its end included
N_DOCUMENTS = {"short": 200, "long": 100, "rare": 7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards whose tokens tell the source: 1000, 2000, 3000 and up, another number for each document."""
    folder = tmp_path_factory.mktemp("shards")
    for i, name in enumerate(MIXTURE):
        length = LENGTHS[name] - 1
        parts = [np.append(np.full(length, 1000 * (i + 1) + n), DOC_ID) for n in range(N_DOCUMENTS[name])]
        np.save(folder / f"{name}.npy", np.concatenate(parts).astype(np.uint16))
    np.save(folder / TOKEN_BYTES, np.arange(4000) % 7)
    return folder


def streams(folder: Path, seed: int = 0, mixture: dict[str, float] = MIXTURE) -> Streams:
    return Streams(folder, mixture, batch_size=3, window=32, seed=seed)


def batches(source: Streams, n: int) -> np.ndarray:
    """[n, B, T+1]."""
    return np.stack([source.next_batch() for _ in range(n)])


def test_streams_are_reproducible_by_seed(folder: Path) -> None:
    first = batches(streams(folder), 20)
    assert first.dtype == np.uint16
    assert first.shape == (20, 3, 33)
    np.testing.assert_array_equal(first, batches(streams(folder), 20))
    assert (first != batches(streams(folder, seed=1), 20)).any()


def test_streams_continue_from_their_state(folder: Path) -> None:
    source = streams(folder)
    batches(source, 7)
    state = json.loads(json.dumps(source.state()))  # as a checkpoint holds it
    other = streams(folder, seed=99)
    batches(other, 3)
    other.load_state(state)
    np.testing.assert_array_equal(batches(source, 20), batches(other, 20))


def test_rows_are_continuing_texts_of_whole_documents(folder: Path) -> None:
    drawn = batches(streams(folder), 50)
    np.testing.assert_array_equal(drawn[:-1, :, -1], drawn[1:, :, 0])
    assert (drawn[0, :, 0] == DOC_ID).all()
    for row in range(3):
        ids = drawn[:, row, :-1].ravel()
        pieces = np.split(ids, np.flatnonzero(ids == DOC_ID))
        for piece in pieces[1:-1]:  # before the first start there is nothing, the last may be cut
            lengths = dict(zip((1, 2, 3), LENGTHS.values(), strict=True))
            assert len(piece) == lengths[int(piece[1]) // 1000]
            assert len(set(piece[1:])) == 1


def test_sources_are_drawn_by_tokens_times_weight(folder: Path) -> None:
    ids = batches(streams(folder), 3000)[:, :, :-1]
    ids = ids[ids != DOC_ID]
    wanted = np.array([N_DOCUMENTS[n] * (LENGTHS[n] - 1) * MIXTURE[n] for n in MIXTURE])
    found = np.array([(ids // 1000 == i + 1).sum() for i in range(len(MIXTURE))])
    np.testing.assert_allclose(found / found.sum(), wanted / wanted.sum(), atol=0.01)
    # Every document has its turn.
    assert len(set(ids[ids < 2000])) == N_DOCUMENTS["short"]


def test_a_source_left_out_is_not_drawn(folder: Path) -> None:
    ids = batches(streams(folder, mixture={"rare": 1.0}), 20)
    assert set(np.unique(ids // 1000)) == {0, 3}


def test_shard_holds_the_documents(corpus: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    tokenizer, talk = open_tokenizer(tokenizer_file), list(read_documents(corpus, "talk"))
    n_tokens, n_bytes = write_shard(tokenizer, talk, tmp_path / "talk.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["talk.npy"]
    ids = np.load(tmp_path / "talk.npy")
    assert ids.dtype == np.uint16
    assert (n_tokens, n_bytes) == (len(ids), sum(len(document.encode()) for document in talk))
    assert ids[-1] == DOC_ID
    pieces = np.split(ids, np.flatnonzero(ids == DOC_ID) + 1)[:-1]
    assert [tokenizer.decode(piece[:-1].tolist()) for piece in pieces] == talk


def test_bytes_of_tokens(corpus: Path, tokenizer_file: Path, tmp_path: Path, folder: Path) -> None:
    tokenizer = open_tokenizer(tokenizer_file)
    write_token_bytes(tokenizer, tmp_path)
    ids = tokenizer.encode("How long is this?")
    assert np.load(tmp_path / TOKEN_BYTES)[ids].sum() == len("How long is this?")
    assert streams(folder).bytes_per_token(np.array([[6, 7], [8, 9]])) == pytest.approx((6 + 0 + 1 + 2) / 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n<|doc|>\nb\nc\n", ["a\n", "b\nc\n"]),
        ("<|doc|>\na\n<|doc|>\nb", ["a\n", "b\n"]),
        ("a\n<|doc|>\n", ["a\n"]),
        ("a\n<|doc|>", ["a\n"]),
        ("a\n<|doc|>\n<|doc|>\n<|doc|>\nb\n", ["a\n", "b\n"]),
        ("a\n<|doc|>\n \n\n<|doc|>\nb\n", ["a\n", "b\n"]),
        ("a <|doc|>\n<|doc|> b\n", ["a <|doc|>\n<|doc|> b\n"]),
        ("<|doc|>", []),
        ("", []),
    ],
)
def test_documents_are_cut_at_separator_lines(text: str, expected: list[str]) -> None:
    assert list(documents(io.StringIO(text, newline="\n"))) == expected


def test_reads_plain_and_packed_texts(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("einé\n", encoding="utf-8")
    with lzma.open(tmp_path / "two.txt.xz", "wt", encoding="utf-8") as file:
        file.write("zwei\n")
    assert [list(read_documents(tmp_path, name)) for name in ("one", "two")] == [["einé\n"], ["zwei\n"]]


def test_mixture_keeps_order_and_drops_zeros(tmp_path: Path) -> None:
    path = tmp_path / "mixture.toml"
    path.write_text("b = 2\na = 0.5\nc = 0\n", encoding="utf-8")
    assert list(read_mixture(path).items()) == [("b", 2.0), ("a", 0.5)]


@pytest.mark.parametrize("name", ["mixture", "mixture_talk"])
def test_bundled_mixtures_are_read(name: str) -> None:
    mixture = read_mixture(Path(read_mixture.__code__.co_filename).with_name(f"{name}.toml"))
    assert len(mixture) > 10
    assert all(0 < weight < 20 for weight in mixture.values())
