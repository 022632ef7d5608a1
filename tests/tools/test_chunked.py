"""The chunked recurrences give what the scans give."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from edgelm.bench.peers.twins import chunked, scan  # noqa: E402
from edgelm.cells.rwkv7_time_mix.paper import DECAY_SCALE  # noqa: E402

ROWS, HEADS, KEY_DIM, VALUE_DIM = 3, 2, 5, 4
LENGTHS = [1, 63, 64, 65, 130]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
Arguments = tuple[Any, ...]

pytestmark = pytest.mark.parametrize("device", DEVICES)


def decay_arguments(steps: int, lowest_g: float, dtype: Any = torch.float64) -> Arguments:
    """q, k, v, g, beta, starts and state; half of the decays are mild, half reach ``lowest_g``."""
    rng = torch.Generator().manual_seed(steps)

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, generator=rng, dtype=dtype)

    def uniform(*shape: int) -> Any:
        return torch.rand(*shape, generator=rng, dtype=dtype)

    rows = (ROWS, steps, HEADS)
    q, k = (torch.nn.functional.normalize(normal(*rows, KEY_DIM), dim=-1) for _ in range(2))
    g = -uniform(*rows) * torch.where(uniform(*rows) < 0.5, 0.05, -lowest_g)
    starts = uniform(ROWS, steps) < torch.tensor([[0.0], [0.05], [0.5]])  # no document begins, few, many
    return q, k, normal(*rows, VALUE_DIM), g, uniform(*rows), starts, normal(ROWS, HEADS, KEY_DIM, VALUE_DIM)


def slope_arguments(steps: int, dtype: Any = torch.float64) -> Arguments:
    """v, decay, starts, norm and state."""
    _, _, v, _, _, starts, state = decay_arguments(steps, -1.0, dtype)
    v, state = v.flatten(2), state[:, :, 0].flatten(1)
    decay = torch.linspace(0.5, 0.9999, v.shape[-1], dtype=dtype)
    return v, decay, starts, 1 + 5 * state.abs(), state


def results(function: Any, arguments: Arguments, n_learned: int, device: str) -> list[Any]:
    """Outputs of ``function`` and the gradients of a weighted sum of the first, on the CPU."""
    moved = [x.to(device) for x in arguments]
    learned = [x.requires_grad_() for x in (y.clone() for y in moved[:n_learned])]
    outputs = function(*learned, *moved[n_learned:])
    weights = torch.sin(torch.arange(outputs[0].numel(), dtype=outputs[0].dtype, device=device))
    (outputs[0].flatten() @ weights).backward()
    return [x.detach().cpu() for x in (*outputs, *(y.grad for y in learned))]


def assert_equal(found: list[Any], expected: list[Any], tolerance: float) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert torch.isfinite(a).all()
        assert float((a - b).abs().max()) <= tolerance * max(1e-30, float(b.abs().max()))


@pytest.mark.parametrize("lowest_g", [-0.1, -50.0])
@pytest.mark.parametrize("steps", LENGTHS)
def test_decay_equals_scan(steps: int, lowest_g: float, device: str) -> None:
    arguments = decay_arguments(steps, lowest_g)
    expected = results(scan.decay_scan, arguments, 5, "cpu")
    assert_equal(results(chunked.decay_scan, arguments, 5, device), expected, 1e-12)


def wkv_arguments(steps: int, dtype: Any = torch.float64) -> Arguments:
    """r, keep, k, v, kk, a, starts and memory; a third of the channels forgets as fast as it can."""
    k, r, _, _, _, starts, _ = decay_arguments(steps, -1.0)
    rng = torch.Generator().manual_seed(steps)
    keep, rate = (torch.rand(r.shape, generator=rng, dtype=torch.float64) for _ in range(2))
    keep = torch.where(keep < 1 / 3, 1.0, keep).mul(-DECAY_SCALE).exp()
    v, memory = (torch.randn(*s, generator=rng, dtype=torch.float64) for s in (r.shape, (ROWS, HEADS, *[KEY_DIM] * 2)))
    kk = torch.nn.functional.normalize(k, dim=-1)
    made = [x.flatten(2).to(dtype) for x in (r, keep, k, v, kk, rate)]
    return *made, starts, memory.to(dtype)


@pytest.mark.parametrize("steps", LENGTHS)
def test_wkv_equals_scan(steps: int, device: str) -> None:
    arguments = wkv_arguments(steps)
    expected = results(scan.wkv_scan, arguments, 6, "cpu")
    assert_equal(results(chunked.wkv_scan, arguments, 6, device), expected, 1e-12)


def test_wkv_in_float32_is_close_to_float64(device: str) -> None:
    expected = results(scan.wkv_scan, wkv_arguments(130), 6, "cpu")
    found = results(chunked.wkv_scan, wkv_arguments(130, torch.float32), 6, device)
    assert_equal([x.double() for x in found], expected, 1e-4)


@pytest.mark.parametrize("steps", LENGTHS)
def test_slope_equals_scan(steps: int, device: str) -> None:
    arguments = slope_arguments(steps)
    expected = results(scan.slope_scan, arguments, 1, "cpu")
    assert_equal(results(chunked.slope_scan, arguments, 1, device), expected, 1e-12)


def test_float32_is_close_to_float64(device: str) -> None:
    for lowest_g in (-0.1, -50.0):
        arguments = decay_arguments(130, lowest_g)
        expected = [x.float() for x in results(scan.decay_scan, arguments, 5, "cpu")]
        low = tuple(x.float() if x.is_floating_point() else x for x in arguments)
        assert_equal(results(chunked.decay_scan, low, 5, device), expected, 2e-5)
    arguments = slope_arguments(130, torch.float32)
    expected = results(scan.slope_scan, arguments, 1, "cpu")
    assert_equal(results(chunked.slope_scan, arguments, 1, device), expected, 2e-6)


def test_extreme_decays_stay_finite(device: str) -> None:
    """-50 at every step: sums over a chunk reach -3200, far below what float32 can raise e to."""
    q, k, v, g, beta, starts, state = decay_arguments(130, -50.0, torch.float32)
    arguments = (q, k, v, torch.full_like(g, -50.0), beta, starts, state)
    expected = results(scan.decay_scan, arguments, 5, "cpu")
    assert_equal(results(chunked.decay_scan, arguments, 5, device), expected, 1e-5)


def test_repeated_keys_do_not_blow_up(device: str) -> None:
    """One key all the time, written at full strength: the worst case of the triangular system."""
    q, k, v, g, beta, starts, state = decay_arguments(130, -0.1, torch.float32)
    k = k[:, :1].expand_as(k).contiguous()
    arguments = (q, k, v, 1e-4 * g, 0.999 + 0.001 * beta, torch.zeros_like(starts), state)
    expected = results(scan.decay_scan, arguments, 5, "cpu")
    assert_equal(results(chunked.decay_scan, arguments, 5, device), expected, 1e-4)


def test_nothing_crosses_a_start(device: str) -> None:
    """What stands before the last start, the state included, has no influence, not even a rounding."""
    *arguments, starts, state = (x.to(device) for x in decay_arguments(130, -0.1, torch.float32))
    starts = torch.zeros_like(starts)
    starts[:, 100] = True
    out, last = chunked.decay_scan(*arguments, starts, state)
    changed = [x.clone() for x in arguments]
    for x in changed:
        x[:, :100] *= 0.5
    again, last_again = chunked.decay_scan(*changed, starts, 3 * state)
    assert torch.equal(out[:, 100:], again[:, 100:])
    assert torch.equal(last, last_again)


def test_autocast_does_not_lower_the_precision(device: str) -> None:
    arguments = [x.to(device) for x in decay_arguments(65, -0.1, torch.float32)]
    expected = chunked.decay_scan(*arguments)
    with torch.autocast(device, dtype=torch.bfloat16):
        found = chunked.decay_scan(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
