"""What all YAML files share: a version, a task, a network, paths relative to the file, and errors that name file, line and key.

`load_as` reads a file as a typed, frozen object.  Relative paths in a file are relative to the file, except for ``output`` and other
files to be written, which are relative to the folder that mipnet is started in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import BeforeValidator, PrivateAttr, ValidationError, field_validator

from mipnet.app.files.key_errors import first_error_line, in_yaml
from mipnet.app.files.sections import NetworkSpec
from mipnet.app.files.values import Section, Text, expects, value_error
from mipnet.app.files.yaml_source import Override, Source, parse_set, read_source
from mipnet.app.tasks import TASKS_BY_NAME
from mipnet.errors import MipnetError, OutOfMemory, SolverFailure, SpecError, TimeLimitReached, closest

Version = Annotated[Literal[1], BeforeValidator(lambda v: None if isinstance(v, bool) else v), expects("1, the version of this format")]


NO_FOLDER_WORDS = ("no", "off", "none", "null", "false")
"""Values of ``output`` that are meant as no folder."""


def home_path(name: str) -> Path:
    """Return a path, with the folder of a user in place of ``~``; a name that is no user's stays as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


class SpecFile(Section):
    """A whole YAML file.  A subclass declares ``task: Literal["name"]`` and its own keys."""

    relative_to_start: ClassVar[tuple[str, ...]] = ("output",)

    mipnet: Version
    task: str
    output: Text | None = None

    _source: Source | None = PrivateAttr(default=None)

    @classmethod
    def key_names(cls) -> list[str]:
        """Return the keys of the file, with ``output`` as the last one."""
        return sorted(super().key_names(), key=lambda name: name == "output")

    def path(self, name: str) -> Path:
        """Return a path of the file that is relative to the file."""
        return (self._source.folder if self._source else Path()) / home_path(name)

    @property
    def output_folder(self) -> Path | None:
        """The run folder, relative to the folder that mipnet is started in; None if the file names none."""
        return None if self.output is None else home_path(self.output)

    @contextmanager
    def blame(self, *keys: str | int, only: type[MipnetError] = MipnetError) -> Iterator[None]:
        """Put the place of these keys in the file in front of the message of an error raised inside."""
        try:
            yield
        except only as error:
            if isinstance(error, SpecError | OutOfMemory | SolverFailure | TimeLimitReached):
                raise
            below = (*keys, *error.keys)
            name = ".".join(map(str, below))
            place = self._source.at(below) + ": " if self._source else ""
            raise type(error)(f"{place}{name}: {error}") from error

    @field_validator("output")
    @classmethod
    def _output_is_a_folder(cls, given: str | None) -> str | None:
        if given is not None and given.lower() in NO_FOLDER_WORDS:
            raise value_error(f"leave `output` out for no run folder; a folder of this name is ./{given}")
        return given

    def check(self) -> None:
        """Raise `InputError` for keys that do not fit each other; `load_as` calls it after the file has been read."""

    @property
    def texts(self) -> Iterator[str]:
        """All values of the file that are text, such as the names of files and data sets."""
        waiting: list[Any] = [self.model_dump(mode="json")]
        while waiting:
            value = waiting.pop()
            if isinstance(value, str):
                yield value
            elif isinstance(value, dict | list):
                waiting += value.values() if isinstance(value, dict) else value

    def resolved(self) -> dict[str, Any]:
        """Return the file as plain data with all defaults and with absolute paths, so that it can be run again from any folder."""
        data = self.model_dump(mode="json", exclude_none=True, by_alias=True)
        self._make_absolute(self, data)
        return {key: data[key] for key in sorted(data, key=lambda name: name == "output")}

    def _make_absolute(self, section: Section, data: dict[str, Any]) -> None:
        for name, field in type(section).model_fields.items():
            key, value = field.alias or name, getattr(section, name)
            if isinstance(value, Section):
                self._make_absolute(value, data[key])
            elif value is not None and name in section.relative_to_file:
                data[key] = str(self.path(value).absolute())
            elif value is not None and name in section.relative_to_start:
                data[key] = str(home_path(value).absolute())


class NetworkFile(SpecFile):
    """A file about one network."""

    network: NetworkSpec


FileKind = TypeVar("FileKind", bound=SpecFile)


def load_as(kind: type[FileKind], path: str | Path, overrides: Sequence[Override | str] = ()) -> FileKind:
    """Read a YAML file as a file of this class, with ``key.sub=value`` overrides.

    Raises `InputError` in one line that names the file, the line and the key.
    """
    source = read_source(path, [parse_set(given) if isinstance(given, str) else given for given in overrides])
    _refuse_other_task(kind, source)
    try:
        file = kind.model_validate(source.data)
    except ValidationError as error:
        raise SpecError(first_error_line(kind, source, error)) from None
    except RecursionError:
        raise SpecError(f"{source.name}: it is nested too deeply, or refers to itself") from None
    file._source = source
    file.check()
    return file


def _refuse_other_task(kind: type[SpecFile], source: Source) -> None:
    """Raise `SpecError` for a file of another task; the message names its command."""
    task, own = source.data.get("task"), get_args(kind.model_fields["task"].annotation)
    if task is None or task in own or not own:
        return
    start = f"{source.at(('task',))}: task: got {in_yaml(task)}; "
    if isinstance(task, str) and task in TASKS_BY_NAME:
        raise SpecError(f"{start}such a file is for `mipnet {TASKS_BY_NAME[task].command}`")
    commands = {each.command: each.name for each in TASKS_BY_NAME.values()}
    found = closest(task, (*own, *TASKS_BY_NAME, *commands)) if isinstance(task, str) else None
    hint = "" if found is None else f"; did you mean `{commands.get(found, found)}`?"
    raise SpecError(f"{start}expected {' or '.join(f'`{name}`' for name in own)}{hint}")
