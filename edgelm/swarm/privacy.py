"""How well a swarm hides one device from whoever sees the shared layers, by the accountant of ``dp-accounting``.

Central differential privacy of devices: each round takes every device with the same chance, each update has a norm of
at most C, and normal noise lies on every number of their sum. What a device is then worth in all rounds together is
(epsilon, delta), by Renyi differential privacy of the sampled Gaussian mechanism (Mironov et al. 2019, arXiv
1908.10530), devices being added or removed. It says nothing about what the server itself sees of an update, and it
holds for a plain mean alone.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from edgelm.errors import ConfigError, DeviceError
from edgelm.model.weights import Weights

DELTA = 1e-5


def epsilon(noise_multiplier: float, n_rounds: int, sampling_rate: float = 1.0, delta: float = DELTA) -> float:
    """What the shared layers of some rounds tell of one device, at most.

    Parameters
    ----------
    noise_multiplier : float
        Standard deviation of the noise on each number of the *sum* of the updates, divided by C.
    n_rounds : int
    sampling_rate : float
        The chance of a device to be in a round, each time drawn anew.
    delta : float

    Raises
    ------
    ConfigError
        A value is out of range.
    DeviceError
        ``dp-accounting`` is not installed.
    """
    if not (noise_multiplier > 0 and n_rounds >= 1 and 0 < sampling_rate <= 1 and 0 < delta < 1):
        raise ConfigError(
            "noise_multiplier must be above 0, n_rounds at least 1, sampling_rate above 0 and at most 1, delta "
            f"between 0 and 1, not {noise_multiplier}, {n_rounds}, {sampling_rate}, {delta}"
        )
    try:
        import dp_accounting
        from dp_accounting import rdp
    except ImportError:
        raise DeviceError("epsilon needs dp-accounting, which is not installed: pip install 'edgelm[swarm]'") from None
    event = dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    # Of these orders everything has a closed form; leaving others out can only make the answer larger.
    accountant = rdp.RdpAccountant([*range(2, 64), *range(64, 513, 16)])
    accountant.compose(event, n_rounds)
    return float(accountant.get_epsilon(delta))


def hidden_mean(mean: Weights, clip: float, noise_multiplier: float, n_devices: int, rng: Generator) -> Weights:
    """The mean of the updates of a round with noise on every number, also where no device sent anything.

    Parameters
    ----------
    mean : dict of ndarray
        Every adaptable tensor, float32; read.
    clip : float
        C, which no update is longer than.
    noise_multiplier : float
        As of ``epsilon``: the noise on the mean is that of the sum divided by ``n_devices``.
    n_devices : int
        Of the round.
    rng : numpy.random.Generator

    Returns
    -------
    dict of ndarray
        Float32.
    """
    scale = noise_multiplier * clip / n_devices
    return {
        name: array + np.float32(scale) * rng.standard_normal(array.shape, np.float32) for name, array in mean.items()
    }
