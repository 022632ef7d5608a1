"""The recurrences of the mixers as PyTorch operators.

On the CPU they run the kernels of ``edgelm.kernels`` over the rows of a batch; elsewhere the chunked
form in ``edgelm/bench/peers/twins/chunked.py``. A row may hold several documents: the state is emptied where one
begins. Gradients stop at the start of the segment (truncated back-propagation).
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from edgelm.kernels.decay import CHUNK, decay_backward, decay_forward
from edgelm.kernels.jit import kernel
from edgelm.kernels.slope import slope_backward, slope_forward
from edgelm.kernels.wkv import wkv_backward, wkv_forward

_pool = ThreadPoolExecutor(max_workers=torch.get_num_threads())


def _over_rows(function, n_rows: int, *arrays: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    """Runs ``function`` on contiguous groups of rows, one group a thread."""
    n_groups = min(_pool._max_workers, n_rows)
    if n_groups == 1:
        function(*arrays)  # a thread of its own would take longer than a single token does
        return
    cuts = [n_rows * i // n_groups for i in range(n_groups + 1)]
    jobs = [_pool.submit(function, *[array[a:b] for array in arrays]) for a, b in itertools.pairwise(cuts)]
    for job in jobs:
        job.result()


@kernel
def _run_end(starts, t):  # type: ignore[no-untyped-def]
    t += 1
    while t < len(starts) and not starts[t]:
        t += 1
    return t


@kernel
def _decay_rows(q, k, v, g, beta, starts, state, out):  # type: ignore[no-untyped-def]
    n_rows, n_steps, n_heads, key_dim = q.shape
    value_dim = v.shape[3]
    checkpoints = np.zeros((n_steps // CHUNK + 1, n_heads, key_dim, value_dim), q.dtype)
    e = np.zeros(value_dim, q.dtype)
    for b in range(n_rows):
        t0 = 0
        while t0 < n_steps:
            t1 = _run_end(starts[b], t0)
            if starts[b, t0]:
                state[b] = 0
            run = slice(t0, t1)
            decay_forward(
                q[b, run], k[b, run], v[b, run], g[b, run], beta[b, run], e, checkpoints, state[b], out[b, run]
            )
            t0 = t1


@kernel
def _decay_rows_backward(dout, q, k, v, g, beta, starts, state, dq, dk, dv, dg, dbeta):  # type: ignore[no-untyped-def]
    n_rows, n_steps, n_heads, key_dim = q.shape
    value_dim = v.shape[3]
    checkpoints = np.zeros((n_steps // CHUNK + 1, n_heads, key_dim, value_dim), q.dtype)
    scratch = np.zeros((CHUNK + 3, key_dim, value_dim), q.dtype)
    dstate = np.zeros((n_heads, key_dim, value_dim), q.dtype)
    s = np.zeros((n_heads, key_dim, value_dim), q.dtype)
    out = np.zeros((n_steps, n_heads, value_dim), q.dtype)
    e = np.zeros(value_dim, q.dtype)
    for b in range(n_rows):
        # The runs of a row are independent: gradients do not cross documents.
        t0 = 0
        s[:] = state[b]
        while t0 < n_steps:
            t1 = _run_end(starts[b], t0)
            if starts[b, t0]:
                s[:] = 0
            r = slice(t0, t1)
            decay_forward(q[b, r], k[b, r], v[b, r], g[b, r], beta[b, r], e, checkpoints, s, out[: t1 - t0])
            dstate[:] = 0
            decay_backward(
                dout[b, r], q[b, r], k[b, r], v[b, r], g[b, r], beta[b, r], checkpoints, scratch, dstate,
                dq[b, r], dk[b, r], dv[b, r], dg[b, r], dbeta[b, r],
            )  # fmt: skip
            t0 = t1


@kernel
def _slope_rows(v, decay, starts, norm, state, norms, out):  # type: ignore[no-untyped-def]
    n_rows, n_steps, _ = v.shape
    for b in range(n_rows):
        t0 = 0
        while t0 < n_steps:
            t1 = _run_end(starts[b], t0)
            if starts[b, t0]:
                state[b] = 0
                norm[b] = 0
            slope_forward(v[b, t0:t1], decay[b], norm[b], state[b], norms[b, t0:t1], out[b, t0:t1])
            t0 = t1


@kernel
def _slope_rows_backward(dout, decay, starts, norms, dv):  # type: ignore[no-untyped-def]
    n_rows, n_steps, n_features = dout.shape
    dstate = np.zeros(n_features, dout.dtype)
    for b in range(n_rows):
        t0 = 0
        while t0 < n_steps:
            t1 = _run_end(starts[b], t0)
            dstate[:] = 0
            slope_backward(dout[b, t0:t1], decay[b], norms[b, t0:t1], dstate, dv[b, t0:t1])
            t0 = t1


@kernel
def _wkv_rows(r, keep, k, v, kk, a, starts, memory, out):  # type: ignore[no-untyped-def]
    n_rows, n_steps, _ = r.shape
    for b in range(n_rows):
        t0 = 0
        while t0 < n_steps:
            t1 = _run_end(starts[b], t0)
            if starts[b, t0]:
                memory[b] = 0
            run = slice(t0, t1)
            given = (r[b, run], keep[b, run], k[b, run], v[b, run], kk[b, run], a[b, run])
            wkv_forward(given, memory[b], out[b, run])
            t0 = t1


@kernel
def _wkv_rows_backward(dout, r, keep, k, v, kk, a, starts, memory, dr, dkeep, dk, dv, dkk, da):  # type: ignore[no-untyped-def]
    n_rows, n_steps, _ = r.shape
    n_heads, size = memory.shape[1:3]
    history, removed = np.zeros((n_steps + 1, size, size), r.dtype), np.zeros((n_steps, size), r.dtype)
    du, ds = np.zeros(size, r.dtype), np.zeros((size, size), r.dtype)
    before = np.zeros((n_heads, size, size), r.dtype)
    for b in range(n_rows):
        # No gradient crosses documents: those after the first begin with an empty memory.
        t0 = 0
        before[:] = memory[b]
        while t0 < n_steps:
            t1 = _run_end(starts[b], t0)
            if starts[b, t0]:
                before[:] = 0
            run = slice(t0, t1)
            given = (r[b, run], keep[b, run], k[b, run], v[b, run], kk[b, run], a[b, run])
            grads = (dr[b, run], dkeep[b, run], dk[b, run], dv[b, run], dkk[b, run], da[b, run])
            wkv_backward(dout[b, run], given, before, (history, removed, du, ds), grads)
            t0 = t1


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


@torch.library.custom_op("edgelm::decay_scan", mutates_args=())
def decay_scan(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, starts: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Gated delta rule over rows: q, k [B,T,H,K], v [B,T,H,Vd], g, beta [B,T,H], starts [B,T] bool,
    state [B,H,K,Vd]; returns the outputs [B,T,H,Vd] and the state after the segment."""
    last = state.clone(memory_format=torch.contiguous_format)
    out = torch.empty(v.shape, dtype=v.dtype)
    _over_rows(_decay_rows, len(q), *_arrays(q, k, v, g, beta, starts), last.numpy(), out.numpy())
    return out, last


