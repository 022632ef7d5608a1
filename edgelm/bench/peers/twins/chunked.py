"""The recurrences of the mixers as batched tensor operations, for a GPU.

Same signatures and results as ``edgelm/bench/peers/twins/scan.py``. The decay section runs over chunks of tokens in
the WY/UT form (Yang et al. 2024, arXiv 2412.06464): within a chunk all tokens at once, from chunk to chunk
one small matrix product. With b_t the sum of g up to t, S_0 the state before the chunk, u_t = beta_t e_t::

    u_t = beta_t (v_t - exp(b_t) S_0' k_t - sum_{i<t} exp(b_t - b_i) (k_t . k_i) u_i)     triangular system
    o_t = exp(b_t) S_0' q_t + sum_{i<=t} exp(b_t - b_i) (q_t . k_i) u_i
    S_C = exp(b_C) S_0 + sum_i exp(b_C - b_i) k_i u_i'

The inverse of the system's matrix is put together of those of its diagonal blocks, twice as large each time: never by
powers of the matrix, which grow before they cancel where keys repeat.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64


def decay_scan(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, starts: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Gated delta rule over rows: q, k [B,T,H,K], v [B,T,H,Vd], g, beta [B,T,H], starts [B,T] bool,
    state [B,H,K,Vd]; returns the outputs [B,T,H,Vd] and, detached, the state after the segment.

    Half precision is raised to float32; no gradient flows into ``state``.
    """
    steps, dtype = q.shape[1], torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        seen, left = _decays(_chunks(g.to(dtype)), starts)
        q, k, v, beta = (_chunks(x.to(dtype)) for x in (q, k, v, beta))
        overlap = (beta.unsqueeze(-1) * left * (k @ k.mT)).tril(-1)
        writes = beta.unsqueeze(-1) * torch.cat([v, seen * k], -1)
        fresh, removed = _solve(overlap, writes).split([v.shape[-1], k.shape[-1]], -1)  # u = fresh - removed S_0
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
        seen, left = _decays(_chunks(g.float()), starts)
        q, k, v, beta = (_chunks(x.float()) for x in (q, k, v, beta))
        writes = beta.unsqueeze(-1) * v
        kept = (left[..., -1, :].unsqueeze(-1) * k).mT
        eye = torch.eye(k.shape[-1], device=q.device)
        before, last = _states(seen[..., -1:, :] * eye, kept @ writes, state.detach())
        out = (seen * q) @ before + (left * (q @ k.mT)) @ writes
        return out.transpose(2, 3).flatten(1, 2)[:, :steps], last.detach()


def wkv_scan(
    r: Tensor, keep: Tensor, k: Tensor, v: Tensor, kk: Tensor, a: Tensor, starts: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """RWKV-7's memory over rows: r, keep, k, v, kk, a [B,T,H N], starts [B,T] bool, memory [B,H,N,N]; returns
    the outputs [B,T,H N] and, detached, the memory after the segment.

    With b_t the sum of log(keep) up to t, by channel, and u_t what is removed at t::

        u_t = kk_t exp(b_{t-1}) (S_0 + sum_{i<t} exp(-b_i) (k_i' v_i - (kk_i a_i)' u_i))      triangular system
        y_t = r_t exp(b_t) (S_0 + sum_{i<=t} exp(-b_i) (k_i' v_i - (kk_i a_i)' u_i))

    A token keeps exp(-0.61) or more, so that exp(-b) of a chunk stays far below the largest float32.
    """
    steps, dtype, heads = r.shape[1], torch.promote_types(r.dtype, torch.float32), (memory.shape[1], -1)
    with torch.autocast(r.device.type, enabled=False):
        r, k, v, kk, a = (_chunks(x.to(dtype).unflatten(-1, heads)) for x in (r, k, v, kk, a))
        logs = _chunks(keep.double().log().unflatten(-1, heads))
        sums = logs.cumsum(-2)
        grown = torch.exp(-sums).to(dtype)
        reads, asked = r * sums.exp().to(dtype), kk * (sums - logs).exp().to(dtype)
        given, taken = k * grown, kk * a * grown
        document, place = _documents(starts).unsqueeze(2), torch.arange(CHUNK, device=r.device)
        same = document.unsqueeze(-1) == document.unsqueeze(-2)
        until = same & (place.unsqueeze(-1) >= place)
        before = same & (place.unsqueeze(-1) > place)
        seen = (document == 0).unsqueeze(-1)  # the memory before the chunk is that of the token's document
        removed = torch.cat([((asked @ given.mT) * before) @ v, asked * seen], -1)
        fresh, of_state = _solve((asked @ taken.mT) * before, removed).split([v.shape[-1], k.shape[-1]], -1)
        end, kept = sums[..., -1:, :].exp().to(dtype), same[..., -1, :].unsqueeze(-1)
        given_left, taken_left = (end * given * kept).mT, (end * taken * kept).mT
        eye = torch.eye(k.shape[-1], dtype=dtype, device=r.device)
        transition = end * seen[..., -1:, :] * eye - taken_left @ of_state
        state, last = _states(transition, given_left @ v - taken_left @ fresh, memory.detach().to(dtype))
        out = (reads * seen) @ state + ((reads @ given.mT) * until) @ v
        out = out - ((reads @ taken.mT) * until) @ (fresh + of_state @ state)
        return out.transpose(2, 3).flatten(1, 2)[:, :steps].flatten(2), last.detach()


def _solve(lower: Tensor, right: Tensor) -> Tensor:
    """(I + lower)^-1 right, for strictly lower triangular matrices [...,C,C].

    The gradient flows through a step of refinement alone, which is the derivative of the solution.
    """
    size = lower.shape[-1]
    with torch.no_grad():
        place = torch.arange(size, device=lower.device)
        inverse = torch.eye(size, dtype=lower.dtype, device=lower.device).expand_as(lower)
        block = 1
        while block < size:
            # Of two neighbouring blocks with inverses X, Y and B below X: the inverse has -Y B X there.
            pair, half = place // (2 * block), place // block
            below = (pair.unsqueeze(-1) == pair) & (half.unsqueeze(-1) > half)
            inverse = inverse - inverse @ (lower * below) @ inverse
            block *= 2
        solved = inverse @ right
    return solved + inverse @ (right - lower @ solved - solved)


def _chunks(x: Tensor) -> Tensor:
    """[B,T,H,...] to [B,N,H,CHUNK,...]; tokens of zeros fill the last chunk and leave the state as it is."""
    missing = -x.shape[1] % CHUNK
    x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing))
    return x.unflatten(1, (-1, CHUNK)).transpose(2, 3)


