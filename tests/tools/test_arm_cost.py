"""What is counted on emulated Arm is counted right."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tools.arm import cost
from tools.arm.cost import BASE, BOARDS, END, Board, pages, resident, speed_range


def test_a_speed_is_bound_by_work_or_by_memory() -> None:
    board = Board("a board", clock=1.0, bandwidth=10.0, width=2)
    assert speed_range(board, 1e9, 0) == pytest.approx((1, 2))
    assert speed_range(board, 0, 10e9) == pytest.approx((0.5, 1))
    assert speed_range(board, 1e9, 10e9) == pytest.approx((1 / 3, 1))
    for each in BOARDS.values():
        least, most = speed_range(each, 1e7, 2e7)
        assert 0 < least < most


def test_pages_of_the_emulator_are_left_out() -> None:
    def mapping(start: int, kilobytes: int) -> str:
        return f"{start:x}-{start + 4096:x} rw-p 00000000 00:00 0 \nSize: 999 kB\nRss: {kilobytes:9d} kB\nPss: 5 kB\n"

    assert pages(mapping(BASE - 4096, 1) + mapping(BASE, 2) + mapping(END - 4096, 4) + mapping(END, 8)) == 6
    assert pages("") == 0
    assert resident(2**22 + 1) == 0


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_the_plugin_is_one(tmp_path: Path) -> None:
    source, library = Path(cost.__file__).with_name("count.c"), tmp_path / "count.so"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, source], check=True)
    assert {b"qemu_plugin_install", b"qemu_plugin_version"} <= set(library.read_bytes().split(b"\0"))
