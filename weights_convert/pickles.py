"""Pickles read as data: tensors and plain containers come alive, everything else stays inert.

The instructions are tokenised by `pickletools`, which only decodes, and interpreted here. No name
in a pickle is ever imported and nothing it refers to is ever called: an unknown function becomes
an `Inert` that records its name and arguments.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from jaxcrop.errors import MalformedError

# Enough for the largest published checkpoints with their optimiser state (some 35 instructions a
# tensor), and few enough that no pickle builds more than tens of megabytes of Python objects.
_MAX_INSTRUCTIONS = 150_000
_MAX_BYTES = 4 << 20
_MAX_LINE = 1 << 12
_MAX_DEPTH = 64
_MAX_INT_BITS = 2048
_MAX_KEY_BITS = 60
_MAX_DIMENSIONS = 32

_DTYPES = {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
    "ComplexFloat": np.complex64,
    "ComplexDouble": np.complex128,
    "Untyped": np.uint8,
}
_STORAGES = {
    f"{module}.{name}Storage": np.dtype(dtype)
    for module in ("torch", "torch.cuda", "torch.storage")
    for name, dtype in _DTYPES.items()
}
_UNTYPED_TENSORS = {
    f"torch.{name}": np.dtype(dtype)
    for name, dtype in {
        "uint16": np.uint16,
        "uint32": np.uint32,
        "uint64": np.uint64,
        "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
        "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
        "float8_e5m2": ml_dtypes.float8_e5m2,
        "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
        "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
    }.items()
}

LoadStorage = Callable[[str, np.dtype, int], memoryview]
"""Finds the bytes of a storage by its key, element type and number of elements."""


@dataclass(frozen=True)
class Reference:
    """A class or function that a pickle names, as `module.name`; never imported."""

    name: str


@dataclass(eq=False)
class Inert:
    """What a pickle would have made by calling `name(*args)`; nothing was called."""

    name: str
    # Left out of what is printed, for a few bytes make arguments whose text never ends.
    args: tuple = field(repr=False)
    state: Any = field(default=None, repr=False)
    items: list = field(default_factory=list, repr=False)


@dataclass(frozen=True, eq=False)
class Storage:
    """The bytes that tensors view, and their element type."""

    dtype: np.dtype
    data: memoryview


class Stream:
    """The file interface that `pickletools` reads, over part of a buffer, in bounded pieces."""

    def __init__(self, buffer: memoryview, position: int = 0):
        self._buffer = buffer
        self._end = position + _MAX_BYTES
        self.position = position

    def tell(self) -> int:
        return self.position

    def read(self, size: int) -> bytes:
        if self.position + size > self._end:
            raise MalformedError(f"its pickle is longer than {_MAX_BYTES} bytes")
        data = bytes(self._buffer[self.position : self.position + size])
        self.position += len(data)
        return data

    def readline(self) -> bytes:
        line = bytes(self._buffer[self.position : self.position + _MAX_LINE])
        return self.read(line.find(b"\n") + 1)


def interpret(stream: Stream, load_storage: LoadStorage) -> Any:
    """Read one pickle as plain data, numpy arrays (views of their storages) and `Inert` objects.

    Leaves `stream` behind the pickle. Raises MalformedError for a pickle that is forged or beyond
    the bounds set above; ValueError, LookupError, TypeError or RecursionError for a damaged one.
    """
    result = _Interpreter(load_storage).run(stream)
    _check_depth(result, 0, {})
    return result


def _check_depth(value: Any, depth: int, heights: dict[int, int]) -> int:
    """Refuse containers that nest too deeply or hold themselves; returns the height of `value`."""
    if isinstance(value, dict):
        children = value.values()
    elif isinstance(value, list | tuple):
        children = value
    else:
        return 0
    if id(value) not in heights:
        if depth > _MAX_DEPTH:
            raise MalformedError(f"its containers nest deeper than {_MAX_DEPTH} levels")
        below = (_check_depth(child, depth + 1, heights) for child in children)
        heights[id(value)] = 1 + max(below, default=0)
    if depth + heights[id(value)] > _MAX_DEPTH:
        raise MalformedError(f"its containers nest deeper than {_MAX_DEPTH} levels")
    return heights[id(value)]


_PUSH_ARGUMENT = frozenset([
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
])  # fmt: skip
_PUSH_NEW = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_NO_EFFECT = frozenset({"PROTO", "FRAME", "STOP"})


class _Interpreter:
    """A pickle machine: one method per instruction, named after it."""

    def __init__(self, load_storage: LoadStorage):
        self._load_storage = load_storage
        self._stack: list = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._spent = 0

    def run(self, stream: Stream) -> Any:
        for opcode, argument, _ in pickletools.genops(stream):
            self._spend(1)
            if opcode.name in _PUSH_ARGUMENT:
                self._push(_checked_constant(argument))
            elif opcode.name in _PUSH_NEW:
                self._push(_PUSH_NEW[opcode.name]())
            elif opcode.name not in _NO_EFFECT:
                instruction = getattr(self, f"_{opcode.name.lower()}", None)
                if instruction is None:
                    raise MalformedError(f"its pickle uses the instruction {opcode.name}")
                instruction(argument)
        return self._stack.pop()

    def _spend(self, count: int):
        self._spent += count
        if self._spent > _MAX_INSTRUCTIONS:
            raise MalformedError(f"its pickle has more than {_MAX_INSTRUCTIONS} instructions")

    def _push(self, value: Any):
        self._stack.append(value)

    def _since_mark(self) -> list:
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    # The stack and the memo.

    def _mark(self, _):
        self._marks.append(len(self._stack))

    def _pop(self, _):
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _pop_mark(self, _):
        self._since_mark()

    def _dup(self, _):
        self._push(self._stack[-1])

    def _get(self, index: int):
        self._push(self._memo[index])

    _binget = _long_binget = _get

    def _put(self, index: int):
        self._memo[index] = self._stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _):
        self._put(len(self._memo))

    # Containers.

    def _tuple(self, _):
        self._push(tuple(self._since_mark()))

    def _tuple1(self, _):
        self._stack[-1:] = [(self._stack[-1],)]

    def _tuple2(self, _):
        self._stack[-2:] = [(self._stack[-2], self._stack[-1])]

    def _tuple3(self, _):
        self._stack[-3:] = [(self._stack[-3], self._stack[-2], self._stack[-1])]

    def _list(self, _):
        self._push(self._since_mark())

    def _dict(self, _):
        items = self._since_mark()
        self._push({})
        self._set_pairs(items)

    def _frozenset(self, _):
        self._push(frozenset(map(_checked_key, self._since_mark())))

    def _append(self, _):
        self._extend([self._stack.pop()])

    def _appends(self, _):
        self._extend(self._since_mark())

    def _extend(self, items: list):
        target = self._stack[-1]
        if isinstance(target, Inert):
            target = target.items
        if not isinstance(target, list):
            raise MalformedError("its pickle appends to something that is no list")
        target.extend(items)

    def _setitem(self, _):
        value, key = self._stack.pop(), self._stack.pop()
        self._set_pairs([key, value])

    def _setitems(self, _):
        self._set_pairs(self._since_mark())

    def _set_pairs(self, items: list):
        target = self._stack[-1]
        pairs = list(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, Inert):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            target.update((_checked_key(key), value) for key, value in pairs)
        else:
            raise MalformedError("its pickle sets an item of something that is no dictionary")

    def _additems(self, _):
        items = self._since_mark()
        target = self._stack[-1]
        if not isinstance(target, set):
            raise MalformedError("its pickle adds to something that is no set")
        target.update(map(_checked_key, items))

    # Names, and what the pickle would call.

    def _global(self, argument: str):
        self._push(Reference(argument.replace(" ", ".", 1)))

    def _stack_global(self, _):
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise MalformedError("its pickle names a class by something that is no text")
        self._push(Reference(f"{module}.{name}"))

    def _reduce(self, _):
        args, function = self._stack.pop(), self._stack.pop()
        self._push(self._call(function, args))

    _newobj = _reduce

    def _newobj_ex(self, _):
        keywords, args, function = self._stack.pop(), self._stack.pop(), self._stack.pop()
        made = self._call(function, args)
        if isinstance(made, Inert):
            made.state = keywords
        self._push(made)

    def _inst(self, argument: str):
        args = tuple(self._since_mark())
        self._push(self._call(Reference(argument.replace(" ", ".", 1)), args))

    def _obj(self, _):
        function, *args = self._since_mark()
        self._push(self._call(function, tuple(args)))

    def _build(self, _):
        state = self._stack.pop()
        # The attributes of a container or tensor (`_metadata` of a state dict) carry no weights.
        if isinstance(self._stack[-1], Inert):
            self._stack[-1].state = state

    def _call(self, function: Any, args: Any) -> Any:
        if not isinstance(function, Reference) or not isinstance(args, tuple):
            raise MalformedError("its pickle calls something that is no named function")
        if function.name == "torch._tensor._rebuild_from_type_v2":
            rebuild, _, args, _ = args
            return self._call(rebuild, args)
        known = _KNOWN.get(function.name)
        if known is None:
            return Inert(function.name, args)
        self._spend(sum(map(_copy_cost, args)))
        return known(*args)

    # Storages.

    def _binpersid(self, _):
        reference = self._stack.pop()
        # An array, whose strides can make it endless, must be neither unpacked nor compared.
        kind = reference[0] if isinstance(reference, tuple) and reference else None
        if not isinstance(kind, str) or kind not in ("module", "storage"):
            raise MalformedError("its pickle refers to something that is no storage")
        # A module is the source code of a pickled model.
        self._push(reference[1] if kind == "module" else self._storage(*reference[1:]))

    def _storage(self, kind: Any, key: Any, *rest: Any) -> Storage:
        _device, count, *views = rest
        dtype = _STORAGES.get(kind.name) if isinstance(kind, Reference) else None
        if dtype is None or not isinstance(key, str):
            raise MalformedError("it holds a storage of an unsupported type")
        _check_counts(count)
        data = self._load_storage(key, dtype, count)
        for _, start, size in filter(None, views):
            _check_counts(start, size)
            if start + size > count:
                raise MalformedError(f"a view of its storage {key} reaches beyond it")
            data = data[start * dtype.itemsize : (start + size) * dtype.itemsize]
        return Storage(dtype, data)


def _checked_constant(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _MAX_INT_BITS:
        raise MalformedError("its pickle holds an absurdly large integer")
    return value


def _copy_cost(argument: Any) -> int:
    """Copying an argument counts as that many instructions, so that none is copied without end."""
    if isinstance(argument, str):
        return len(argument) // 64
    return len(argument) if isinstance(argument, list | tuple | dict | set) else 0


def _checked_key(key: Any) -> Any:
    """Only keys whose hash costs little: that of a nested tuple can take for ever.

    Integers are small enough to differ in their hash: it is their remainder modulo 2**61 - 1, and
    thousands of keys with the same one take minutes to store.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) > 16 or not all(
        (isinstance(part, int) and part.bit_length() <= _MAX_KEY_BITS)
        or isinstance(part, str | bytes | float | Reference | Inert | None)
        for part in parts
    ):
        raise MalformedError("its pickle holds a dictionary key or set member of an unusual type")
    return key


