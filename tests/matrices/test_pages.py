"""Memory for arrays side by side."""

from __future__ import annotations

import numpy as np

from edgelm.matrices import pages


def test_arrays_begin_with_a_line_and_share_nothing() -> None:
    memory = pages.Pages()
    shapes = [((3, 5), np.uint8), ((7,), np.float32), ((pages._PIECE // 4 + 1,), np.float32)]
    arrays = [memory.array(shape, dtype) for shape, dtype in shapes * 2]
    for i, (array, (shape, dtype)) in enumerate(zip(arrays, shapes * 2, strict=True)):
        assert (array.shape, array.dtype) == (shape, dtype) and array.flags.c_contiguous
        assert array.ctypes.data % pages._LINE == 0
        array.fill(i)
    assert all((array == i).all() for i, array in enumerate(arrays))


def test_pages_are_nobodys_before_they_are_written() -> None:
    held = pages.untouched((1 << 10, 1 << 10), np.float16)
    assert held.dtype == np.float16
    assert held.flags.writeable
    assert not held.any()
    held[5] = 1
    assert (held[5] == 1).all()
    assert pages.untouched((3,), np.int64).tolist() == [0, 0, 0]
