"""Frozen configuration objects, and the only reader of the environment."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgelm.errors import ConfigError

LARGEST = 1 << 16
"""Sizes are at most this; token ids are kept as uint16."""
MAX_STOPS, MAX_STOP_CHARS = 16, 64
"""Strings that end an answer at most, and characters of one at most."""


def check_sizes(config: Any) -> None:
    """Raises ``ConfigError`` unless each integer field of a dataclass is an integer from 1 to ``LARGEST``, and its
    ``norm_eps`` a number between 0 and 1."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.type == "int" and (isinstance(value, bool) or not isinstance(value, int)):
            raise ConfigError(f"{field.name} must be an integer, not {value!r}")
        if field.type == "int" and not 1 <= value <= LARGEST:
            raise ConfigError(f"{field.name} must be between 1 and {LARGEST}, not {value!r}")
    if not (isinstance(config.norm_eps, float) and 0 < config.norm_eps < 1):
        raise ConfigError(f"norm_eps must be between 0 and 1, not {config.norm_eps!r}")


@dataclass(frozen=True)
class SampleConfig:
    """How the next token is chosen.

    Parameters
    ----------
    temperature : float
        0 takes the likeliest token; larger is more varied.
    top_p : float
        The smallest set of tokens with this probability together is drawn from.
    repetition_penalty : float
        Divides the odds of tokens among the last 64; 1 is off.
    max_tokens : int
        Tokens of an answer at most.
    stops : tuple of str
        An answer ends before the first of these strings, beside those of the model's template.
    """

    temperature: float = 0.5
    top_p: float = 0.9
    repetition_penalty: float = 1.1
    max_tokens: int = 120
    stops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 10:
            raise ConfigError(f"temperature must be between 0 and 10, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not 1 <= self.repetition_penalty <= 10:
            raise ConfigError(f"repetition_penalty must be between 1 and 10, not {self.repetition_penalty}")
        if not 1 <= self.max_tokens <= 100_000:
            raise ConfigError(f"max_tokens must be between 1 and 100000, not {self.max_tokens}")
        if len(self.stops) > MAX_STOPS or not all(0 < len(stop) <= MAX_STOP_CHARS for stop in self.stops):
            raise ConfigError(f"stops must be at most {MAX_STOPS} strings of 1 to {MAX_STOP_CHARS} characters")


def data_dir() -> Path:
    """Where profiles and pulled models live: ``EDGELM_HOME``, else the XDG data folder."""
    home = os.environ.get("EDGELM_HOME")
    if home:
        # Unlike Path.expanduser, it leaves the ~ of an unknown user alone.
        return Path(os.path.expanduser(home))  # noqa: PTH111
    xdg = os.environ.get("XDG_DATA_HOME")
    return (Path(xdg) if xdg else Path.home() / ".local" / "share") / "edgelm"


def environment_with_home(home: Path) -> dict[str, str]:
    """The environment for a process of our own that shall keep its data in ``home``."""
    return {**os.environ, "EDGELM_HOME": str(home)}


@dataclass(frozen=True)
class LearnConfig:
    """How the model learns from a text.

    Parameters
    ----------
    rate : float
        Step size: by how many times its usual root mean square a gradient moves a weight, times 1e-3.
    pull : float
        Share of the way back to the base weights that each segment takes.
    segment : int
        Tokens that are scored, then learned, together.
    gate_segments : int
        Segments between two checks on general text.
    gate_limit : float
        Share by which general text may become worse than with the base model before what was learned is undone.
    gate_draw : float
        Share from which on the weights are pulled towards the base.
    rounds : int
        How often a consolidation goes through what was told lately.
    hold : float
        What costs less than this share of what it cost when the consolidation began is not repeated again.
    rehearsal : float
        Samples of general text for each turn that is repeated.
    """

    rate: float = 0.3
    pull: float = 1e-3
    segment: int = 32
    gate_segments: int = 64
    gate_limit: float = 0.02
    gate_draw: float = 0.0035
    rounds: int = 2
    hold: float = 0.7
    rehearsal: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1000:
            raise ConfigError(f"rate must be between 0 and 1000, not {self.rate}")
        if not 0 <= self.pull < 1:
            raise ConfigError(f"pull must be at least 0 and below 1, not {self.pull}")
        if not 1 <= self.segment <= 256:
            raise ConfigError(f"segment must be between 1 and 256, not {self.segment}")
        if not 1 <= self.gate_segments <= 1 << 20:
            raise ConfigError(f"gate_segments must be between 1 and {1 << 20}, not {self.gate_segments}")
        if not 0 < self.gate_draw <= self.gate_limit:
            raise ConfigError(f"gate_draw must be above 0 and at most gate_limit, not {self.gate_draw}")
        if not (0 <= self.rounds <= 100 and 0 <= self.hold <= 1 and 0 <= self.rehearsal <= 1):
            raise ConfigError("rounds must be between 0 and 100, hold and rehearsal between 0 and 1")


def one_blas_thread() -> None:
    """Lets numpy's matrix products use one thread; to be called before numpy is imported.

    Learning runs beside answering on another core, and its sums shall not depend on the number of cores.
    """
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ[name] = "1"


def compile_from_source() -> None:
    """Lets processes that are started from now on compile kernels, whatever this one runs, and the same of one source.

    The order of Python's sets shows in what numba makes.
    """
    os.environ.update(EDGELM_KERNELS="jit", NUMBA_DISABLE_JIT="0", PYTHONHASHSEED="0")


def no_telemetry() -> None:
    """Keeps ONNX Runtime from collecting and sending anything; to be called before it is imported."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def quiet_flower(home: Path) -> None:
    """Keeps Flower from sending anything and from asking for updates, and its files below ``home``.

    To be called before it is imported.
    """
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", FLWR_HOME=str(home))


def no_color() -> bool:
    """Whether ``NO_COLOR`` asks for plain text (no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def ask_key() -> str:
    """The key for the server of ``--ask``, of ``EDGELM_ASK_KEY``; empty: it wants none.

    Raises
    ------
    ConfigError
        It is no single word of printable ASCII.
    """
    key = os.environ.get("EDGELM_ASK_KEY", "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError("EDGELM_ASK_KEY must be one word of letters, digits and signs; what it is is not shown")
    return key


def graph_choice() -> Literal["int8", "float32"] | None:
    """What answers are computed with, if ``EDGELM_GRAPH`` says so; learning is always float32."""
    return _choice("EDGELM_GRAPH", "int8", "float32")  # type: ignore[return-value]


def engine_choice() -> Literal["kernels", "onnx"] | None:
    """Which engine answers, if ``EDGELM_ENGINE`` says so."""
    return _choice("EDGELM_ENGINE", "kernels", "onnx")  # type: ignore[return-value]


def kernel_choice() -> Literal["aot", "jit", "python"] | Path | None:
    """How kernels shall run, if ``EDGELM_KERNELS`` says so: compiled before, in libraries of this installation or of a
    folder that it names; compiled by numba; or as plain Python."""
    folder = Path(os.environ.get("EDGELM_KERNELS", ""))
    if folder.is_absolute():
        return folder
    return _choice("EDGELM_KERNELS", "aot", "jit", "python")  # type: ignore[return-value]


def _choice(variable: str, *allowed: str) -> str | None:
    """What a variable of the environment says, if it is set.

    Raises
    ------
    ConfigError
        It says something else than what is ``allowed``.
    """
    choice = os.environ.get(variable, "")
    if choice not in ("", *allowed):
        known = " or ".join([", ".join(allowed[:-1]), allowed[-1]])
        raise ConfigError(f"{variable} must be {known}, not {choice!r}")
    return choice or None
