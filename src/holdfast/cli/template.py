"""Go's text/template, as much of it as `--format` is used with, over decoded JSON.

Actions: `{{.Field.Sub}}`, `{{$variable}}`, pipelines, `if`/`else if`/`else`, `range`/`else`, `with`, comments, trim
markers. Functions: Go's own and those docker's (json, join, lower, upper, title, split, truncate, pad).
Source: pkg.go.dev/text/template; docs.docker.com, "Format command and log output".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

_ACTION = re.compile(r"\{\{(- )?\s*(.*?)\s*( -)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)"""
    r"""|(?P<path>\$?\w*(?:\.\w+)+|\.|\$\w*|\w+)|(?P<mark>:=|[|(,=]|\)(?:\.\w+)*))"""
)

Method = Callable[..., object]


class TemplateError(ValueError):
    """The template cannot be parsed, or asks for something that is not there."""


class Scope:
    """Where a piece of a template runs: the dot, and the variables seen from there."""

    __slots__ = ("dot", "strict", "variables")

    def __init__(self, dot: object, variables: dict[str, object], *, strict: bool) -> None:
        self.dot = dot
        self.variables = variables
        self.strict = strict

    def inner(self, dot: object) -> Scope:
        """A scope inside this one, about something else."""
        return Scope(dot, dict(self.variables), strict=self.strict)

    def walk(self, value: object, fields: Sequence[str], path: str) -> object:
        """The value at the end of `.A.B`. Raises TemplateError for a field that is not there, if strict."""
        for field in fields:
            if not isinstance(value, Mapping) or field not in value:
                if not self.strict:
                    return None
                why = f"can't evaluate field {field} in type {_go_type(value)}"
                if isinstance(value, Mapping):
                    why = f"map has no entry for key {json.dumps(field)}"
                raise TemplateError(f'template: :1:2: executing "" at <{path}>: {why}')
            value = value[field]
        return value


Part = Callable[[Scope], str]
Value = Callable[[Scope], object]


class Template:
    """A compiled template; `render` may be called for many values.

    A field that is not there is an error if `strict`, else it shows as `<no value>`. Raises TemplateError.
    """

    def __init__(self, source: str, *, strict: bool = True) -> None:
        self._body = _Parser(source).block(top=True)[0]
        self._strict = strict

    def render(self, value: object) -> str:
        """The template's text for `value`."""
        return self._body(Scope(value, {"$": value}, strict=self._strict))


class _Parser:
    """Turns the source into nested functions, one for each block."""

    def __init__(self, source: str) -> None:
        self._pieces = _split(source)
        self._next = 0

    def block(self, *, top: bool = False) -> tuple[Part, str]:
        """Parse up to the action that ends the block; the block, and that action."""
        parts: list[Part] = []
        while self._next < len(self._pieces):
            is_action, piece = self._pieces[self._next]
            self._next += 1
            if not is_action:
                parts.append(_text(piece))
                continue
            if piece.startswith("/*"):
                continue
            keyword, _, rest = piece.partition(" ")
            if keyword in {"end", "else"}:
                if top:
                    _fail(f"unexpected {{{{{keyword}}}}}")
                return _sequence(parts), piece
            if keyword in {"if", "range", "with"}:
                parts.append(self._control(keyword, rest))
            else:
                parts.append(_action(piece))
        if not top:
            _fail("unexpected EOF")
        return _sequence(parts), ""

    def _control(self, keyword: str, condition: str) -> Part:
        names, source = _declared(condition)
        value = _pipeline(source)
        body, ending = self.block()
        otherwise: Part = _sequence([])
        if ending.startswith("else"):
            chained = ending.removeprefix("else").strip()
            if chained:
                next_keyword, _, rest = chained.partition(" ")
                otherwise = self._control(next_keyword, rest)
            else:
                otherwise, _ = self.block()
        if keyword == "range":
            return _range(names, value, body, otherwise)
        return _branch(names, value, body, otherwise, moves_dot=keyword == "with")


