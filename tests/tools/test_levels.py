"""What a level of ``ports/levels.toml`` says of integers is what its library multiplies them with."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from edgelm import ports
from edgelm.kernels.emit_dots import kind_of
from edgelm.kernels.emit_halves import has_halves
from tests.command import ROOT

pytest.importorskip("numba", reason="kernels are compiled by numba")
SCRIPT = """
import sys
from edgelm.kernels.compiler.objects import compile_library
one = lambda points: [point for point in points if point.symbol == "dots_integer_product"]
library, _ = compile_library(*sys.argv[1:4], one)
print(library._codegen._tm.emit_assembly(library._final_module))
"""
ZMM, YMM, XMM = (rf"\t.*%{kind}mm\d+" for kind in "zyx")
PRODUCTS = {
    "vnni 512": rf"vpdpbusd{ZMM}", "vnni 256": rf"vpdpbusd{YMM}",
    "madd 256": rf"pmaddwd{YMM}", "madd 128": rf"pmaddwd{XMM}",
    "sdot 128": r"sdot\tv\d+\.4s, v\d+\.16b", "smull 128": r"sm[lu]la?l2?\tv\d+\.8h, v\d+\.(8|16)b",
}  # fmt: skip
"""By kind and bits, what multiplies in the assembly of LLVM."""
TERNARY = PRODUCTS | {"madd 256": rf"pmaddubsw{YMM}", "madd 128": rf"pmaddubsw{XMM}"}
"""What multiplies numbers of 2 bits. ``pmaddwd`` LLVM finds by itself where it sees how small they are."""
LEVELS = {
    "x86-64-v4": "vnni 512", "x86-64-avxvnni": "vnni 256", "x86-64-v3": "madd 256", "x86-64-v2": "madd 128",
    "aarch64-cortex-a76": "sdot 128", "aarch64-cortex-a53": "smull 128",
}  # fmt: skip


def assembly(name: str, features: str | None = None) -> str:
    """That of a product of integers, with all it calls, of a level, maybe with other features."""
    level = ports.levels()[name]
    given = [level["triple"], level["cpu"], level["features"] if features is None else features]
    environment = {**os.environ, "EDGELM_KERNELS": "jit", "NUMBA_DISABLE_JIT": "0"}
    command = [sys.executable, "-c", SCRIPT, *given]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kinds(code: str) -> set[str]:
    """How the code multiplies."""
    return {kind for kind, pattern in PRODUCTS.items() if re.search(pattern, code)}


@pytest.mark.parametrize("name", ports.levels())
def test_a_level_multiplies_integers_as_its_processor_can(name: str) -> None:
    level = ports.levels()[name]
    kind, bits = kind_of(level["triple"], level["features"])
    assert f"{kind} {bits}" == LEVELS[name]
    code = assembly(name)
    assert kinds(code) == {LEVELS[name]} and re.search(TERNARY[LEVELS[name]], code)


@pytest.mark.parametrize("name", ports.levels())
def test_a_level_converts_numbers_of_16_bits_where_its_processor_can(name: str) -> None:
    level = ports.levels()[name]
    can = "f16c" in level["needs"] or level["triple"].startswith("aarch64")
    assert has_halves(level["triple"], level["features"]) == can


@pytest.mark.parametrize("name", ["x86-64-v4", "x86-64-v2", "aarch64-cortex-a76"])
def test_what_a_level_does_not_name_is_not_used(name: str) -> None:
    assert not re.search(TERNARY[LEVELS[name]], assembly(name, features=""))


@pytest.mark.parametrize(
    ("triple", "features", "kind"),
    [
        ("x86_64-linux-gnu", "+avx2,+avxvnni,+avx512vnni,+avx512vl,+avx512bw", ("vnni", 512)),
        ("x86_64-linux-gnu", "+sse4.1,+avx2,+avx512vnni,-avx512vl,+avx512bw", ("madd", 256)),
        ("x86_64-linux-gnu", "+avx2,-avxvnni", ("madd", 256)),
        ("x86_64-linux-gnu", "+sse4.1,-avx2", ("madd", 128)),
        ("x86_64-linux-gnu", "", ("plain", 128)),
        ("arm64-apple-darwin", "+neon,+dotprod", ("sdot", 128)),
        ("aarch64-linux-gnu", "-dotprod", ("smull", 128)),
        ("riscv64-linux-gnu", "+avx2,+dotprod", ("plain", 128)),
    ],
)
def test_the_kind_of_a_processor(triple: str, features: str, kind: tuple[str, int]) -> None:
    assert kind_of(triple, features) == kind
