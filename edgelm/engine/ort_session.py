"""The step graph of a model under ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np

from edgelm.config import no_telemetry
from edgelm.engine.session import PREFILL_STEPS, Snapshot
from edgelm.errors import DeviceError, ModelFileError
from edgelm.model.guard import Guard
from edgelm.model.weights import Weights

# Nothing leaves the device: it would start to collect as soon as it is imported.
no_telemetry()
try:
    import onnxruntime as ort
except ImportError:
    raise DeviceError("ONNX Runtime is not installed; install edgelm[onnx], or use --engine kernels") from None

Array = np.ndarray


class OrtSession:
    """The step graph under ONNX Runtime, on the CPU.

    The weights are bound where they lie: a change of an array is seen by the very next run. The state
    is double-buffered, two sets of arrays that take turns as input and output.

    Parameters
    ----------
    graph : bytes
        A step graph whose weights are inputs (``edgelm.export.step.build_graph``).
    weights : dict of ndarray
        Contiguous, of the graph's types; kept and shared, not copied.
    threads : int
        Threads inside one operator.
    guard : Guard, optional
        Held while the weights are read, so that a thread that writes them cannot be seen half way.
    frozen : dict of ndarray, optional
        Constants that the graph declares (``build_graph(given=...)``); ONNX Runtime may rearrange them.
    before_run : callable, optional
        Called before each run, the guard held.

    Raises
    ------
    ModelFileError
        ONNX Runtime refuses the graph, or the weights do not fit it.
    """

    def __init__(
        self, graph: bytes, weights: Weights, threads: int = 1, guard: Guard | None = None,
        frozen: Weights | None = None, before_run: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._guard, self._before_run = guard or nullcontext(), before_run
        # ONNX Runtime reads them where they lie, and lets go of those that it has rearranged.
        options, constants = _options(threads), self._share(frozen or {})
        options.add_external_initializers([*constants], [*constants.values()])
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # ONNX Runtime's errors share no base class of their own
            raise ModelFileError(f"ONNX Runtime refuses the graph: {str(exc).splitlines()[0]}") from None
        inputs = {item.name: item.shape for item in self._session.get_inputs()}
        _check_interface(self._session)
        shapes = {name: tuple(shape) for name, shape in inputs.items() if name.startswith("state.")}
        self._buffers = [{name: np.zeros(shape, np.float32) for name, shape in shapes.items()} for _ in range(2)]
        self._now = 0
        self._weights = {name: array for name, array in weights.items() if name in inputs}
        for name in sorted(set(inputs) - set(shapes) - {"ids", "first_logit"}):
            if name not in weights or tuple(inputs[name]) != weights[name].shape:
                raise ModelFileError(f"the graph wants {name!r} {inputs[name]}, the weights have no such tensor")
        self._values = [self._share(buffer) for buffer in self._buffers]
        self._weight_values = self._share(self._weights)
        # Some graphs take one token at a time.
        given = inputs["ids"][1]
        self._most = given if isinstance(given, int) else PREFILL_STEPS
        self.vocab_size = int(self._session.get_outputs()[0].shape[2])
        self._id, self._first = np.zeros((1, 1), np.int64), np.zeros(1, np.int64)
        self._logits = np.zeros((1, 1, self.vocab_size), np.float32)
        self._decode = [self._bind(now, self._id, self._first, self._logits) for now in range(2)]

    @staticmethod
    def _share(arrays: Weights) -> dict[str, ort.OrtValue]:
        return {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}

    def _bind(self, now: int, ids: Array, first: Array, logits: Array) -> ort.IOBinding:
        binding = self._session.io_binding()
        for name, value in {**self._weight_values, **self._values[now]}.items():
            binding.bind_ortvalue_input(name, value)
        for name, array in (("ids", ids), ("first_logit", first)):
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        for name, value in self._values[1 - now].items():
            binding.bind_ortvalue_output("next." + name, value)
        binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(logits))
        return binding

    def run(self, ids: Array, first_logit: int | None = None) -> Array:
        """Feeds ids [T], T >= 1; returns logits [N,V] from ``first_logit`` on (default: the last alone).

        The array returned for a single token is overwritten by the next call.
        """
        first = len(ids) - 1 if first_logit is None else first_logit
        if len(ids) == 1:
            self._id[0, 0] = ids[0]
            with self._guard:
                self._before_run()
                self._session.run_with_iobinding(self._decode[self._now])
            self._now = 1 - self._now
            return self._logits[0]
        logits = np.empty((len(ids) - first, self.vocab_size), np.float32)
        for start in range(0, len(ids), self._most):
            part = np.ascontiguousarray(ids[start : start + self._most], np.int64)[None]
            local = min(max(first - start, 0), part.shape[1])
            out = np.empty((1, part.shape[1] - local, self.vocab_size), np.float32)
            binding = self._bind(self._now, part, np.array([local]), out)
            with self._guard:
                self._before_run()
                self._session.run_with_iobinding(binding)
            self._now = 1 - self._now
            done = max(start - first, 0)
            logits[done : done + out.shape[1]] = out[0]
        return logits

    def observe(self, ids: Array) -> tuple[Array, Array]:
        """Feeds ids [T]; returns all logits [T,V] and the router's activations [L,T,M], before the cap."""
        most = self._most
        parts = [self._observe(ids[start : start + most]) for start in range(0, len(ids), most)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts], 1)

    def _observe(self, ids: Array) -> tuple[Array, Array]:
        names = [item.name for item in self._session.get_outputs()]
        feeds = {**self._weights, **self._buffers[self._now]}
        feeds |= {"ids": np.asarray(ids, np.int64)[None], "first_logit": np.zeros(1, np.int64)}
        with self._guard:
            self._before_run()
            out = dict(zip(names, self._session.run(names, feeds), strict=True))
        for name, array in self._buffers[1 - self._now].items():
            array[:] = out["next." + name]
        self._now = 1 - self._now
        a = np.stack([value[0] for name, value in out.items() if name.startswith("activations.")])
        return out["logits"][0], a

    def reset(self) -> None:
        """Forgets everything that was fed."""
        for array in self._buffers[self._now].values():
            array[:] = 0

    def snapshot(self) -> Snapshot:
        """A copy of the state."""
        return [array.copy() for array in self._buffers[self._now].values()]

    def restore(self, snapshot: Snapshot) -> None:
        """Returns to a state that ``snapshot`` gave."""
        for array, saved in zip(self._buffers[self._now].values(), snapshot, strict=True):
            array[:] = saved

    @property
    def state_bytes(self) -> int:
        """Bytes of the state, whatever the position."""
        return sum(array.nbytes for array in self._buffers[0].values())


