"""JSON in, as Go's encoding/json and Docker's httputils.ReadJSON read it.

Keys match whatever their case, unknown keys are skipped, null leaves a field at its default, a repeated key counts the
last time. A shape is a msgspec.Struct whose fields all have defaults; a reader is built once for each shape, from
closures, so that the common path is one dictionary look-up a key.
"""

from __future__ import annotations

import functools
import json
import re
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from holdfast.errors import InvalidParameter
from holdfast.wire.syntax import syntax_error

S = TypeVar("S", bound=msgspec.Struct)
Reader = Callable[[Any], Any]

_GO_NAMES = {
    "VolumeCreate": "volume.CreateOptions",
    "ContainerCreate": "container.CreateRequest",
    "ContainerUpdate": "container.UpdateConfig",
    "ExecCreate": "container.ExecOptions",
    "ExecStart": "container.ExecStartOptions",
    "NetworkCreate": "network.CreateRequest",
}
"""What Docker 28.5 calls the shapes whose errors clients may see; others count as `container.<our name>`."""


class _Mismatch(Exception):
    """A value of the wrong type, on its way up through the fields that hold it."""

    def __init__(self, value: object, go_type: str) -> None:
        super().__init__(go_type)
        self.value = value
        self.go_type = go_type
        self.path: list[str] = []

    def text(self, shape: type) -> str:
        """Give Go's UnmarshalTypeError."""
        field = f"{_go_name(shape).partition('.')[2]}.{'.'.join(self.path)}"
        where = f"Go struct field {field}" if self.path else "Go value"
        return f"json: cannot unmarshal {_describe(self.value, self.go_type)} into {where} of type {self.go_type}"


def decode(shape: type[S], data: bytes) -> S:
    """Read one JSON document into `shape`.

    Raises InvalidParameter in Docker's words: `invalid JSON: unexpected EOF`, `invalid JSON: json: cannot unmarshal
    number into Go struct field CreateOptions.Name of type string`, `unexpected content after JSON`.
    Source: moby, daemon/server/httputils, ReadJSON; Go, encoding/json.
    """
    value, has_more = _parse(data)
    try:
        result: S = shape() if value is None else _reader(shape)(value)
    except _Mismatch as mismatch:
        raise InvalidParameter(f"invalid JSON: {mismatch.text(shape)}") from None
    except msgspec.ValidationError as error:
        raise InvalidParameter(f"invalid JSON: {error}") from error
    if has_more:
        raise InvalidParameter("unexpected content after JSON")
    return result


def _parse(data: bytes) -> tuple[Any, bool]:
    """Give the first document and whether anything follows it."""
    try:
        return _plain.decode(data), False
    except msgspec.DecodeError as error:
        reason = str(error)
    except RecursionError:
        raise InvalidParameter("invalid JSON: json: exceeded max depth") from None
    except UnicodeDecodeError:
        reason = "UTF-8"
    if not data.strip(b" \t\r\n"):
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    # Go shows bytes and escapes that are no UTF-8 as U+FFFD; the standard library's decoder can be made to.
    text = data.decode("utf-8", "replace")
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        value, end = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text, start)
    except RecursionError:
        raise InvalidParameter("invalid JSON: json: exceeded max depth") from None
    except ValueError:
        raise InvalidParameter(f"invalid JSON: {syntax_error(data) or reason}") from None
    rest = text[end:].lstrip(" \t\r\n")
    return _scrub(value), bool(rest) and rest[0] not in "]}"  # Go's Decoder.More() takes those for an end


_plain: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_SURROGATE = re.compile("[\ud800-\udfff]")


def _refuse_constant(word: str) -> Any:
    raise ValueError(word)


def _scrub(value: Any) -> Any:
    """Replace lone surrogates that came as escapes."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_scrub(item) for item in value]
    if isinstance(value, dict):
        return {_scrub(key): _scrub(item) for key, item in value.items()}
    return value


# -- readers -----------------------------------------------------------------------------------------------------------


@functools.cache
def _reader(wanted: Any) -> Reader:
    """Build the reader of a type. It never sees null at a field: that is handled one level up."""
    if wanted is Any or wanted is object:
        return _as_it_is
    if wanted is msgspec.Raw:
        return _raw
    if wanted in _SCALARS:
        return _scalar(wanted, *_SCALARS[wanted])
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in {typing.Union, types.UnionType}:
        return _union([item for item in arguments if item is not types.NoneType])
    if origin is typing.Annotated:
        return _unsigned(arguments[1]) if arguments[1] in _UNSIGNED else _reader(arguments[0])
    if origin is list or (origin is tuple and arguments[1:] == (Ellipsis,)):
        return _array(origin, arguments[0])
    if origin is dict:
        return _map(arguments[1])
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return _struct(wanted)
    return functools.partial(msgspec.convert, type=wanted)


_SCALARS: dict[Any, tuple[str, Any]] = {
    str: ("string", ""),
    bool: ("bool", False),
    int: ("int64", 0),
    float: ("float64", 0.0),
}


_UNSIGNED = {"uint": 64, "uint16": 16, "uint64": 64}
"""Go's unsigned integers, as `Annotated[int, "uint16"]`, and their bits."""


def _unsigned(go_type: str) -> Reader:
    limit = 1 << _UNSIGNED[go_type]

    def read(value: Any) -> Any:
        if type(value) is int and 0 <= value < limit:
            return value
        if value is None:
            return 0
        raise _Mismatch(value, go_type)

    return read


