"""Fixtures for all tests."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Some tests call kernels in float64, which a library has none for: without a word numba compiles, whatever lies there.
os.environ.setdefault("EDGELM_KERNELS", "jit")

from edgelm.config import kernel_choice
from edgelm.kernels.compiler.here import compile_level
from edgelm.ports import level_of_this_processor, levels
from edgelm.text.opening import open_tokenizer
from edgelm.text.tokenizer import Tokenizer
from tests.model_folder import write_tiny_model
from tests.unwritten import nan_where_nothing_was_written

# A shell starts what runs in its background with interrupts ignored; tests, and the processes they start, need them.
signal.signal(signal.SIGINT, signal.default_int_handler)

ONCE = {
    "cli/test_swarm_command.py", "convert", "engine/test_fill.py", "engine/test_generate.py",
    "engine/test_sampler.py", "engine/test_session.py", "engine/test_suggest.py", "fuzz", "kernels/test_aot.py",
    "kernels/test_emit.py", "kernels/test_emit_integers.py", "learn/test_gradients.py", "log/test_packs.py",
    "matrices/test_quantize.py",
    "measure/test_point.py", "measure/test_recall.py", "memory/test_answering.py", "memory/test_bank.py",
    "memory/test_meaning.py", "memory/test_words.py", "model", "swarm", "test_config.py", "test_docs.py",
    "test_docstrings.py", "test_heat.py", "test_house.py", "test_ports.py", "test_readme.py", "serve",
    "text",
    "tools/test_build_wheel.py", "tools/test_levels.py",
}  # fmt: skip
"""Files and folders that have nothing to do with how kernels run."""
JIT_ONLY = {
    "cli/test_ask.py", "cli/test_bad_input.py", "cli/test_import.py", "cli/test_interrupt.py",
    "cli/test_light_start.py", "cli/test_models.py", "cli/test_pack_command.py", "cli/test_profile_command.py",
    "cli/test_serve_command.py", "cli/test_terminal.py", "golden", "learn/test_events.py", "learn/test_worker.py",
    "test_asking.py", "test_bundled_model.py", "test_llm_plugin.py", "tools",
}  # fmt: skip
"""Those that are too slow without compiled kernels, start processes and tools that coverage does not see, or do not
depend on which engine answers."""


def _is_in(item: pytest.Item, places: set[str]) -> bool:
    path = item.path.relative_to(Path(__file__).parent)
    return any(place.as_posix() in places for place in (path, *path.parents))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test is in the pass with compiled kernels, in the one without (``make check``), or in both."""
    for item in items:
        if item.get_closest_marker("jit_only") is None and _is_in(item, ONCE):
            item.add_marker("once")
        elif item.get_closest_marker("once") is None and _is_in(item, JIT_ONLY):
            item.add_marker("jit_only")
        assert not {"once", "jit_only"} <= {mark.name for mark in item.iter_markers()}, f"{item.nodeid} runs nowhere"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that runs in no time. Not to be written to: copy it."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Tokenizer:
    """The tokenizer of the tiny model."""
    return open_tokenizer(tiny_model / "tokenizer.json")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own (``EDGELM_HOME``), not made yet."""
    folder = tmp_path / "home"
    monkeypatch.setenv("EDGELM_HOME", str(folder))
    return folder


# A machine may be busy with something else: no test says how long anything takes.
settings.register_profile("edgelm", deadline=None)
settings.load_profile("edgelm")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one library of kernels, compiled ahead of time for this processor (``EDGELM_KERNELS``)."""
    if isinstance(folder := kernel_choice(), Path):
        return folder
    level = level_of_this_processor(levels())
    if level is None:
        pytest.skip(f"ports/levels.toml has no level for this processor ({platform.system()} {platform.machine()})")
    numba = pytest.importorskip("numba", reason="kernels are compiled by numba")
    codegen = pytest.importorskip("edgelm.kernels.compiler.codegen")
    from edgelm.kernels.compiler.link import find_linker

    if not numba.__version__.startswith(codegen.PINNED):
        pytest.skip(f"kernels are compiled ahead of time by numba {codegen.PINNED}x, not {numba.__version__}")
    try:
        find_linker(levels()[level]["triple"])
    except RuntimeError as exc:
        pytest.skip(str(exc))
    path = tmp_path_factory.mktemp("compiled") / f"{level}.so"
    compile_level(level, path)
    return path.parent


@pytest.fixture(scope="session", autouse=True)
def unwritten() -> Iterator[None]:
    """In all tests the package's fresh buffers are NaN; what another process does is its own."""
    with nan_where_nothing_was_written():
        yield