def _split(source: str) -> list[tuple[bool, str]]:
    pieces: list[tuple[bool, str]] = []
    position, trim = 0, False
    for match in _ACTION.finditer(source):
        text = source[position : match.start()]
        text = text.lstrip() if trim else text
        pieces.append((False, text.rstrip() if match[1] else text))
        pieces.append((True, match[2]))
        position, trim = match.end(), bool(match[3])
    text = source[position:]
    if "{{" in text:
        _fail("unclosed action")
    pieces.append((False, text.lstrip() if trim else text))
    return pieces


def _text(text: str) -> Part:
    return lambda _scope: text


def _sequence(parts: list[Part]) -> Part:
    return lambda scope: "".join([part(scope) for part in parts])


def _action(source: str) -> Part:
    names, expression = _declared(source)
    value = _pipeline(expression)
    if not names:
        return lambda scope: show(value(scope))

    def assign(scope: Scope) -> str:
        scope.variables[names[0]] = value(scope)
        return ""

    return assign


def _declared(source: str) -> tuple[list[str], str]:
    match = re.match(r"(\$\w+)(?:\s*,\s*(\$\w+))?\s*:?=\s*(.*)", source, re.DOTALL)
    if not match:
        return [], source
    return [name for name in (match[1], match[2]) if name], match[3]


def _branch(names: list[str], value: Value, body: Part, otherwise: Part, *, moves_dot: bool) -> Part:
    def run(scope: Scope) -> str:
        result = value(scope)
        inner = scope.inner(result if moves_dot and truth(result) else scope.dot)
        if names:
            inner.variables[names[0]] = result
        return body(inner) if truth(result) else otherwise(inner)

    return run


def _range(names: list[str], value: Value, body: Part, otherwise: Part) -> Part:
    def run(scope: Scope) -> str:
        result = value(scope)
        if isinstance(result, Mapping):
            items: list[tuple[object, object]] = sorted(result.items())
        elif isinstance(result, list | tuple):
            items = list(enumerate(result))
        elif result is None:
            items = []
        else:
            _fail(f"range can't iterate over {show(result)}")
        if not items:
            return otherwise(scope)
        out = []
        for key, item in items:
            inner = scope.inner(item)
            if len(names) == 2:
                inner.variables[names[0]] = key
            if names:
                inner.variables[names[-1]] = item
            out.append(body(inner))
        return "".join(out)

    return run


def _pipeline(source: str) -> Value:
    tokens: list[tuple[str, str]] = []
    position = 0
    while position < len(source):
        match = _TOKEN.match(source, position)
        if not match or not match.lastgroup:
            _fail(f"unexpected {source[position:].strip()[:1]!r} in operand")
        tokens.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
        if not source[position:].strip():
            break
    value, rest = _stages(tokens)
    if rest:
        _fail(f"unexpected {rest[0][1]!r} in command")
    return value


def _stages(tokens: list[tuple[str, str]]) -> tuple[Value, list[tuple[str, str]]]:
    """One pipeline, up to the end or to a closing bracket."""
    value: Value | None = None
    while True:
        operands: list[tuple[str, Value]] = []
        while tokens and tokens[0][1] != "|" and not tokens[0][1].startswith(")"):
            kind, text = tokens[0]
            if text == "(":
                inner, tokens = _stages(tokens[1:])
                if not tokens:
                    _fail("unclosed left paren")
                operands.append(("value", _fields_of(inner, tokens[0][1])))
            else:
                operands.append((text if kind == "path" else "value", _operand(kind, text)))
            tokens = tokens[1:]
        if not operands:
            _fail("missing value for command")
        value = _call(operands, value)
        if not tokens or tokens[0][1].startswith(")"):
            return value, tokens
        tokens = tokens[1:]


def _fields_of(value: Value, closing: str) -> Value:
    """The value of a bracket, or of the fields in what closes it: `).Field`."""
    fields = closing.split(".")[1:]
    return (lambda scope: scope.walk(value(scope), fields, closing)) if fields else value


