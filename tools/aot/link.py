"""An object file to a shared library that any glibc of the last years can load, with a linker and nothing else.

What the kernels call stands in libm and libc, at their oldest version for the machine. The linker sees stand-ins that
are made here: those of a present system would ask for that system's age (``log`` for glibc 2.29).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import llvmlite.binding as llvm

OLDEST = {"x86_64": "GLIBC_2.2.5", "aarch64": "GLIBC_2.17"}
"""The first glibc of each machine, by the name that its symbols bear."""
SYMBOLS = {
    "libm.so.6": ("exp", "expf", "log", "logf", "log1p", "log1pf", "pow", "powf", "floor", "floorf"),
    "libc.so.6": ("memcpy", "memmove", "memset"),
}


def find_linker(triple: str) -> str | None:
    """GNU ld for a machine, if it is installed (Debian: binutils-aarch64-linux-gnu)."""
    own = llvm.get_default_triple().partition("-")[0] == triple.partition("-")[0]
    return shutil.which(f"{triple}-ld") or (shutil.which("ld") if own else None)


def link(blob: bytes, triple: str, out: Path) -> None:
    """Writes the shared library ``out``.

    Raises
    ------
    RuntimeError
        There is no linker for this machine, or something is called that is neither in libm nor in libc.
    """
    linker, machine = find_linker(triple), triple.partition("-")[0]
    if linker is None:
        raise RuntimeError(f"no linker for {triple}: install binutils-{machine.replace('_', '-')}-linux-gnu")
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        (room / "kernels.o").write_bytes(blob)
        stubs = [_stub(linker, room, triple, soname) for soname in SYMBOLS]
        # Nothing in it tells when, where and from what it was made.
        options = ["-s", "--build-id=none", "--hash-style=gnu", "--no-undefined", "--as-needed"]
        options += ["-z", "now", "-z", "relro", "-z", "noexecstack"]
        _run(linker, "-shared", *options, "-soname", "edgelm-kernels.so", "-o", out, room / "kernels.o", *stubs)
        out.chmod(0o644)


def _stub(linker: str, room: Path, triple: str, soname: str) -> Path:
    functions = "".join(f"define void @{name}() {{ ret void }}\n" for name in SYMBOLS[soname])
    machine = llvm.Target.from_triple(triple).create_target_machine(reloc="pic")
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{functions}')
    (room / "stub.o").write_bytes(machine.emit_object(module))
    (room / "versions").write_text(f"{OLDEST[triple.partition('-')[0]]} {{ global: *; }};\n", encoding="ascii")
    stub = room / soname
    _run(linker, "-shared", "-soname", soname, "--version-script", room / "versions", "-o", stub, room / "stub.o")
    return stub


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
