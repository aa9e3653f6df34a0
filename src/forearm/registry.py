"""Names are data: `bind(table, "pgd(steps=10)")` reads call syntax, never code, and the function's signature is the schema."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from forearm.errors import SpecError


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Split "pgd(steps=10)" into its name and its literal keyword arguments; numbers may be written as fractions ("8/255")."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, {}
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
            raise ValueError
        names = [k.arg for k in node.keywords]
        if None in names or len(set(names)) < len(names):
            raise ValueError
        return node.func.id, {str(k.arg): _literal(k.value) for k in node.keywords if k.arg is not None}
    except (SyntaxError, ValueError):
        raise SpecError(f"spec: got {text!r}; a name, or a name with keywords, for example 'pgd(steps=10)'") from None


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        above, below = ast.literal_eval(node.left), ast.literal_eval(node.right)
        if isinstance(above, int | float) and isinstance(below, int | float) and below:
            return above / below
        raise ValueError
    return ast.literal_eval(node)


def resolve(table: Mapping[str, str], name: str) -> Callable[..., Any]:
    """The function that `table` names "package.module:function"."""
    if name not in table:
        close = difflib.get_close_matches(name, table, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"one of {', '.join(sorted(table))}"
        raise SpecError(f"name: got {name!r}; {hint}")
    module, _, function = table[name].partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def bind(table: Mapping[str, str], text: str) -> Callable[..., Any]:
    """`text` as a function with its keywords filled in. Unknown keywords are refused with the ones that exist."""
    name, keywords = parse(text)
    function = resolve(table, name)
    allowed = [p.name for p in inspect.signature(function).parameters.values() if p.default is not inspect.Parameter.empty]
    for keyword in keywords:
        if keyword not in allowed:
            close = difflib.get_close_matches(keyword, allowed, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(allowed) or 'nothing'}"
            raise SpecError(f"{name}: got the option {keyword!r}; {hint}")
    return partial(function, **keywords) if keywords else function


def accepts(function: Callable[..., Any], keyword: str) -> bool:
    """Whether a bound function still takes `keyword` (it exists and was not filled in already)."""
    filled = function.keywords if isinstance(function, partial) else {}
    return keyword in inspect.signature(function).parameters and keyword not in filled
