"""Slope section: a normalised exponential average over a fixed horizon per channel.

Equations and shapes: ``edgelm.model.reference``.
"""

from __future__ import annotations

from edgelm.kernels.jit import entry
from edgelm.kernels.norm import ONE
from edgelm.kernels.signature import F1, F2


@entry(F2, F1, F1, F1, F2, F2)
def slope_forward(v, decay, norm, state, norms, out):
    """One segment: n <- lam n + v, z <- lam z + 1, out = n / z.

    v, out [T,S]; more columns of v may follow; decay [S]; norm [S] (z of each feature) and state [S] (n) updated in
    place; norms [T,S] overwritten with z at every step, for backward.
    """
    for t in range(v.shape[0]):
        for j in range(decay.shape[0]):
            state[j] = decay[j] * state[j] + v[t, j]
            norm[j] = decay[j] * norm[j] + ONE
            norms[t, j] = norm[j]
            out[t, j] = state[j] / norm[j]


@entry(F2, F1, F2, F1, F2)
def slope_backward(dout, decay, norms, dstate, dv):
    """Gradients of one segment, given dout [T,S]: dn_t = dm_t / z_t + lam dn_{t+1}; dvs_t = dn_t.

    dstate [S] holds dL/dn after the segment and is updated in place to dL/dn before it; dv [T,S] is
    overwritten, more columns of it may follow. z is no function of the input, so nothing flows through it.
    """
    for t in range(dout.shape[0] - 1, -1, -1):
        flow, z, out = dout[t], norms[t], dv[t]
        for j in range(decay.shape[0]):
            out[j] = dstate[j] + flow[j] / z[j]
        for j in range(decay.shape[0]):
            dstate[j] = decay[j] * out[j]
