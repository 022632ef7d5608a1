"""``models import``: a checkpoint from elsewhere becomes a model that answers, learns, forgets and is exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelm.convert.opening import open_checkpoint
from edgelm.convert.rwkv7 import Rwkv7
from edgelm.model import hub
from edgelm.model.reference import forward
from edgelm.model.state import empty_state
from edgelm.model.weights import tensors
from tests.cli.conftest import Cli
from tests.command import assert_one_line
from tests.convert import checkpoints
from tests.model_folder import contents

pytestmark = pytest.mark.jit_only
N_BYTES = 256


def _weights(n_rows: int = N_BYTES) -> dict[str, np.ndarray]:
    """Those of a model that is at ease: what a matrix gives is about as large as what it is given."""
    weights = checkpoints.rwkv7(np.random.default_rng(0), n_rows=n_rows)
    for name, array in weights.items():
        if array.ndim == 2 and not name.startswith("emb"):
            array *= np.float32(0.5 * max(array.shape) ** -0.5)
    return weights


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "bytes.pth"
    path.write_bytes(checkpoints.pth(_weights()))
    return path


def test_it_is_the_model_of_the_file(cli: Cli, home: Path, checkpoint: Path) -> None:
    fields = cli("models", "import", checkpoint, "--json", model=None).json
    folder = home / "models" / "bytes"
    assert fields["name"] == "bytes" and fields["precision"] == "int8" and fields["folder"] == str(folder)
    model, source = hub.load(str(folder)), Rwkv7(open_checkpoint(checkpoint))
    exact = dict(source.tensors())
    for name, spec in tensors(model.config).items():
        exact.setdefault(name, np.zeros(spec.shape, np.float32))
    ids = np.arange(1, 99) * 37 % N_BYTES
    expected, _, _ = forward(ids, exact, empty_state(model.config), model.config)
    found, _, _ = forward(ids, model.weights, empty_state(model.config), model.config)
    assert np.abs(found - expected).mean() < 0.05 * expected.std()
    assert model.tokenizer.decode(model.tokenizer.encode("café")) == "café"


def test_it_answers_learns_and_forgets(cli: Cli, home: Path, checkpoint: Path, tmp_path: Path) -> None:
    cli("models", "import", checkpoint, "--name", "mine", model=None)
    mine = Path("mine")
    text = tmp_path / "words.txt"
    text.write_text("The ferry leaves at seven, and the baker is the first on board. " * 8)
    before = cli("evaluate", text, "--json", model=mine).json["bits_per_byte"]
    cli("adapt", text, "--json", model=mine)
    after = cli("evaluate", text, "--json", model=mine).json["bits_per_byte"]
    assert after < before
    for engine in ("kernels", "onnx"):
        said = cli("complete", "The ferry", "--engine", engine, "--json", model=mine)
        assert said.code == 0, said.stderr
    assert cli("profile", "rollback", "0", model=mine).code == 0
    forgotten = cli("evaluate", text, "--json", model=mine).json["bits_per_byte"]
    assert forgotten == pytest.approx(before, rel=1e-6)
    exported = cli("export", tmp_path / "onnx", "--quantize", "none", "--json", model=mine).json
    assert exported["max_abs_error"] < 1e-3


def test_what_is_refused_leaves_nothing(cli: Cli, home: Path, checkpoint: Path, tmp_path: Path) -> None:
    large, cut, other = tmp_path / "large.pth", tmp_path / "cut.pth", tmp_path / "other.bin"
    large.write_bytes(checkpoints.pth(_weights(300)))
    cut.write_bytes(checkpoint.read_bytes()[:-999])
    other.write_bytes(b"no checkpoint")
    for path, says in (
        (large, "--vocabulary"),
        (cut, "cut.pth"),
        (other, ".safetensors"),
        (tmp_path / "none.pth", "none"),
    ):
        result = cli("models", "import", path, model=None)
        assert result.code == 1
        assert_one_line(result)
        assert says in result.stderr
        assert not (home / "models").exists()
    cli("models", "import", checkpoint, model=None)
    before = contents(home)
    again = cli("models", "import", checkpoint, model=None)
    assert again.code == 1 and "bytes" in again.stderr and contents(home) == before
