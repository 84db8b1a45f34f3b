"""Options of commands from the fields of a struct in vnet.api: their names, types, help, and the values they give."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import click
import msgspec
from msgspec import UNSET

from vnet.api import Resource
from vnet.util.suggest import listing


class FieldOption(click.Option):
    """An option whose help is looked up when somebody reads it: a command that runs need not load the declarations for it."""

    def __init__(self, names: Sequence[str], of: OptionField, **settings: Any) -> None:
        self._of = of
        super().__init__(names, **settings)

    @property
    def help(self) -> str | None:
        return self._of.help

    @help.setter
    def help(self, text: str | None) -> None:
        """Click says here what it was given, which is nothing."""


@dataclass(frozen=True, slots=True)
class OptionField:
    """A field that options state, of objects of a noun. word: as in JSON. many: it is a list. inside: the struct of a list's items. map: it is a map of words.

    words: the constants that it takes. scalars: the types of its other values. nothing: the value that `--no-FIELD` states.
    """

    noun: str
    word: str
    required: bool
    many: bool
    inside: Any
    words: tuple[str, ...]
    scalars: frozenset[type]
    nothing: Any = UNSET
    map: bool = False

    @property
    def option(self) -> str:
        """The option's name, in the singular for a list."""
        name = self.word.replace("_", "-")
        if not self.many:
            return name
        return name.removesuffix("es") if name.endswith("sses") else name.removesuffix("s")

    @property
    def empty(self) -> Any:
        """A list, or a map, of nothing."""
        return {} if self.map else []

    @property
    def _argument(self) -> str:
        return f"option_{self.word}"

    def decorate(self, run: Callable[..., None]) -> Callable[..., None]:
        """Add the field's options to a command."""
        if self.nothing is not UNSET:
            run = click.option(f"--no-{self.option}", f"no_{self.word}", is_flag=True, help="State that it has none.")(
                run
            )
        if self.scalars == {bool}:
            names = f"--{self.option}/--not-{self.option}", self._argument
            return click.option(*names, cls=FieldOption, of=self, default=None)(run)
        choices = click.Choice(self.words) if self.words and not self.scalars and not self.many else None
        return click.option(
            f"--{self.option}",
            self._argument,
            cls=FieldOption,
            of=self,
            type=choices,
            multiple=self.many,
            metavar=self._metavar(),
            callback=self._read,
        )(run)

    def _metavar(self) -> str | None:
        if self.map:
            return "KEY=VALUE"
        if self.inside is not None:
            return "'KEY=VALUE ...'"
        return "NUMBER" if self.scalars == {int} else None if self.words and not self.scalars else "TEXT"

    @property
    def help(self) -> str:
        """What its declaration says, and how to state it."""
        from vnet.objects.state import meanings  # noqa: PLC0415

        text = meanings(self.noun)[self.word]
        if self.inside is not None:
            return f"{text} Repeat for several; keys: {listing([each.word for each in fields_of(self.inside)])}."
        return f"{text} Several: repeat, or with commas." if self.many else text

    def stated(self, options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """The word and value, if an option states the field."""
        value = options[self._argument]
        if options.get(f"no_{self.word}"):
            yield self.word, self.nothing
        elif value is not None and value != ():
            yield self.word, value

    def _read(self, _: click.Context, __: click.Parameter, value: Any) -> Any:
        if value is None or (self.many and not value):
            return None
        if not self.many:
            return self._scalar(value)
        if self.map:
            return dict(_pair(item.strip()) for text in value for item in text.split(","))
        if self.inside is not None:
            return [self._struct(text) for text in value]
        return self._items(",".join(value))

    def _items(self, text: str) -> Any:
        """A list from texts with commas, or the constant that stands in place of one."""
        return text if text in self.words else [self._scalar(item.strip()) for item in text.split(",")]

    def _scalar(self, text: str) -> int | str | bool:
        if bool in self.scalars and text in ("true", "false"):
            return text == "true"
        if int in self.scalars and text.isascii() and text.isdigit():
            return int(text)
        if str in self.scalars or text in self.words:
            return text
        wanted = [
            *self.words,
            *(["a number"] if int in self.scalars else []),
            *(["true", "false"] if bool in self.scalars else []),
        ]
        raise click.BadParameter(f"'{text}' is none of: {', '.join(wanted)}")

    def _struct(self, text: str) -> dict[str, Any]:
        """An object from `KEY=VALUE` words, as in a shell."""
        fields = {field.word: field for field in fields_of(self.inside)}
        found: dict[str, Any] = {}
        for part in shlex.split(text):
            key, equals, value = part.partition("=")
            field = fields.get(key.replace("-", "_"))
            if field is None or not equals:
                raise click.BadParameter(f"'{part}' is no KEY=VALUE; keys: {listing(list(fields))}")
            found[field.word] = field._items(value) if field.many else field._scalar(value)
        return found


def fields_of(struct: Any, noun: str = "") -> tuple[OptionField, ...]:
    """The fields of a struct, in their order."""
    return tuple(_field(entry, noun) for entry in msgspec.structs.fields(struct))


def fields_to_make(resource: Resource) -> tuple[OptionField, ...]:
    """The fields of a new object. A list that is filled where it is left out may be stated as empty."""
    resets = _resets(resource.change)
    return tuple(
        replace(field, nothing=field.empty) if field.many and not resets[field.word] else field
        for field in fields_of(resource.spec, resource.word)
    )


def fields_to_change(resource: Resource) -> tuple[OptionField, ...]:
    """The fields of an object that is there. Null gives a field its default, where it has one."""
    resets = _resets(resource.change)
    return tuple(
        replace(field, required=False, nothing=None if resets[field.word] else field.empty if field.many else UNSET)
        for field in fields_of(resource.spec, resource.word)
    )


def _resets(struct: Any) -> dict[str, bool]:
    """Whether null is a value of each field."""
    return {entry.encode_name: NoneType in _parts(entry.type) for entry in msgspec.structs.fields(struct)}


def _field(entry: msgspec.structs.FieldInfo, noun: str) -> OptionField:
    parts = list(_parts(entry.type))
    lists = [get_args(part)[0] for part in parts if get_origin(part) is list]
    map_ = any(get_origin(part) is dict for part in parts)
    inner = [inner for item in lists for inner in _parts(item)] + [
        part for part in parts if get_origin(part) is not list
    ]
    structs = [part for part in inner if isinstance(part, type) and issubclass(part, msgspec.Struct)]
    words = tuple(word for part in inner if get_origin(part) is Literal for word in get_args(part))
    scalars = frozenset(part for part in inner if part in (int, str, bool))
    inside = structs[0] if structs else None
    return OptionField(noun, entry.encode_name, entry.required, bool(lists) or map_, inside, words, scalars, map=map_)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"'{text}' is no KEY=VALUE")
    return key, value


def _parts(type_: Any) -> Iterator[Any]:
    """The members of a union; the type itself if it is none."""
    args = get_args(type_)
    if get_origin(type_) in (list, dict, Literal) or not args:
        yield type_
    else:
        for member in args:
            yield from _parts(member)