def _as_it_is(value: Any) -> Any:
    return value


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _scalar(wanted: type, go_type: str, zero: Any) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is wanted:
            return value
        if value is None:
            return zero
        if wanted is float and type(value) is int:
            return float(value)
        raise _Mismatch(value, go_type)

    def read_integer(value: Any) -> Any:
        if type(value) is int and -(1 << 63) <= value < 1 << 63:
            return value
        if value is None:
            return zero
        raise _Mismatch(value, go_type)

    return read_integer if wanted is int else read


def _array(kind: Any, item_type: Any) -> Reader:
    read_item = _reader(item_type)
    go_type = _go_type(list[item_type])

    def read(value: Any) -> Any:
        if value is None:
            return kind()
        if type(value) is not list:
            raise _Mismatch(value, go_type)
        return kind([read_item(item) for item in value])

    return read


def _map(item_type: Any) -> Reader:
    read_item = _reader(item_type)
    go_type = _go_type(dict[str, item_type])

    def read(value: Any) -> Any:
        if value is None:
            return {}
        if type(value) is not dict:
            raise _Mismatch(value, go_type)
        return {key: read_item(item) for key, item in value.items()}

    return read


def _union(members: list[Any]) -> Reader:
    if len(members) == 1:
        read_only = _reader(members[0])
        return lambda value: None if value is None else read_only(value)
    by_kind = {_kind(member): _reader(member) for member in members}
    go_type = _go_type(members[0])

    def read(value: Any) -> Any:
        if value is None:
            return None
        read_member = by_kind.get(type(value))
        if read_member is None:
            raise _Mismatch(value, go_type)
        return read_member(value)

    return read


def _kind(member: Any) -> type:
    """Give the Python type that JSON for `member` decodes to."""
    if member in _SCALARS:
        return typing.cast(type, member)
    return list if typing.get_origin(member) in {list, tuple} else dict


def _struct(shape: type[msgspec.Struct]) -> Reader:
    exact: dict[str, tuple[str, str, Reader]] = {}
    for entry in msgspec.structs.fields(shape):
        assert not entry.required, f"{shape.__name__}.{entry.name} needs a default: Go knows no required fields"
        exact[entry.encode_name] = (entry.name, entry.encode_name, _lazy_reader(entry.type))
    folded = {name.casefold(): found for name, found in exact.items()}
    go_type = _go_name(shape)

    def read(value: Any) -> Any:
        if value is None:
            return shape()
        if type(value) is not dict:
            raise _Mismatch(value, go_type)
        arguments: dict[str, Any] = {}
        for key, item in value.items():
            found = exact.get(key) or folded.get(key.casefold())
            if found is None or item is None:
                continue
            name, encoded, read_field = found
            try:
                arguments[name] = read_field(item)
            except _Mismatch as mismatch:
                mismatch.path.insert(0, encoded)
                raise
        return shape(**arguments)

    return read


def _lazy_reader(wanted: Any) -> Reader:
    """Build a field's reader at first use, so that a shape may hold itself."""
    if wanted in _SCALARS:
        return _reader(wanted)

    def read(value: Any) -> Any:
        return _reader(wanted)(value)

    return read


def _go_name(shape: type) -> str:
    return _GO_NAMES.get(shape.__name__, f"container.{shape.__name__}")


def _go_type(wanted: Any) -> str:
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted in _SCALARS:
        return _SCALARS[wanted][0]
    if origin in {typing.Union, types.UnionType}:
        return _go_type(next(item for item in arguments if item is not types.NoneType))
    if origin is typing.Annotated:
        return str(arguments[1])
    if origin in {list, tuple}:
        return f"[]{_go_type(arguments[0])}"
    if origin is dict:
        return f"map[string]{_go_type(arguments[1])}"
    return _go_name(wanted) if isinstance(wanted, type) else "interface {}"


def _describe(value: object, go_type: str) -> str:
    """Name a JSON value as Go does; a number that only does not fit is shown."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return f"number {value}" if go_type.startswith(("int", "uint")) else "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


# -- Content-Type ------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def require_json_content_type(content_type: str, *, has_body: bool) -> None:
    """Check that a body says it is JSON; without a body the header may be absent. Raises InvalidParameter.

    Source: moby, daemon/server/httputils, CheckForJSON; Go, mime.ParseMediaType.
    """
    if content_type == "application/json" or (not content_type and not has_body):
        return
    media_type, *parameters = content_type.split(";")
    media_type = media_type.strip().lower()
    problem = _media_type_problem(media_type, [parameter.strip() for parameter in parameters])
    if problem:
        raise InvalidParameter(f"malformed Content-Type header ({content_type}): {problem}")
    if media_type != "application/json":
        raise InvalidParameter(f"unsupported Content-Type header ({content_type}): must be 'application/json'")


def _media_type_problem(media_type: str, parameters: list[str]) -> str:
    if not media_type:
        return "mime: no media type"
    kind, slash, subtype = media_type.partition("/")
    if not _TOKEN.match(kind):
        return "mime: no media type"
    if not _TOKEN.fullmatch(kind):
        return "mime: expected slash after first token"
    if slash and not _TOKEN.match(subtype):
        return "mime: expected token after slash"
    if slash and not _TOKEN.fullmatch(subtype):
        return "mime: unexpected content after media subtype"
    for index, parameter in enumerate(parameters):
        name, equals, value = parameter.partition("=")
        if not parameter and index == len(parameters) - 1:
            continue  # Go lets a semicolon stand at the end
        if not _TOKEN.fullmatch(name.strip()) or not equals or not value.strip():
            return "mime: invalid media parameter"
    return ""