@decay_scan.register_fake
def _(q, k, v, g, beta, starts, state):  # type: ignore[no-untyped-def]
    return v.new_empty(v.shape), state.new_empty(state.shape)


@torch.library.custom_op("edgelm::decay_scan_backward", mutates_args=())
def decay_scan_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, starts: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``decay_scan`` with respect to q, k, v, g, beta."""
    grads = tuple(torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v, g, beta))
    arrays = _arrays(dout, q, k, v, g, beta, starts, state)
    _over_rows(_decay_rows_backward, len(q), *arrays, *[grad.numpy() for grad in grads])
    return grads


@decay_scan_backward.register_fake
def _(dout, q, k, v, g, beta, starts, state):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in (q, k, v, g, beta))


def _save_decay(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _decay_grad(ctx, dout, _dlast):  # type: ignore[no-untyped-def]
    return *decay_scan_backward(dout, *ctx.saved_tensors), None, None


decay_scan.register_autograd(_decay_grad, setup_context=_save_decay)


def _of_features(decay: Tensor, v: Tensor) -> Tensor:
    """The decays [C] of channels as [B,S], one for each feature of v [B,T,S]."""
    return decay.repeat_interleave(v.shape[-1] // len(decay)).expand(len(v), -1)


@torch.library.custom_op("edgelm::slope_scan", mutates_args=())
def slope_scan(
    v: Tensor, decay: Tensor, starts: Tensor, norm: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slope section over rows: v [B,T,S], decay [C], one of each S/C features, starts [B,T] bool, norm and state
    [B,S]; returns the outputs [B,T,S], z at every step [B,T,S], and norm and state after the segment."""
    rows = len(v)
    last, last_norm = state.clone(), norm.clone()
    out, norms = torch.empty(v.shape, dtype=v.dtype), torch.empty(v.shape, dtype=v.dtype)
    decays = _of_features(decay, v)
    arrays = [*_arrays(v, decays, starts), last_norm.numpy(), last.numpy(), norms.numpy(), out.numpy()]
    _over_rows(_slope_rows, rows, *arrays)
    return out, norms, last_norm, last


