"""The table of tensors that a pickled state dict stands for, without unpickling it.

A pickle is a program for a machine with a stack. This machine knows the instructions that a dictionary of tensors needs
and a few names; it has nothing to import and nothing to call. What a name means is decided here: a dictionary, a
storage of one kind of numbers, or a tensor in one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

_STORAGES = {"torch FloatStorage": "F32", "torch HalfStorage": "F16", "torch BFloat16Storage": "BF16"}
_DICTIONARY, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_MOST_ITEMS = 1 << 20
"""Instructions and values: several for each of the tensors."""


class Storage(NamedTuple):
    """A record of numbers in the archive.

    Attributes
    ----------
    kind : str
        Of its numbers: F32, F16 or BF16.
    key : str
        The name of the record.
    n_numbers : int
        How many there are, as the program says.
    """

    kind: str
    key: str
    n_numbers: int


class StoredTensor(NamedTuple):
    """Where a tensor lies.

    Attributes
    ----------
    storage : Storage
    offset : int
        Numbers of the storage before its first.
    shape, stride : tuple
        As the program says: nothing of them was looked at, but that they are tuples.
    """

    storage: Storage
    offset: int
    shape: tuple[Any, ...]
    stride: tuple[Any, ...]


class _Name(NamedTuple):
    """One of the names that a program may speak of."""

    name: str


class _Mark:
    """Where the items of a tuple or a dictionary begin on the stack."""


def state_dict(program: bytes) -> dict[str, StoredTensor]:
    """The tensors of the dictionary that a program makes, in its order.

    Raises
    ------
    ValueError
        The program does anything else; the message says what, and at which byte.
    """
    machine = _Machine(program)
    try:
        found = machine.run()
    except (IndexError, struct.error):
        raise ValueError(f"byte {machine.at}: it ends too early, or takes what is not there") from None
    except ValueError as exc:
        raise ValueError(f"byte {machine.at}: {exc}") from None
    for name, tensor in found.items():
        if not isinstance(tensor, StoredTensor):
            raise ValueError(f"{name[:200]!r} is no tensor: it is no state dict")
    return found


class _Machine:
    """Runs a program once."""

    def __init__(self, program: bytes) -> None:
        self.at = 0
        self._program = program
        self._stack: list[Any] = []
        self._known: dict[int, Any] = {}
        self._steps: dict[int, Callable[[], None]] = {
            ord("}"): lambda: self._push({}),
            ord(")"): lambda: self._push(()),
            ord("("): lambda: self._push(_Mark()),
            ord("N"): lambda: self._push(None),
            0x88: lambda: self._push(True),
            0x89: lambda: self._push(False),
            ord("J"): lambda: self._push(self._number("i")),
            ord("K"): lambda: self._push(self._number("B")),
            ord("M"): lambda: self._push(self._number("H")),
            0x8A: lambda: self._push(int.from_bytes(self._take(self._number("B")), "little", signed=True)),
            ord("X"): lambda: self._push(self._take(self._number("I")).decode()),
            ord("c"): self._name,
            ord("q"): lambda: self._remember(self._number("B")),
            ord("r"): lambda: self._remember(self._number("I")),
            ord("h"): lambda: self._recall(self._number("B")),
            ord("j"): lambda: self._recall(self._number("I")),
            ord("t"): lambda: self._push(tuple(self._since_mark())),
            0x85: lambda: self._push(self._last(1)),
            0x86: lambda: self._push(self._last(2)),
            0x87: lambda: self._push(self._last(3)),
            ord("Q"): self._storage,
            ord("R"): self._make,
            ord("s"): lambda: self._set(list(self._last(2))),
            ord("u"): lambda: self._set(self._since_mark()),
            ord("b"): self._attributes,
        }

    def run(self) -> dict[str, Any]:
        """The dictionary that is left in the end."""
        if self._take(2) != b"\x80\x02":
            raise ValueError("it is no pickle of protocol 2")
        for _ in range(_MOST_ITEMS):
            code = self._take(1)[0]
            if code == ord("."):
                (found,) = self._last(1)
                if self._stack or not isinstance(found, dict) or self.at != len(self._program):
                    raise ValueError("it makes no dictionary, or more than one")
                return found
            if code not in self._steps:
                raise ValueError(f"it has an instruction {code:#x}, which no state dict of tensors needs")
            self._steps[code]()
        raise ValueError(f"it has more than {_MOST_ITEMS:,} instructions")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _take(self, size: int) -> bytes:
        blob = self._program[self.at : self.at + size]
        if len(blob) < size:
            raise IndexError
        self.at += size
        return blob

    def _number(self, form: str) -> int:
        number: int = struct.unpack("<" + form, self._take(struct.calcsize("<" + form)))[0]
        return number

    def _last(self, count: int) -> tuple[Any, ...]:
        """Values off the stack, none of them a mark."""
        found = tuple(self._stack.pop() for _ in range(count))[::-1]
        if any(isinstance(value, _Mark) for value in found):
            raise IndexError
        return found

    def _since_mark(self) -> list[Any]:
        found = []
        while not isinstance(value := self._stack.pop(), _Mark):
            found.append(value)
        return found[::-1]

    def _name(self) -> None:
        end = self._program.index(b"\n", self._program.index(b"\n", self.at) + 1)
        module, name = self._take(end - self.at).decode().split("\n")
        self.at += 1
        full = f"{module} {name}"
        if full not in (*_STORAGES, _DICTIONARY, _TENSOR):
            raise ValueError(
                f"it names {f'{module}.{name}'[:200]!r}, which is no part of a state dict of 32 or 16 bits"
            )
        self._push(_Name(full))

    def _remember(self, place: int) -> None:
        (value,) = self._last(1)
        self._known[place] = value
        self._push(value)

    def _recall(self, place: int) -> None:
        if place not in self._known:
            raise IndexError
        self._push(self._known[place])

    def _storage(self) -> None:
        (said,) = self._last(1)
        if not isinstance(said, tuple) or len(said) != 5 or said[0] != "storage":
            raise ValueError("it refers to something that is no storage")
        _, kind, key, _, n_numbers = said
        if not isinstance(kind, _Name) or kind.name not in _STORAGES:
            raise ValueError("it refers to a storage of no known kind")
        if type(key) is not str or type(n_numbers) is not int:
            raise ValueError("it refers to a storage without a name or a size")
        self._push(Storage(_STORAGES[kind.name], key, n_numbers))

    def _make(self) -> None:
        made, said = self._last(2)
        name = made.name if isinstance(made, _Name) else ""
        if name == _DICTIONARY and said == ():
            self._push({})
        elif name == _TENSOR and isinstance(said, tuple) and len(said) == 6:
            storage, offset, shape, stride, needs_gradient, hooks = said
            tuples = type(shape) is tuple and type(stride) is tuple
            if type(storage) is not Storage or type(offset) is not int or not tuples:
                raise ValueError("it makes a tensor of something else than a storage")
            if type(needs_gradient) is not bool or hooks != {}:
                raise ValueError("it makes a tensor with hooks")
            self._push(StoredTensor(storage, offset, shape, stride))
        else:
            raise ValueError("it makes something else than a dictionary or a tensor")

    def _set(self, pairs: list[Any]) -> None:
        (table,) = self._last(1)
        if type(table) is not dict or len(pairs) % 2:
            raise ValueError("it fills something that is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) is not str or key in table:
                raise ValueError("it has a key that is no text, or one twice")
            table[key] = value
        self._push(table)

    def _attributes(self) -> None:
        """A state dict of a module bears its versions as attributes: they are passed over."""
        table, said = self._last(2)
        if type(table) is not dict or type(said) is not dict:
            raise ValueError("it gives attributes to something that is no dictionary")
        self._push(table)
