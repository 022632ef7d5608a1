"""Compiles all kernels for one level of ``ports/levels.toml``, on any machine.

python -m edgelm.kernels.compiler LEVEL OUT.so
python -m edgelm.kernels.compiler native FOLDER      for this processor, to be used by EDGELM_KERNELS=/path/of/FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgelm.config import compile_from_source
from edgelm.ports import level_of_this_processor, levels


def main() -> None:
    """Ends with one line where no library can be made."""
    name, out = sys.argv[1], Path(sys.argv[2])
    if name == "native":
        found = level_of_this_processor(levels())
        if found is None:
            sys.exit("ports/levels.toml has no level for this processor")
        name, out = found, out / f"{found}.so"
        out.parent.mkdir(parents=True, exist_ok=True)
    level = levels()[name]
    compile_from_source()
    try:
        from edgelm.kernels.compiler.link import find_linker, link
        from edgelm.kernels.compiler.parts import compile_all

        find_linker(level["triple"])
        parts = compile_all(level)
        link([blob for blob, _ in parts], level["triple"], out)
    except ImportError as exc:
        sys.exit(f"{exc.name} is not installed")
    except RuntimeError as exc:
        sys.exit(str(exc))
    print(f"{out}: {sum(n for _, n in parts)} kernels, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