@slope_scan.register_fake
def _(v, decay, starts, norm, state):  # type: ignore[no-untyped-def]
    return v.new_empty(v.shape), v.new_empty(v.shape), norm.new_empty(norm.shape), state.new_empty(state.shape)


@torch.library.custom_op("edgelm::slope_scan_backward", mutates_args=())
def slope_scan_backward(dout: Tensor, decay: Tensor, starts: Tensor, norms: Tensor) -> Tensor:
    """Gradient of ``slope_scan`` with respect to v."""
    dv = torch.empty(dout.shape, dtype=dout.dtype)
    decays = _of_features(decay, dout)
    _over_rows(_slope_rows_backward, len(dout), *_arrays(dout, decays, starts, norms), dv.numpy())
    return dv


@slope_scan_backward.register_fake
def _(dout, decay, starts, norms):  # type: ignore[no-untyped-def]
    return dout.new_empty(dout.shape)


def _save_slope(ctx, inputs, output):  # type: ignore[no-untyped-def]
    _, decay, starts, _, _ = inputs
    ctx.save_for_backward(decay, starts, output[1])


def _slope_grad(ctx, dout, _dnorms, _dlast_norm, _dlast):  # type: ignore[no-untyped-def]
    return slope_scan_backward(dout, *ctx.saved_tensors), None, None, None, None


slope_scan.register_autograd(_slope_grad, setup_context=_save_slope)


@torch.library.custom_op("edgelm::wkv_scan", mutates_args=())
def wkv_scan(
    r: Tensor, keep: Tensor, k: Tensor, v: Tensor, kk: Tensor, a: Tensor, starts: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """RWKV-7's memory over rows: r, keep, k, v, kk, a [B,T,H N], starts [B,T] bool, memory [B,H,N,N]; returns
    the outputs [B,T,H N] and the memory after the segment."""
    last = memory.clone(memory_format=torch.contiguous_format)
    out = torch.empty(v.shape, dtype=v.dtype)
    _over_rows(_wkv_rows, len(r), *_arrays(r, keep, k, v, kk, a, starts), last.numpy(), out.numpy())
    return out, last


@wkv_scan.register_fake
def _(r, keep, k, v, kk, a, starts, memory):  # type: ignore[no-untyped-def]
    return v.new_empty(v.shape), memory.new_empty(memory.shape)


@torch.library.custom_op("edgelm::wkv_scan_backward", mutates_args=())
def _wkv_scan_backward(
    dout: Tensor, r: Tensor, keep: Tensor, k: Tensor, v: Tensor, kk: Tensor, a: Tensor, starts: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``wkv_scan`` with respect to r, keep, k, v, kk, a."""
    grads = tuple(torch.empty(x.shape, dtype=x.dtype) for x in (r, keep, k, v, kk, a))
    arrays = _arrays(dout, r, keep, k, v, kk, a, starts, memory)
    _over_rows(_wkv_rows_backward, len(r), *arrays, *[grad.numpy() for grad in grads])
    return grads


@_wkv_scan_backward.register_fake
def _(dout, r, keep, k, v, kk, a, starts, memory):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in (r, keep, k, v, kk, a))


def _save_wkv(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _wkv_grad(ctx, dout, _dlast):  # type: ignore[no-untyped-def]
    return *_wkv_scan_backward(dout, *ctx.saved_tensors), None, None


wkv_scan.register_autograd(_wkv_grad, setup_context=_save_wkv)
