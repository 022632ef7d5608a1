"""What a server makes of the updates of a round: one change, by one of Flower's strategies.

The strategies are those of ``flwr.serverapp.strategy``: the mean (FedAvg), and those that a minority of liars cannot
move far: the median of each number and its trimmed mean (Yin et al. 2018, arXiv 1803.01498), Krum and Multi-Krum
(Blanchard et al. 2017, arXiv 1703.02757), and Bulyan (El Mhamdi et al. 2018, arXiv 1802.07927). ``liars`` is the share
of the devices that they expect to lie.

Every update weighs the same, however much its device says that it learned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelm.errors import ConfigError, DeviceError, InputError
from edgelm.model.hub import Model
from edgelm.model.weights import Weights
from edgelm.swarm.update import Received, nothing

if TYPE_CHECKING:
    from flwr.serverapp.strategy import FedAvg

Array = np.ndarray
Part = tuple[str, int | None]
STRATEGIES = ("mean", "median", "trimmed-mean", "krum", "multi-krum", "bulyan")
BY_NUMBER = ("mean", "median", "trimmed-mean")
"""Those of them that look at each number alone, so that updates can be aggregated part by part."""
MOST_AT_ONCE = 100
"""Updates that are compared with each other, where a strategy compares whole updates."""
MOST_COST, LEAST_SHARE = 0.005, 1 / 16
"""General text may cost so much more with the shared layer; a step is halved for it down to this share."""
_WEIGHT, _ARRAYS, _METRICS = "num-examples", "arrays", "metrics"
_BETWEEN = ":"
"""Stands between a tensor and the number of a block in it."""


@dataclass(frozen=True)
class AggregateConfig:
    """How the updates of a round become one change.

    Attributes
    ----------
    strategy : str
        One of ``STRATEGIES``.
    liars : float
        The share of devices that may send anything; below one half.
    rate : float
        What the aggregate is multiplied by before it is added to the shared layer.

    Raises
    ------
    ConfigError
        A value is out of range.
    """

    strategy: str = "multi-krum"
    liars: float = 0.2
    rate: float = 4.0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"strategy must be one of {', '.join(STRATEGIES)}, not {self.strategy!r}")
        if not 0 <= self.liars < 0.5:
            raise ConfigError(f"liars must be at least 0 and below 0.5, not {self.liars}")
        if not 0 < self.rate <= 100:
            raise ConfigError(f"rate must be above 0 and at most 100, not {self.rate}")


def strategy(name: str, n_devices: int, liars: float) -> FedAvg:
    """One of Flower's strategies.

    Parameters
    ----------
    name : str
        One of ``STRATEGIES``.
    n_devices : int
        Whose updates are aggregated.
    liars : float
        The share of them that may lie, rounded down; one at least of three or more, unless it is 0.

    Raises
    ------
    ConfigError
        There is no such strategy, or the devices are too few for it.
    DeviceError
        Flower is not installed.
    """
    flower = _flower()
    n_liars = max(1, int(liars * n_devices + 1e-9)) if liars and n_devices > 2 else 0
    options = {"weighted_by_key": _WEIGHT, "arrayrecord_key": _ARRAYS}
    if name == "bulyan" and n_devices < 4 * n_liars + 3:
        raise ConfigError(f"bulyan needs {4 * n_liars + 3} devices where {n_liars} may lie, not {n_devices}")
    made: dict[str, Callable[[], Any]] = {
        "mean": lambda: flower.FedAvg(**options),
        "median": lambda: flower.FedMedian(**options),
        # It drops so many at each end as are a whole number of devices.
        "trimmed-mean": lambda: flower.FedTrimmedAvg(beta=_trimmed(n_liars, n_devices), **options),
        "krum": lambda: flower.Krum(num_malicious_nodes=n_liars, **options),
        "multi-krum": lambda: flower.MultiKrum(
            num_malicious_nodes=n_liars, num_nodes_to_select=max(1, n_devices - n_liars), **options
        ),
        "bulyan": lambda: flower.Bulyan(num_malicious_nodes=n_liars, **options),
    }
    if name not in made:
        raise ConfigError(f"strategy must be one of {', '.join(STRATEGIES)}, not {name!r}")
    return made[name]()


def _trimmed(n_liars: int, n_devices: int) -> float:
    """The share that drops ``n_liars`` at each end, and leaves one device at least."""
    return (min(n_liars, (n_devices - 1) // 2) + 0.25) / n_devices if n_liars else 0.0


def aggregate(made: FedAvg, updates: Iterable[Mapping[str, Array]]) -> Weights:
    """What a strategy makes of some updates.

    Parameters
    ----------
    made : FedAvg
        As ``strategy`` returns it.
    updates : iterable of mapping of ndarray
        Dense and float32, all of the same tensors; they are in memory all at once.

    Returns
    -------
    dict of ndarray
        Float32.

    Raises
    ------
    InputError
        There are none, or too few for the strategy.
    """
    replies = [_reply(update, i) for i, update in enumerate(updates)]
    with _quiet():
        arrays, _ = made.aggregate_train(0, replies)
    if arrays is None:
        raise InputError(f"{len(replies)} updates are too few to aggregate")
    return {name: np.asarray(array.numpy(), np.float32) for name, array in arrays.items()}


def aggregate_round(updates: Sequence[Received], model: Model, config: AggregateConfig) -> Weights:
    """What the updates of a round come to, without the rate.

    Strategies of ``BY_NUMBER`` see one tensor, or one neuron block, of all updates at a time: no update is decoded as a
    whole, and memory is that of the updates as they came. The others compare whole updates: of ``MOST_AT_ONCE`` at a
    time what any of them sent, and of several such groups the mean.

    Parameters
    ----------
    updates : sequence of Received
    model : Model
    config : AggregateConfig

    Returns
    -------
    dict of ndarray
        Every adaptable tensor, float32.

    Raises
    ------
    InputError
        There are none.
    ConfigError
        They are too few for the strategy.
    """
    if not updates:
        raise InputError("0 updates are too few to aggregate")
    whole = nothing(model.config)
    if config.strategy in BY_NUMBER:
        made = strategy(config.strategy, len(updates), config.liars)
        for part in _sent(updates):
            _add(whole, aggregate(made, [_of(update, [part]) for update in updates]), 1.0)
        return whole
    n_groups = -(-len(updates) // MOST_AT_ONCE)
    for first in range(n_groups):
        group = updates[first::n_groups]
        parts, made = _sent(group), strategy(config.strategy, len(group), config.liars)
        _add(whole, aggregate(made, [_of(update, parts) for update in group]), 1 / n_groups)
    return whole


def _sent(updates: Sequence[Received]) -> list[Part]:
    """What any of the updates speaks of; of what nobody sent every strategy makes nothing."""
    return sorted({part for update in updates for part in update.parts}, key=str)


def _of(update: Received, parts: Sequence[Part]) -> dict[str, Array]:
    return {f"{name}{_BETWEEN}{'' if block is None else block}": update.part(name, block) for name, block in parts}


def _add(whole: Weights, found: Mapping[str, Array], share: float) -> None:
    """Adds what ``_of`` named to all tensors, in place."""
    for key, array in found.items():
        name, _, block = key.partition(_BETWEEN)
        whole[name][int(block) if block else ...] += np.float32(share) * array


def stepped(total: Weights, found: Weights, rate: float, cost: Callable[[Weights], float]) -> tuple[Weights, float]:
    """The shared layer one step further: as far as the rate says, or half as far, a quarter, as general text allows.

    Parameters
    ----------
    total : dict of ndarray
        The shared layer, every adaptable tensor, float32; read.
    found : dict of ndarray
        What the updates come to (``aggregate_round``); read.
    rate : float
        What it is multiplied by.
    cost : callable
        The share by which general text costs more with a shared layer (``edgelm.learn.layering.general_cost``).

    Returns
    -------
    dict of ndarray, float
        The new layer, or ``total`` where even a sixteenth of the step makes general text cost more than ``MOST_COST``;
        and the share of the step that was taken, 0 for none.
    """
    share = 1.0
    while share >= LEAST_SHARE:
        step = np.float32(rate * share)
        new = {name: array + step * found[name] for name, array in total.items()}
        # Not finite is no less than anything.
        if cost(new) <= MOST_COST:
            return new, share
        share /= 2
    return total, 0.0


def _reply(update: Mapping[str, Array], number: int) -> Any:
    """An update as the answer of a device to a message of the server."""
    from flwr.app import Array as FlowerArray
    from flwr.app import ArrayRecord, Message, Metadata, MetricRecord, RecordDict

    content = RecordDict(
        {
            _ARRAYS: ArrayRecord({name: FlowerArray(array) for name, array in update.items()}),
            _METRICS: MetricRecord({_WEIGHT: 1}),
        }
    )
    # With metadata of its own, since nothing is sent: updates are aggregated outside of a run, too.
    metadata = Metadata(
        run_id=0, message_id="", src_node_id=number + 1, dst_node_id=0, reply_to_message_id="", group_id="",
        created_at=0.0, ttl=1.0, message_type="train",
    )  # fmt: skip
    return Message(content=content, metadata=metadata)


def _flower() -> Any:
    try:
        from flwr.serverapp import strategy as found
    except ImportError:
        raise DeviceError("a swarm needs Flower, which is not installed: pip install 'edgelm[swarm]'") from None
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Flower says at every aggregation how many updates it has."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
