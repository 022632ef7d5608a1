"""The library that is compiled here, once: where it lies, when it is used, and what is said where there can be none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgelm import ports
from edgelm.cli.main import cli
from edgelm.kernels import aot
from edgelm.kernels.compiler import here

LEVEL = "x86-64-v2"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the library shall lie, on a processor of ``LEVEL``, in an installation that came without one."""
    folder = tmp_path / "__pycache__" / "kernels-0123456789abcdef"
    monkeypatch.delenv("EDGELM_KERNELS")
    monkeypatch.setattr(aot, "made_here", lambda: folder)
    monkeypatch.setattr(aot, "FOLDER", tmp_path / "compiled")
    monkeypatch.setattr(ports, "level_of_this_processor", lambda among: LEVEL if LEVEL in among else None)
    return folder


def refuse(level: str, out: Path) -> None:
    """Stands for a compiler that cannot."""
    raise RuntimeError("no linker for x86_64-linux-gnu")


def test_it_is_made_once_and_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert aot.choose() is None
    monkeypatch.setattr(here, "compile_level", lambda level, out: out.write_bytes(level.encode()))
    old = folder.with_name("kernels-of-other-sources")
    old.mkdir(parents=True)
    assert here.make() == ""
    path = folder / f"{LEVEL}.so"
    assert path.read_bytes() == LEVEL.encode()
    assert aot.choose() == path and aot.in_use() == LEVEL
    assert [*folder.parent.iterdir()] == [folder]


def test_what_came_with_the_wheel_goes_before_it(folder: Path) -> None:
    for place in (folder, aot.FOLDER):
        place.mkdir(parents=True)
        (place / f"{LEVEL}.so").touch()
    assert aot.choose() == aot.FOLDER / f"{LEVEL}.so"


def test_where_it_cannot_be_made_nothing_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "compile_level", refuse)
    assert here.make() == "no linker for x86_64-linux-gnu"
    assert [*folder.parent.iterdir()] == [] and aot.choose() is None


def test_a_folder_that_cannot_be_written_to(folder: Path) -> None:
    folder.parent.write_text("a file")
    assert here.make() == f"{folder.parent} cannot be written to (File exists)"


def test_a_processor_without_a_level(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "level_of_this_processor", lambda among: None)
    assert here.make() == "ports/levels.toml has no level for this processor"


def test_a_compiler_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"^(no linker for .*: install binutils-.*|\w+ is not installed)$"):
        here.compile_level(next(iter(ports.levels())), tmp_path / "out.so")
    assert [*tmp_path.iterdir()] == []


def test_other_sources_have_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(aot.__file__)
    before = aot.made_here()
    assert before.parent == source.parent / "__pycache__"
    shutil.copytree(source.parent, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__", "compiled"))
    monkeypatch.setattr(aot, "__file__", str(tmp_path / "kernels" / source.name))
    aot.made_here.cache_clear()
    try:
        assert aot.made_here().name == before.name
        (tmp_path / "kernels" / "compiler" / "shims.py").write_text("# another\n")
        aot.made_here.cache_clear()
        assert aot.made_here().name != before.name
    finally:
        aot.made_here.cache_clear()


@pytest.mark.parametrize("why_not", ["", "no linker for x86_64-linux-gnu: install binutils-x86-64-linux-gnu"])
def test_info_has_it_made_once(
    why_not: str, folder: Path, home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def make() -> str:
        made.append(True)
        if not why_not:
            folder.mkdir(parents=True)
            (folder / f"{LEVEL}.so").touch()
        return why_not

    monkeypatch.setattr(here, "make", make)
    # An engine that is asked for is not measured: no kernel is loaded.
    command = ["info", "--measure", "--engine", "kernels", "--model", str(tiny_model)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert (f"no library of all was made: {why_not}\n" in done.stderr) == bool(why_not)
    assert f"kernels         {'jit' if why_not else LEVEL}\n" in done.stdout
    if not why_not:
        CliRunner().invoke(cli, command)
        assert made == [True]
