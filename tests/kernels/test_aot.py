"""Kernels compiled ahead of time: every entry point does what plain Python does, and refuses what does not fit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelm.errors import DeviceError
from edgelm.kernels import aot, jit
from edgelm.kernels.signature import F2, flat

Array = np.ndarray
ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {"exp", "expf", "log", "logf", "log1p", "log1pf", "pow", "memcpy", "memmove", "memset"}


@pytest.fixture(scope="module")
def library(compiled: Path) -> aot.Library:
    """The library of this processor."""
    return aot.Library(next(compiled.glob("*.so")))


def given_to(entry: jit.Entry, plain: dict[str, Array]) -> list[Any]:
    """The arguments of an entry point as it takes them, tuples closed."""
    arrays: list[Array] = []
    for i, _ in enumerate(flat(entry.takes)):
        array, same = plain[f"{entry.symbol}/before/{i}"].copy(), plain.get(f"{entry.symbol}/is/{i}")
        arrays.append(array if same is None else arrays[same].view(array.dtype))
    opened = iter(arrays)

    def close(kind: Any) -> Any:
        if not hasattr(kind, "dtype"):
            return tuple(map(close, kind))
        value = next(opened)
        return value if kind.ndim else value.item()

    return [close(kind) for kind in entry.takes]


def compare(entry: jit.Entry, compiled: Callable[..., Any], arguments: list[Any], plain: dict[str, Array]) -> None:
    """Calls a compiled entry point; it leaves and returns what plain Python did."""
    returned = compiled(*arguments)
    wanted = plain[f"{entry.symbol}/returned"]
    np.testing.assert_allclose([] if returned is None else returned, wanted, rtol=1e-6, err_msg=entry.symbol)
    opened = [part for given in arguments for part in (given if isinstance(given, tuple) else (given,))]
    for i, found in enumerate(opened):
        expected = plain[f"{entry.symbol}/after/{i}"]
        scale = np.abs(np.nan_to_num(expected.astype(np.float64))).max(initial=1)
        # A whole layer part rounds many times over.
        tolerance = 4e-6 if entry.symbol.startswith(("fused_", "rwkv7_")) else 1e-6
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale, err_msg=f"{entry.symbol}, {i}")


def test_every_entry_point_does_what_plain_python_does(library: aot.Library, plain: dict[str, Array]) -> None:
    assert {entry.symbol for entry in jit.entries()} == {name.partition("/")[0] for name in plain}
    for entry in jit.entries():
        bound = library.bind(entry.symbol, entry.function, entry.takes, entry.returns)
        compare(entry, bound, given_to(entry, plain), plain)


def test_every_entry_point_is_made_again_out_of_a_chain(library: aot.Library, plain: dict[str, Array]) -> None:
    for entry in (entry for entry in jit.entries() if not entry.returns):
        arguments = given_to(entry, plain)
        chain = library.record(partial(library.bind(entry.symbol, entry.function, entry.takes, ()), *arguments))
        for i, array in enumerate(
            part for given in arguments for part in (given if type(given) is tuple else (given,))
        ):
            if isinstance(array, Array):
                array[...] = plain[f"{entry.symbol}/before/{i}"]
        compare(entry, lambda *_, chain=chain: chain(), arguments, plain)


def test_a_chain_is_of_one_thread_and_refuses_what_a_call_would(silu: Callable[..., Any], library: aot.Library) -> None:
    u, out, other = np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)

    def calls() -> None:
        silu(u, out)
        thread = threading.Thread(target=silu, args=(u, other))
        thread.start()
        thread.join()

    chain, once = library.record(calls), 1 / (1 + np.exp(-1))
    assert np.allclose(out, once)
    assert np.allclose(other, once)
    u[:] = 0
    chain()
    assert not out.any()
    assert other.all()
    u.resize(6, refcheck=False)
    with pytest.raises(TypeError, match="argument 1 is float32"):
        chain()


def silu_forward(u: Any, out: Any) -> None:
    """Its place is taken."""


@pytest.fixture(scope="module")
def silu(library: aot.Library) -> Callable[..., Any]:
    """A compiled kernel that takes two matrices."""
    return library.bind("norm_silu_forward", silu_forward, (F2, F2), ())


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 3)), np.zeros(6, np.float32), np.zeros((3, 2), np.float32).T, np.zeros((4, 3), np.float32)[::2],
        None, 1.0, [[1.0]], object,
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_refused(silu: Callable[..., Any], wrong: object) -> None:
    right = np.zeros((2, 3), np.float32)
    for arguments, place in (((wrong, right), 1), ((right, wrong), 2)):
        with pytest.raises(TypeError, match=f"argument {place} is .*, expected a C-contiguous array of float32"):
            silu(*arguments)
    for number in (1, 3):
        with pytest.raises(TypeError, match="expected 2 arguments"):
            silu(*[right] * number)


def test_a_compiled_kernel_keeps_its_help(silu: Callable[..., Any]) -> None:
    assert (silu.__name__, silu.__doc__) == ("silu_forward", silu_forward.__doc__)


def test_a_subclass_of_arrays_is_refused(silu: Callable[..., Any]) -> None:
    right = np.zeros((2, 3), np.float32)
    with pytest.raises(TypeError, match="argument 2"):
        silu(right, right.view(np.ma.MaskedArray))


def test_the_library_needs_libm_and_libc_of_long_ago(compiled: Path) -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm: install binutils")
    command = [nm, "-D", "--undefined-only", "--with-symbol-versions", str(next(compiled.glob("*.so")))]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    needed = [line.split()[-1].partition("@") for line in lines if line.strip()]
    assert {name for name, _, _ in needed} <= ALLOWED
    assert {version.strip("@") for _, _, version in needed} <= {"GLIBC_2.2.5", "GLIBC_2.17"}


def test_a_library_that_is_none_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "x86-64-v2.so"
    path.write_bytes(b"not a library")
    with pytest.raises(DeviceError, match="cannot be loaded"):
        aot.Library(path)


def test_the_library_of_this_processor_is_found(compiled: Path, tmp_path: Path) -> None:
    (path,) = compiled.glob("*.so")
    assert aot.find(compiled) == path
    assert aot.find(tmp_path) is None


SCRIPT = """
import sys, pathlib
from edgelm.kernels import aot
aot.made_here = lambda: pathlib.Path("/nowhere")
import edgelm.kernels.norm as n
print(type(n.silu_forward).__name__, "numba" in sys.modules)
"""


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("python", "function False"),
        ("aot", "DeviceError: EDGELM_KERNELS=aot: this installation has no compiled kernels"),
        ("/nowhere", "DeviceError: EDGELM_KERNELS=/nowhere: that folder has no compiled kernels"),
        ("gpu", "ConfigError: EDGELM_KERNELS must be aot, jit or python, not 'gpu'"),
    ],
)
def test_the_environment_chooses(choice: str, said: str) -> None:
    environment = {**os.environ, "EDGELM_KERNELS": choice}
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said in done.stdout + done.stderr


def test_the_environment_names_a_folder(compiled: Path) -> None:
    environment = {**os.environ, "EDGELM_KERNELS": str(compiled)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "function False\n", done.stderr


def test_without_library_and_numba_one_line_says_what_to_install() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "EDGELM_KERNELS"}
    script = SCRIPT.replace("import sys, pathlib", "import sys, pathlib; sys.modules['numba'] = None")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "DeviceError" in done.stderr and r"install edgelm[jit]" in done.stderr
