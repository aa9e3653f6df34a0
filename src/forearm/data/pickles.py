"""CIFAR's pickles, read without unpickling: the opcodes are walked and nothing that they name is ever called."""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forearm.errors import InputError

LARGEST = 512 * 2**20  # bytes of one file; CIFAR-100's `train` has 155 MB
ARRAY, NDARRAY, DTYPE, ENCODE = "_reconstruct", "ndarray", "dtype", "encode"
NAMES = {
    "numpy.core.multiarray _reconstruct": ARRAY,
    "numpy._core.multiarray _reconstruct": ARRAY,
    "numpy ndarray": NDARRAY,
    "numpy dtype": DTYPE,
    "_codecs encode": ENCODE,
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
VALUES = frozenset({
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
})  # fmt: skip


@dataclass(slots=True)
class _Name:
    """Stands for a function or class of numpy. It cannot be called."""

    kind: str


@dataclass(slots=True)
class _Blank:
    """An array or dtype between its making (REDUCE) and its state (BUILD)."""

    kind: str
    value: Any = None


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle of numbers, strings, lists and integer arrays; keys as strings.

    Only the opcodes of such values are understood, and of globals only the five names by which numpy writes an array; these are not
    looked up either: an array is made here, from its bytes and its shape. InputError for everything else, so that a hostile file
    does nothing worse than be refused.
    """
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path}: {path.stat().st_size} bytes; a CIFAR batch of up to {LARGEST}, for example data_batch_1")
    try:
        found = _walk(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("not a dictionary")
        return {_text(key): value.value if isinstance(value, _Blank) else value for key, value in found.items()}
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        why = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: refused as a pickle ({why}); numbers, strings and arrays alone, as in CIFAR's data_batch_1") from None


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise ValueError("a key that is not a string")
    return value if isinstance(value, str) else value.decode("latin-1")


def _walk(data: bytes) -> Any:
    """The value that the opcodes build."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    opcodes: Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]] = pickletools.genops(data)
    for opcode, given, _ in opcodes:
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in VALUES:
            stack.append(given)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else given] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[given])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _COLLECT:
            at = marks.pop()
            items, stack[at:] = stack[at:], []
            _COLLECT[name](stack, items)
        elif name in _STEPS:
            _STEPS[name](stack)
        elif name == "GLOBAL":
            stack.append(_named(given))
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has the opcode {name}")
    raise ValueError("it ends early")


def _named(name: str) -> _Name:
    if name not in NAMES:
        raise ValueError(f"it names {name!r}")
    return _Name(NAMES[name])


def _stack_global(stack: list[Any]) -> None:
    name, module = stack.pop(), stack.pop()
    stack.append(_named(f"{_text(module)} {_text(name)}"))


def _reduce(stack: list[Any]) -> None:
    """What numpy's own pickles call, and nothing else: a blank array, a dtype by its code, latin-1 text as bytes."""
    given, name = stack.pop(), stack.pop()
    kind = name.kind if isinstance(name, _Name) and isinstance(given, tuple) else None
    if kind == ARRAY and isinstance(given[0], _Name) and given[0].kind == NDARRAY:
        stack.append(_Blank(ARRAY))
    elif kind == DTYPE and re.fullmatch(r"[iu][1248]", _text(given[0])):
        stack.append(_Blank(DTYPE, np.dtype(_text(given[0]))))
    elif kind == ENCODE and isinstance(given[0], str) and given[1] == "latin1":
        stack.append(given[0].encode("latin-1"))
    else:
        raise ValueError("it calls something that makes no array of whole numbers")


def _build(stack: list[Any]) -> None:
    state, blank = stack.pop(), stack[-1]
    if not isinstance(blank, _Blank) or not isinstance(state, tuple):
        raise ValueError("it sets the state of something that is no array")
    if blank.kind == DTYPE:
        order = _text(state[1])
        if order not in "<>|=" or len(order) != 1:
            raise ValueError("a byte order that does not exist")
        blank.value = blank.value if order == "|" else blank.value.newbyteorder(order)
        return
    _, shape, dtype, fortran, raw = state
    if not isinstance(dtype, _Blank) or dtype.kind != DTYPE or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("an array without a shape or a dtype")
    content = raw.encode("latin-1") if isinstance(raw, str) else raw
    if not isinstance(content, bytes):
        raise ValueError("an array without bytes")
    blank.value = np.frombuffer(content, dtype.value).reshape(shape, order="F" if fortran else "C")


def _append(stack: list[Any]) -> None:
    item = stack.pop()
    _extend(stack, [item])


def _extend(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise ValueError("it appends to something that is no list")
    stack[-1].extend(items)


def _set(stack: list[Any]) -> None:
    value, key = stack.pop(), stack.pop()
    _update(stack, [key, value])


def _update(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], dict):
        raise ValueError("it sets items of something that is no dictionary")
    if not all(isinstance(key, str | bytes) for key in items[::2]):
        raise ValueError("a key that is not a string")
    stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _tuple(stack: list[Any], length: int) -> None:
    if len(stack) < length:
        raise IndexError("it takes more than there is")
    at = len(stack) - length
    stack[at:] = [tuple(stack[at:])]


_COLLECT = {
    "TUPLE": lambda stack, items: stack.append(tuple(items)),
    "LIST": lambda stack, items: stack.append(items),
    "APPENDS": _extend,
    "SETITEMS": _update,
}
_STEPS = {
    "EMPTY_DICT": lambda stack: stack.append({}),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "EMPTY_TUPLE": lambda stack: stack.append(()),
    "TUPLE1": lambda stack: _tuple(stack, 1),
    "TUPLE2": lambda stack: _tuple(stack, 2),
    "TUPLE3": lambda stack: _tuple(stack, 3),
    "APPEND": _append,
    "SETITEM": _set,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BUILD": _build,
}
