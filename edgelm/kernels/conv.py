"""Depthwise causal convolution over 4 tokens. Equations: ``edgelm.model.reference.conv4``."""

from __future__ import annotations

from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.signature import F2


@entry(F2, F2, F2, F2)
def conv_forward(u, taps, last, out):
    """u [T,F], of which more columns may follow; out [T,F]; taps [4,F], the last row for the present token; last [3,F],
    the tokens before."""
    n_steps, width = u.shape[0], taps.shape[1]
    for t in range(n_steps):
        for j in range(width):
            out[t, j] = taps[3, j] * u[t, j]
        for back in range(1, 4):
            row = u[t - back] if t >= back else last[3 + t - back]
            tap = taps[3 - back]
            for j in range(width):
                out[t, j] += tap[j] * row[j]


@entry(F2, F2, F2)
def conv_last(u, last, out):
    """out [3,F] = the last three tokens of ``last`` [3,F] and u [T,F], of which more columns may follow."""
    n_steps, width = u.shape[0], out.shape[1]
    for i in range(3):
        t = n_steps - 3 + i
        row = u[t] if t >= 0 else last[3 + t]
        for j in range(width):
            out[i, j] = row[j]


@entry(F2, F2, F2, F2, F2, F2)
def conv_backward(dout, u, taps, last, du, dtaps):
    """du [T,F] overwritten, dtaps [4,F] added to; nothing flows into ``last``, the segment before. More columns of u
    and du may follow."""
    n_steps, width = u.shape[0], taps.shape[1]
    for t in range(n_steps):
        row = du[t]
        for j in range(width):
            row[j] = 0
        for ahead in range(min(4, n_steps - t)):
            _add(taps[3 - ahead], dout[t + ahead], row)
        for back in range(4):
            _add(dout[t], u[t - back] if t >= back else last[3 + t - back], dtaps[3 - back])


@kernel
def _add(x, y, out):
    """out += x y, as long as the first two both are."""
    for j in range(min(len(x), len(y))):
        out[j] += x[j] * y[j]