def _check_counts(*numbers: Any):
    if any(type(number) is not int or number < 0 for number in numbers):
        raise MalformedError("it describes a tensor by something other than whole numbers")


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> np.ndarray:
    """A view of `storage`, of `shape`, with `offset` and `strides` counted in elements."""
    del rest  # requires_grad and hooks
    if not (
        isinstance(storage, Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides) <= _MAX_DIMENSIONS
    ):
        raise MalformedError("it describes a tensor by arguments of the wrong type")
    _check_counts(offset, *shape, *strides)
    if 0 in shape:
        return np.empty(shape, storage.dtype)
    size = storage.dtype.itemsize
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if (last + 1) * size > len(storage.data):
        raise MalformedError(f"a tensor of shape {shape} reaches beyond its storage")
    byte_strides = tuple(stride * size for stride in strides)
    return np.ndarray(shape, storage.dtype, storage.data, offset * size, byte_strides)


def _rebuild_tensor_v2(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Any:
    _requires_grad, _hooks, *flags = rest
    if any(flags):
        raise MalformedError("it holds a lazily conjugated or negated tensor")
    return _rebuild_tensor(storage, offset, shape, strides)


def _rebuild_tensor_v3(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Any:
    """A tensor of a type that has no storage class of its own, over raw bytes."""
    requires_grad, hooks, kind, *flags = rest
    dtype = _UNTYPED_TENSORS.get(kind.name) if isinstance(kind, Reference) else None
    if dtype is None or not isinstance(storage, Storage):
        raise MalformedError("it holds a tensor of an unsupported type")
    typed = Storage(dtype, storage.data)
    return _rebuild_tensor_v2(typed, offset, shape, strides, requires_grad, hooks, *flags)


def _rebuild_parameter(data: Any, *rest: Any) -> Any:
    del rest  # requires_grad, hooks, state
    return data


def _items(container: Any) -> list:
    """The items of a container; an array is none, for its strides can make it endless."""
    if isinstance(container, dict):
        return list(container.items())
    if not isinstance(container, list | tuple | set | frozenset):
        raise MalformedError("its pickle builds a container from something that is none")
    return list(container)


def _make_dict(pairs: Any = ()) -> dict:
    return {_checked_key(key): value for key, value in map(_items, _items(pairs))}


def _make_set(items: Any = ()) -> set:
    return {_checked_key(item) for item in _items(items)}


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes: as text to be encoded."""
    if not isinstance(text, str) or not isinstance(encoding, str) or encoding != "latin1":
        raise MalformedError("its pickle holds bytes written in an unknown way")
    return text.encode("latin1")


_KNOWN: dict[str, Callable] = {
    "collections.OrderedDict": _make_dict,
    "collections.defaultdict": lambda _factory=None, pairs=(): _make_dict(pairs),
    "torch.Size": lambda sizes=(): tuple(_items(sizes)),
    "_codecs.encode": _encode,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    **{
        f"{module}.{name}": make
        for module in ("builtins", "__builtin__")
        for name, make in {
            "set": _make_set,
            "frozenset": lambda items=(): frozenset(_make_set(items)),
            "complex": complex,
        }.items()
    },
}