def run_exported(graph: bytes, ids: Array) -> Array:
    """Logits [T,V] of a graph that holds its weights, from an empty state."""
    session = OrtSession(graph, {})
    return session.run(ids, 0).copy()


def _check_interface(session: ort.InferenceSession) -> None:
    """Refuses a graph that is no step graph: buffers are bound to it without further checks."""
    outputs = {item.name: item for item in session.get_outputs()}
    inputs = {item.name: item for item in session.get_inputs()}
    for name, kind in (("ids", "tensor(int64)"), ("first_logit", "tensor(int64)")):
        if name not in inputs or inputs[name].type != kind:
            raise ModelFileError(f"the graph is no step graph: it lacks an input {name!r} of {kind}")
    if "logits" not in outputs or len(outputs["logits"].shape) != 3 or not isinstance(outputs["logits"].shape[2], int):
        raise ModelFileError("the graph is no step graph: it lacks an output 'logits' [1,N,V]")
    for name, item in inputs.items():
        fixed = all(isinstance(size, int) and size > 0 for size in item.shape)
        if name.startswith("state.") and not (
            fixed and item.type == "tensor(float)" and outputs.get("next." + name) is not None
            and outputs["next." + name].shape == item.shape
        ):  # fmt: skip
            raise ModelFileError(f"the graph is no step graph: its state {name!r} has no successor of its shape")


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # A thread that spins between tokens takes the core from the learner, and heats the device.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    return options