def _documents(starts: Tensor) -> Tensor:
    """starts [B,T] to the number of documents [B,N,C] that began in the chunk, up to and with each token."""
    return F.pad(starts, (0, -starts.shape[1] % CHUNK)).unflatten(1, (-1, CHUNK)).int().cumsum(-1)


def _decays(g: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """g [B,N,H,C], starts [B,T] to what is left of S_0 at t, [B,N,H,C,1], and what is left at t of a write at i,
    [B,N,H,C,C]: exp(g_{i+1} + ... + g_t), 0 where i > t or a document began between.

    The sums are taken in float64, so that their differences keep the digits of float32.
    """
    sums, document = g.double().cumsum(-1), _documents(starts).unsqueeze(2)
    place = torch.arange(CHUNK, device=g.device)
    same = (place.unsqueeze(-1) > place) & (document.unsqueeze(-1) == document.unsqueeze(-2))
    left = (sums.unsqueeze(-1) - sums.unsqueeze(-2)).to(g.dtype).masked_fill(~same, float("-inf")).exp()
    left = left + (place.unsqueeze(-1) == place)  # a token's own write is whole, whatever g is
    seen = sums.to(g.dtype).masked_fill(document > 0, float("-inf")).exp()
    return seen.unsqueeze(-1), left


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
    """Slope section over rows: v [B,T,S], decay [C], one of each S/C features, starts [B,T] bool, norm and state
    [B,S]; returns the outputs [B,T,S], z at every step [B,T,S], and, detached, norm and state after the segment."""
    steps, channels = v.shape[1], (len(decay), -1)
    with torch.autocast(v.device.type, enabled=False):
        v = _chunks(v.to(decay.dtype).unflatten(-1, channels))  # [B,N,C,CHUNK,S/C]
        norm, state = (x.detach().to(decay.dtype).unflatten(-1, channels) for x in (norm, state))
        place, document = torch.arange(CHUNK, device=v.device), _documents(starts).unsqueeze(2)
        age = (place.unsqueeze(-1) - place).clamp(min=0)
        same = (place.unsqueeze(-1) >= place) & (document.unsqueeze(-1) == document.unsqueeze(-2))
        left = decay.view(-1, 1, 1) ** age * same
        seen = (decay.unsqueeze(-1) ** (place + 1) * (document == 0)).unsqueeze(-1)  # [B,N,C,CHUNK,1]
        sums = _with_state(left @ v, seen, state)
        norms = _with_state(left.sum(-1, keepdim=True).expand_as(v), seen, norm)
        out, norms, sums = (x.transpose(2, 3).flatten(1, 2).flatten(2)[:, :steps] for x in (sums / norms, norms, sums))
        # Copies: a view would keep all steps alive as long as the state.
        return out, norms, norms[:, -1].detach().clone(), sums[:, -1].detach().clone()


def _with_state(inside: Tensor, seen: Tensor, state: Tensor) -> Tensor:
    """What the tokens of a chunk sum to, [B,N,C,CHUNK,F], and what is left of the state [B,C,F] before the first."""
    before = []
    for added, left in zip(inside[..., -1, :].unbind(1), seen[..., -1, :].unbind(1), strict=True):
        before.append(state)
        state = left * state + added
    return inside + seen * torch.stack(before, 1).unsqueeze(-2)
