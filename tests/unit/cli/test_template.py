"""Go templates: what people write after --format. Expected texts were checked against docker's output."""

from __future__ import annotations

import pytest

from holdfast.cli.template import Template, TemplateError

_VALUE: dict[str, object] = {
    "Name": "data",
    "Size": 12,
    "Ready": True,
    "Labels": {"b": "2", "a": "1"},
    "Mounts": [{"Type": "volume", "Destination": "/x"}, {"Type": "bind", "Destination": "/y"}],
    "Empty": [],
    "Nothing": None,
    "State": {"Status": "running", "Health": {"Status": "ok"}},
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{.Name}}", "data"),
        ("{{ .Name }}: {{.Size}}", "data: 12"),
        ("{{.State.Health.Status}}", "ok"),
        ("{{.Ready}} {{.Nothing}}", "true <no value>"),
        ("{{.Labels}}", "map[a:1 b:2]"),
        ("{{.Labels.a}}", "1"),
        ("{{json .Labels}}", '{"b":"2","a":"1"}'),
        ("{{json .Mounts}}", '[{"Type":"volume","Destination":"/x"},{"Type":"bind","Destination":"/y"}]'),
        ('{{index .Labels "a"}}{{index .Labels "zz"}}', "1"),
        ("{{(index .Mounts 1).Destination}}", "/y"),
        ("{{range .Mounts}}{{.Destination}};{{end}}", "/x;/y;"),
        ("{{range $i, $m := .Mounts}}{{$i}}={{$m.Type}} {{end}}", "0=volume 1=bind "),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}},{{end}}", "a=1,b=2,"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Mounts}}{{$.Name}} {{end}}", "data data "),
        ("{{if .Ready}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Empty}}yes{{else if .Ready}}second{{else}}no{{end}}", "second"),
        ("{{if not .Ready}}x{{end}}", ""),
        ('{{if eq .State.Status "running" "paused"}}up{{end}}', "up"),
        ("{{if and .Ready (gt .Size 10)}}big{{end}}", "big"),
        ("{{with .State}}{{.Status}}{{end}}", "running"),
        ("{{with .Nothing}}x{{else}}{{.Name}}{{end}}", "data"),
        ("{{$n := .Name}}{{$n}}", "data"),
        ('{{.Name | upper}} {{.Size | printf "%s-%d" "x" | len}}', "DATA 4"),
        ("{{len .Mounts}} {{len .Name}}", "2 4"),
        ('{{join (split "a,b" ",") "+"}}', "a+b"),
        ('{{printf "%-6s|%q|%v" .Name .Name .Size}}', 'data  |"data"|12'),
        ("{{slice .Name 1 3}}", "at"),
        ("{{truncate .Name 2}}{{pad .Name 1 2}}|", "da data  |"),
        ("{{/* a remark */}}{{.Name}}", "data"),
        ("{{.Name -}}  x  {{- .Size}}", "datax12"),
        ("{{println .Name .Size}}", "data 12\n"),
        ("{{true}} {{`raw`}} {{1.5}}", "true raw 1.5"),
        ("{{or .Empty .Name}}", "data"),
    ],
)
def test_render(source: str, text: str) -> None:
    assert Template(source).render(_VALUE) == text


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{.Name", "unclosed action"),
        ("{{.Nope}}", 'map has no entry for key "Nope"'),
        ("{{.Name.Sub}}", "can't evaluate field Sub in type string"),
        ("{{nope .Name}}", 'function "nope" not defined'),
        ("{{if .Ready}}x", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{$x}}", 'undefined variable "$x"'),
        ("{{(.Name}}", "unclosed left paren"),
        ("{{range .Size}}{{end}}", "range can't iterate over 12"),
        ("{{len .Size}}", "error calling len"),
        ("{{index .Mounts 9}}", "error calling index"),
        ('{{split .Name ""}}', "error calling split"),
        ("{{}}", "missing value for command"),
    ],
)
def test_errors(source: str, why: str) -> None:
    with pytest.raises(TemplateError) as failed:
        Template(source).render(_VALUE)
    assert why in str(failed.value)


def test_lenient() -> None:
    assert Template("{{.Nope.Deeper}}", strict=False).render(_VALUE) == "<no value>"


def test_methods_are_called_and_no_part_of_json() -> None:
    row = {"Name": "x", "Label": lambda name: f"<{name}>"}
    assert Template('{{.Label "a"}}').render(row) == "<a>"
    assert Template("{{json .}}").render(row) == '{"Name":"x"}'
