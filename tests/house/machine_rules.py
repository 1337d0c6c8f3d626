"""What a machine must not do, read from its syntax tree.

The one rule: a machine's behavior follows from its inputs alone. import-linter sees a forbidden
import; the rules here see what needs none: builtins that reach outside, the global random
generator, and the order of a set, which changes with PYTHONHASHSEED. Each function yields the
offending nodes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

OUTSIDE_BUILTINS = frozenset({"__import__", "breakpoint", "eval", "exec", "input", "open", "print"})
SET_TYPES = frozenset({"set", "frozenset", "Set", "AbstractSet", "MutableSet"})
# Calls whose result depends on the order of the iterable that they are given.
ORDERED_CALLS = frozenset({"deque", "enumerate", "filter", "iter", "list", "map", "tuple", "zip"})
# Calls whose result does not, so that a generator over a set is fine as their argument. `min` and
# `max` are not among them: with a key, the first of equals wins.
UNORDERED_CALLS = frozenset({"all", "any", "frozenset", "len", "set", "sorted", "sum"})


def outside_calls(tree: ast.Module) -> Iterator[ast.AST]:
    """Calls of builtins that reach files, the terminal or other code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _builtin(node) in OUTSIDE_BUILTINS:
            yield node


def global_chance(tree: ast.Module) -> Iterator[ast.AST]:
    """Uses of `random` other than the class `random.Random`."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="random"), attr=name) if name != "Random":
                yield node
            case ast.ImportFrom(module="random", names=names):
                if any(alias.name != "Random" for alias in names):
                    yield node
            case _:
                pass


def set_iterations(tree: ast.Module) -> Iterator[ast.AST]:
    """Iterations whose order is that of a set, where the file itself shows that it is one.

    Recognized are displays, calls of `set` and `frozenset`, and names and attributes that are
    annotated as sets anywhere in the file.
    """
    known = _annotated_sets(tree)
    harmless = {
        argument
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and _builtin(call) in UNORDERED_CALLS
        for argument in call.args
    }
    for node in ast.walk(tree):
        if node in harmless or isinstance(node, ast.SetComp):
            continue
        match node:
            case ast.For(iter=iterated) if _is_set(iterated, known):
                yield node
            case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
                if any(_is_set(part.iter, known) for part in node.generators):
                    yield node
            case ast.Call() | ast.Starred() if any(_is_set(a, known) for a in _ordered(node)):
                yield node
            case _:
                pass


def _ordered(node: ast.Call | ast.Starred) -> list[ast.expr]:
    if isinstance(node, ast.Starred):
        return [node.value]
    return node.args if _builtin(node) in ORDERED_CALLS else []


def _annotated_sets(tree: ast.Module) -> frozenset[str]:
    names = set()
    for node in ast.walk(tree):
        match node:
            case (
                ast.AnnAssign(target=ast.Name(id=name), annotation=annotation)
                | ast.AnnAssign(target=ast.Attribute(attr=name), annotation=annotation)
                | ast.arg(arg=name, annotation=ast.expr() as annotation)
            ):
                if _says_set(annotation):
                    names.add(name)
            case _:
                pass
    return frozenset(names)


def _says_set(annotation: ast.expr) -> bool:
    if isinstance(annotation, ast.Subscript):
        annotation = annotation.value
    return _name(annotation) in SET_TYPES


def _is_set(node: ast.expr, known: frozenset[str]) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call():
            return _builtin(node) in {"set", "frozenset"}
        case ast.Name() | ast.Attribute():
            return _name(node) in known
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub(), right=right):
            return _is_set(left, known) or _is_set(right, known)
        case _:
            return False


def _builtin(call: ast.Call) -> str | None:
    """The plain name that is called; a method of that name is another thing."""
    return call.func.id if isinstance(call.func, ast.Name) else None


def _name(node: ast.expr) -> str | None:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return None
