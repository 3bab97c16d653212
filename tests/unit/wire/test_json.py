"""JSON as Docker reads it. The texts of the first table are recorded; the others are Go's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidParameter
from holdfast.wire.json import decode, require_json_content_type
from holdfast.wire.volumes import VolumeCreate


class Inner(msgspec.Struct, rename="pascal"):
    size: int = 0
    ratio: float = 0.0


class Outer(msgspec.Struct, rename="pascal"):
    name: str = "unset"
    on: bool = False
    words: tuple[str, ...] | None = None
    command: tuple[str, ...] | str | None = None
    inner: Inner | None = None
    inners: list[Inner] = msgspec.field(default_factory=list)
    anything: Any = None
    raw: msgspec.Raw | None = None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b'{"Name":1}',
            "invalid JSON: json: cannot unmarshal number into Go struct field CreateOptions.Name of type string",
        ),
        (b'{"Name":"x"', "invalid JSON: unexpected EOF"),
        (b" ", "invalid JSON: got EOF while reading request body"),
        (b"{} {}", "unexpected content after JSON"),
        (b"[]", "invalid JSON: json: cannot unmarshal array into Go value of type volume.CreateOptions"),
        (
            b'{"Labels":{"a":true}}',
            "invalid JSON: json: cannot unmarshal bool into Go struct field CreateOptions.Labels of type string",
        ),
        (
            b'{"Labels":"a"}',
            "invalid JSON: json: cannot unmarshal string into Go struct field CreateOptions.Labels"
            " of type map[string]string",
        ),
        (b"{nope}", "invalid JSON: invalid character 'n' looking for beginning of object key string"),
        (b'{"a":1,}', "invalid JSON: invalid character '}' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid JSON: invalid character '1' after object key"),
        (b'{"a":1 "b":2}', "invalid JSON: invalid character '\"' after object key:value pair"),
        (b'{"a":[1 2]}', "invalid JSON: invalid character '2' after array element"),
        (b"nope", "invalid JSON: invalid character 'o' in literal null (expecting 'u')"),
        (b'{"a":tru', "invalid JSON: unexpected EOF"),
        (b'{"a":NaN}', "invalid JSON: invalid character 'N' looking for beginning of value"),
        (b'{"a":"\\x"}', "invalid JSON: invalid character 'x' in string escape code"),
        (b'{"a":"\\u12g4"}', "invalid JSON: invalid character 'g' in \\u hexadecimal character escape"),
        (b'{"a":"\n"}', "invalid JSON: invalid character '\\n' in string literal"),
        (b'{"a":1.x}', "invalid JSON: invalid character 'x' after decimal point in numeric literal"),
        (b'{"a":-}', "invalid JSON: invalid character '}' in numeric literal"),
        (b'{"a":1e}', "invalid JSON: invalid character '}' in exponent of numeric literal"),
        (b"<html>", "invalid JSON: invalid character '<' looking for beginning of value"),
        (b"'", "invalid JSON: invalid character '\\'' looking for beginning of value"),
    ],
)
def test_refusals(data: bytes, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        decode(VolumeCreate, data)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("data", "field", "go_type"),
    [
        (b'{"Inner":{"Size":"1"}}', "string into Go struct field Outer.Inner.Size", "int64"),
        (b'{"Inner":{"Size":1.5}}', "number 1.5 into Go struct field Outer.Inner.Size", "int64"),
        (b'{"Inner":{"Size":%d}}' % (1 << 63), f"number {1 << 63} into Go struct field Outer.Inner.Size", "int64"),
        (b'{"Inner":{"Ratio":true}}', "bool into Go struct field Outer.Inner.Ratio", "float64"),
        (b'{"Inners":[{"Size":1},{"Size":{}}]}', "object into Go struct field Outer.Inners.Size", "int64"),
        (b'{"Words":"a"}', "string into Go struct field Outer.Words", "[]string"),
        (b'{"Words":[1]}', "number into Go struct field Outer.Words", "string"),
        (b'{"Command":1}', "number into Go struct field Outer.Command", "[]string"),
        (b'{"On":0}', "number into Go struct field Outer.On", "bool"),
        (b'{"Inner":[]}', "array into Go struct field Outer.Inner", "container.Inner"),
    ],
)
def test_wrong_types_name_the_field(data: bytes, field: str, go_type: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        decode(Outer, data)
    assert str(refused.value) == f"invalid JSON: json: cannot unmarshal {field} of type {go_type}"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"{}", Outer()),
        (b"null", Outer()),
        (b" \n{} \t", Outer()),
        (b"{}}", Outer()),  # Go's Decoder.More() does not count closing brackets
        (b'{"name":"x","ON":true}', Outer(name="x", on=True)),
        (b'{"Name":"first","Name":"last"}', Outer(name="last")),
        (b'{"Unknown":[{}],"Name":"x"}', Outer(name="x")),
        (b'{"Name":null,"On":null,"Inners":null,"Inner":null}', Outer()),
        (b'{"Words":["a",null]}', Outer(words=("a", ""))),
        (b'{"Command":"sh"}', Outer(command="sh")),
        (b'{"Command":["sh","-c"]}', Outer(command=("sh", "-c"))),
        (b'{"inner":{"size":3,"Ratio":2}}', Outer(inner=Inner(3, 2.0))),
        (b'{"Inners":[null,{"Size":1}]}', Outer(inners=[Inner(), Inner(1)])),
        (b'{"Anything":[1,"a"]}', Outer(anything=[1, "a"])),
        (b'{"Name":"\xff\\ud800"}', Outer(name="\ufffd\ufffd")),
        ('{"Name":"ü"}'.encode(), Outer(name="ü")),
    ],
)
def test_what_go_accepts(data: bytes, expected: Outer) -> None:
    assert decode(Outer, data) == expected


def test_raw_values_stay_raw() -> None:
    raw = decode(Outer, b'{"Raw": {"a": [1]}}').raw
    assert raw is not None
    assert bytes(raw) == b'{"a":[1]}'


def test_depth_is_refused_and_not_a_crash() -> None:
    for data in (b"[" * 1_000_000, b'{"Anything":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        with pytest.raises(InvalidParameter, match=r"^invalid JSON: "):
            decode(Outer, data)


def refusal(data: bytes) -> str:
    """The message with which `data` is refused, "" if it is not."""
    try:
        decode(Outer, data)
    except InvalidParameter as refused:
        return str(refused)
    return ""


@given(st.binary(max_size=40))
def test_any_bytes_give_a_shape_or_a_refusal(data: bytes) -> None:
    message = refusal(data)
    assert not message or message.startswith(("invalid JSON: ", "unexpected content"))


@given(st.text(alphabet='{}[]",:tfn1-.eE \\u0a', max_size=30))
def test_what_the_parser_refuses_the_scanner_explains(text: str) -> None:
    assert "malformed" not in refusal(text.encode())


@given(st.builds(Outer, st.text(), st.booleans(), st.none() | st.lists(st.text()).map(tuple)))
def test_what_we_write_we_read(value: Outer) -> None:
    assert decode(Outer, msgspec.json.encode(value)) == value


@pytest.mark.parametrize(
    ("header", "has_body", "message"),
    [
        ("application/json", True, ""),
        ("application/json; charset=utf-8", True, ""),
        ("Application/JSON;", True, ""),
        ("", False, ""),
        ("text/plain", True, "unsupported Content-Type header (text/plain): must be 'application/json'"),
        ("text/plain", False, "unsupported Content-Type header (text/plain): must be 'application/json'"),
        ("", True, "malformed Content-Type header (): mime: no media type"),
        ("a b", True, "malformed Content-Type header (a b): mime: expected slash after first token"),
        ("a/", True, "malformed Content-Type header (a/): mime: expected token after slash"),
        ("a/b c", True, "malformed Content-Type header (a/b c): mime: unexpected content after media subtype"),
        ("a/b; x", True, "malformed Content-Type header (a/b; x): mime: invalid media parameter"),
    ],
)
def test_content_type(header: str, has_body: bool, message: str) -> None:
    if not message:
        require_json_content_type(header, has_body=has_body)
        return
    with pytest.raises(InvalidParameter) as refused:
        require_json_content_type(header, has_body=has_body)
    assert str(refused.value) == message
