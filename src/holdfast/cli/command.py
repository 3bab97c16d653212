"""What all commands share: Docker's way of reading flags, and the options that many have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import click

_TRUE, _FALSE = {"1", "t", "T", "TRUE", "true", "True"}, {"0", "f", "F", "FALSE", "false", "False"}


class Command(click.Command):
    """A command that reads flags as docker does: `-e=VALUE`, `--rm=false`, `-itv a:/b`.

    With `flags_first`, nothing after the first word that is no flag is a flag of ours (run, exec).
    """

    def __init__(self, name: str | None, *, flags_first: bool = False, **attributes: Any) -> None:
        if flags_first:
            attributes["context_settings"] = {"allow_interspersed_args": False}
        if not any(isinstance(param, click.Option) for param in attributes.get("params") or ()):
            attributes["options_metavar"] = ""
        super().__init__(name, **attributes)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Bring the words into the form that click understands, then let it parse them."""
        options = {
            name: option
            for option in self.get_params(ctx)
            if isinstance(option, click.Option)
            for name in (*option.opts, *option.secondary_opts)
        }
        words = list(_rewritten(args, options, flags_first=not ctx.allow_interspersed_args))
        try:
            return super().parse_args(ctx, words)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # its usage line is shown with the complaint
            raise


def command(name: str, *, flags_first: bool = False, **attributes: Any) -> Callable[[Callable[..., int]], Command]:
    """Declare a command: a function that returns the exit code; its docstring is the help page."""
    return click.command(name, cls=Command, flags_first=flags_first, **attributes)


def _rewritten(args: Iterable[str], options: Mapping[str, click.Option], *, flags_first: bool) -> Iterator[str]:
    words = iter(args)
    for word in words:
        if word == "--" or (flags_first and not _is_flag(word)):
            yield word
            yield from words
        elif not _is_flag(word):
            yield word
        elif word.startswith("--"):
            name, given, value = word.partition("=")
            option = options.get(name)
            if option is None or not (option.is_flag and given):
                yield word
                if option is not None and not option.is_flag and not given:
                    yield from _next(words)
            else:
                yield from _switch(option, value)
        else:
            yield from _cluster(word, words, options)


def _cluster(word: str, words: Iterator[str], options: Mapping[str, click.Option]) -> Iterator[str]:
    """Take `-itp=80:80` apart."""
    for position in range(1, len(word)):
        option, rest = options.get(f"-{word[position]}"), word[position + 1 :]
        if option is None:
            yield f"-{word[position:]}"
            return
        if not option.is_flag:
            yield f"-{word[position]}"
            yield from [rest.removeprefix("=")] if rest else _next(words)
            return
        if rest.startswith("="):
            yield from _switch(option, rest[1:])
            return
        yield f"-{word[position]}"


def _switch(option: click.Option, value: str) -> Iterator[str]:
    if value not in _TRUE | _FALSE:
        why = f'strconv.ParseBool: parsing "{value}": invalid syntax'
        raise Invalid(value, why, option, click.get_current_context())
    if value in _TRUE:
        yield option.opts[0]
    elif option.secondary_opts:
        yield option.secondary_opts[0]


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word != "-"


def _next(words: Iterator[str]) -> Iterator[str]:
    for word in words:
        yield word
        return


class Checked(click.ParamType[object]):
    """An option's type from a function that raises ValueError, in Docker's words."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Parse the text; what is parsed already (a default) stays."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            raise Invalid(value, str(error), param, ctx) from error


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def detach_keys(text: str) -> str:
    """Check a `--detach-keys` before anything is begun. Raises ValueError."""
    from holdfast.cli.terminal import parse_keys

    parse_keys(text)
    return text


INTEGER = Checked("NUMBER", _integer)
detach_keys_option = click.option(
    "--detach-keys",
    default="",
    type=Checked("KEYS", lambda text: detach_keys(text) if text else ""),
    help="Keys that detach, such as ctrl-p,ctrl-q",
)


class Invalid(click.BadParameter):
    """A flag's value that cannot be understood."""

    def __init__(self, value: str, why: str, param: click.Parameter | None, ctx: click.Context | None) -> None:
        super().__init__(why, ctx=ctx, param=param)
        self.value = value


def key_value(text: str) -> tuple[str, str]:
    """`KEY=VALUE` as a pair; a bare KEY has an empty value."""
    key, _, value = text.partition("=")
    return key, value


def parse_filter(text: str) -> tuple[str, str]:
    """One `--filter`. Raises ValueError without an equals sign."""
    key, given, value = text.partition("=")
    if not given:
        raise ValueError("bad format of filter (expected name=value)")
    return key.strip().lower(), value.strip()


def filter_option(help_text: str, *, short: bool = True) -> Callable[[Any], Any]:
    """The option `-f/--filter`, as the argument `filters`; without the short form where -f means force."""
    names = ["-f", "--filter"] if short else ["--filter"]
    return click.option("filters", *names, multiple=True, type=Checked("KEY=VALUE", parse_filter), help=help_text)


def gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Filters by key, as the API takes them."""
    out: dict[str, list[str]] = {}
    for key, value in pairs:
        out.setdefault(key, []).append(value)
    return out


format_option = click.option(
    "template", "--format", default="", metavar="FORMAT", help='"table", "table TEMPLATE", "json" or a Go template'
)