def _operand(kind: str, text: str) -> Value:
    if kind == "string":
        literal = text[1:-1] if text[0] == "`" else str(json.loads(text))
        return _constant(literal)
    if kind == "number":
        return _constant(float(text) if "." in text else int(text))
    if kind == "mark":
        _fail(f"unexpected {text!r} in operand")
    head, *fields = text.split(".")
    if head.startswith("$"):
        return lambda scope: scope.walk(_variable(scope, head), fields, text)
    if head:
        constants: dict[str, object] = {"true": True, "false": False, "nil": None}
        if head in constants:
            return _constant(constants[head])
        if head not in FUNCTIONS:
            _fail(f"function {json.dumps(head)} not defined")
        return _constant(FUNCTIONS[head])
    fields = [field for field in fields if field]
    if len(fields) == 1:
        field = fields[0]

        def one(scope: Scope) -> object:  # the commonest by far, on every line of a list
            dot = scope.dot
            return dot[field] if isinstance(dot, dict) and field in dot else scope.walk(dot, fields, text)

        return one
    return lambda scope: scope.walk(scope.dot, fields, text)


def _constant(value: object) -> Value:
    return lambda _scope: value


def _call(operands: list[tuple[str, Value]], piped: Value | None) -> Value:
    (name, first), arguments = operands[0], [value for _, value in operands[1:]]

    def run(scope: Scope) -> object:
        called = first(scope)
        values = [argument(scope) for argument in arguments]
        if piped:
            values.append(piped(scope))
        if callable(called):
            try:
                return called(*values)
            except TemplateError:
                raise
            except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
                raise TemplateError(f"template: :1: error calling {name}: {error}") from error
        if values:
            _fail(f"can't give argument to non-function {name}")
        return called

    return run


def _variable(scope: Scope, name: str) -> object:
    if name not in scope.variables:
        _fail(f"undefined variable {json.dumps(name)}")
    return scope.variables[name]


def _go_type(value: object) -> str:
    return "string" if isinstance(value, str) else "bool" if isinstance(value, bool) else "interface {}"


def _fail(why: str) -> NoReturn:
    raise TemplateError(f"template: :1: {why}")


def truth(value: object) -> bool:
    """Go's truth: false, 0, nil and everything empty are false."""
    return bool(value) or callable(value)


def show(value: object, *, nested: bool = False) -> str:
    """A value as Go's fmt.Print shows it."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>" if nested else "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{show(value[key], nested=True)}" for key in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(show(item, nested=True) for item in value) + "]"
    return str(value)


def to_json(value: object) -> str:
    """A value as compact JSON; methods of a row are no part of it."""
    if isinstance(value, Mapping):
        value = {key: item for key, item in value.items() if not callable(item)}
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list | tuple) and isinstance(key, int):
            value = value[key]
        else:
            raise TypeError(f"can't index item of type {_go_type(value)}")
    return "" if value is None else value


def _join(values: object, separator: str) -> str:
    return separator.join(show(value) for value in values) if isinstance(values, list | tuple) else ""


def _printf(pattern: str, *values: object) -> str:
    arguments = iter(values)

    def one(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        value = next(arguments, "%!(MISSING)")
        if match[2] in {"v", "s"}:
            return f"%{match[1]}s" % show(value)
        if match[2] == "q":
            return json.dumps(show(value), ensure_ascii=False)
        return f"%{match[1]}{match[2]}" % value

    return re.sub(r"%%|%([-+ 0#]*\d*(?:\.\d+)?)([vsqdxXfgtc])", one, pattern)


def _length(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, str | Mapping | list | tuple):
        return len(value)
    raise TypeError(f"len of type {_go_type(value)}")


def _slice(value: object, *bounds: int) -> object:
    if isinstance(value, str | list):
        return value[slice(bounds[0] if bounds else None, bounds[1] if len(bounds) > 1 else None)]
    raise TypeError(f"can't slice item of type {_go_type(value)}")


def _and(*values: object) -> object:
    return next((value for value in values if not truth(value)), values[-1])


def _or(*values: object) -> object:
    return next((value for value in values if truth(value)), values[-1])


FUNCTIONS: dict[str, Method] = {
    "json": to_json,
    "index": _index,
    "join": _join,
    "len": _length,
    "slice": _slice,
    "lower": lambda text: str(text).lower(),
    "upper": lambda text: str(text).upper(),
    "title": lambda text: str(text).title(),
    "split": lambda text, separator: str(text).split(separator),
    "pad": lambda text, before, after: " " * before + text + " " * after if text else text,
    "truncate": lambda text, length: str(text)[:length],
    "print": lambda *values: "".join(show(value) for value in values),
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "printf": _printf,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "and": _and,
    "or": _or,
    "not": lambda value: not truth(value),
}
