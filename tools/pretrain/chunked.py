"""The two recurrences of the mixer as batched tensor operations, for a GPU.

Same signatures and results as ``tools/pretrain/scan.py``. The decay section runs over chunks of tokens in
the WY/UT form (Yang et al. 2024, arXiv 2412.06464): within a chunk all tokens at once, from chunk to chunk
one small matrix product. With b_t the sum of g up to t, S_0 the state before the chunk, u_t = beta_t e_t::

    u_t = beta_t (v_t - exp(b_t) S_0' k_t - sum_{i<t} exp(b_t - b_i) (k_t . k_i) u_i)     triangular system
    o_t = exp(b_t) S_0' q_t + sum_{i<=t} exp(b_t - b_i) (q_t . k_i) u_i
    S_C = exp(b_C) S_0 + sum_i exp(b_C - b_i) k_i u_i'

The system is solved, not inverted by powers of its matrix: where keys repeat, those grow before they cancel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64
RESET = -1e4
"""g of the first token of a document: exp(RESET) is exactly 0, and sums that begin later never see it."""


def decay_scan(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, starts: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Gated delta rule over rows: q, k [B,T,H,K], v [B,T,H,Vd], g, beta [B,T,H], starts [B,T] bool,
    state [B,H,K,Vd]; returns the outputs [B,T,H,Vd] and, detached, the state after the segment.

    Half precision is raised to float32; no gradient flows into ``state``.
    """
    steps, dtype = q.shape[1], torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        g = g.masked_fill(starts.unsqueeze(-1), RESET)
        q, k, v, g, beta = (_chunks(x.to(dtype)) for x in (q, k, v, g, beta))
        seen = g.cumsum(-1).exp().unsqueeze(-1)  # [B,N,H,C,1]: what is left of S_0 at t
        left = _decays(g)  # [B,N,H,C,C]: what is left at t of a write at i
        overlap = beta.unsqueeze(-1) * left * (k @ k.mT)
        writes = beta.unsqueeze(-1) * torch.cat([v, seen * k], -1)
        solved = torch.linalg.solve_triangular(overlap, writes, upper=False, unitriangular=True)
        fresh, removed = solved.split([v.shape[-1], k.shape[-1]], -1)  # u = fresh - removed S_0
        kept = (left[..., -1, :].unsqueeze(-1) * k).mT
        eye = torch.eye(k.shape[-1], dtype=dtype, device=q.device)
        before, last = _states(seen[..., -1:, :] * eye - kept @ removed, kept @ fresh, state.detach().to(dtype))
        out = (seen * q) @ before + (left * (q @ k.mT)) @ (fresh - removed @ before)
        return out.transpose(2, 3).flatten(1, 2)[:, :steps], last.detach()


def gated_scan(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, starts: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """As ``decay_scan`` without the delta rule: S = exp(g) S + beta k v'."""
    steps = q.shape[1]
    with torch.autocast(q.device.type, enabled=False):
        g = g.masked_fill(starts.unsqueeze(-1), RESET)
        q, k, v, g, beta = (_chunks(x.float()) for x in (q, k, v, g, beta))
        seen, left, writes = g.cumsum(-1).exp().unsqueeze(-1), _decays(g), beta.unsqueeze(-1) * v
        kept = (left[..., -1, :].unsqueeze(-1) * k).mT
        eye = torch.eye(k.shape[-1], device=q.device)
        before, last = _states(seen[..., -1:, :] * eye, kept @ writes, state.detach())
        out = (seen * q) @ before + (left * (q @ k.mT)) @ writes
        return out.transpose(2, 3).flatten(1, 2)[:, :steps], last.detach()


def _chunks(x: Tensor) -> Tensor:
    """[B,T,H,...] to [B,N,H,CHUNK,...]; tokens of zeros fill the last chunk and leave the state as it is."""
    missing = -x.shape[1] % CHUNK
    x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing))
    return x.unflatten(1, (-1, CHUNK)).transpose(2, 3)


def _decays(g: Tensor) -> Tensor:
    """g [...,C] to exp(g_{i+1} + ... + g_t) [...,t,i], 0 where i > t.

    Each sum is made by itself: a difference of sums from the start of the chunk would lose its digits.
    """
    size = g.shape[-1]
    lower = torch.ones(size, size, dtype=torch.bool, device=g.device).tril()
    sums = torch.where(lower.tril(-1), g.unsqueeze(-1), 0.0).cumsum(-2)
    return sums.masked_fill(~lower, float("-inf")).exp()


def _states(transition: Tensor, added: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """S <- transition S + added over the chunks: transition [B,N,H,K,K], added [B,N,H,K,Vd], state
    [B,H,K,Vd] to the states before each chunk [B,N,H,K,Vd] and the last."""
    before = []
    for f, a in zip(transition.unbind(1), added.unbind(1), strict=True):
        before.append(state)
        state = f @ state + a
    return torch.stack(before, 1), state


def slope_scan(
    v: Tensor, decay: Tensor, starts: Tensor, norm: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slope section over rows: v [B,T,S], decay [S], starts [B,T] bool, norm and state [B,S]; returns
    the outputs [B,T,S], z at every step [B,T,S], and, detached, norm and state after the segment."""
    position = torch.arange(v.shape[1], device=v.device)
    # Tokens since the start of the document; one that began before the segment is never too young.
    began = torch.where(starts, position, -v.shape[1]).cummax(1).values
    age = (position - began).unsqueeze(-1)
    sums = _decayed_sums(v, decay, age, state.detach())
    norms = _decayed_sums(torch.ones_like(v), decay, age, norm.detach())
    # Copies: a view would keep all steps alive as long as the state.
    return sums / norms, norms, norms[:, -1].detach().clone(), sums[:, -1].detach().clone()


def _decayed_sums(x: Tensor, decay: Tensor, age: Tensor, state: Tensor) -> Tensor:
    """n_t = decay n_{t-1} + x_t within each document, [B,T,S]: sums over 1, 2, 4, ... tokens."""
    steps = x.shape[1]
    first = x[:, :1] + decay * state.unsqueeze(1) * (age[:, :1] > 0)
    sums = torch.cat([first, x[:, 1:]], 1)
    reach = 1
    while reach < steps:
        earlier = F.pad(sums[:, :-reach], (0, 0, reach, 0))
        sums = sums + (age >= reach) * (decay**reach * earlier)
        reach *= 2
    return sums
