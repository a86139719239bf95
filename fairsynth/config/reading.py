"""YAML files -> configuration models, each read once.

In:  a path and the model it should fit.   Out: the model, or a ConfigError that names file, line, key, value and mend.
Never: a YAML tag, an anchor or alias, a duplicate key, a file of more than 64 KiB, nesting without end.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError
from pydantic_core import ErrorDetails

from fairsynth.config.consortium import ConsortiumConfig
from fairsynth.config.site import SiteConfig
from fairsynth.config.study import StudyConfig
from fairsynth.errors import ConfigError, Problem

MAXIMUM_YAML_BYTES = 65_536
MAXIMUM_YAML_DEPTH = 32
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML was built with it: ten times faster

Model = TypeVar("Model", bound=BaseModel)


def read_study(path: Path) -> StudyConfig:
    """The study file at `path`. Raises ConfigError."""
    return read_yaml(path, StudyConfig)


def read_site(folder: Path) -> SiteConfig:
    """The site configuration in `folder/site.yaml`. Raises ConfigError."""
    return read_yaml(folder / "site.yaml", SiteConfig)


def read_consortium(path: Path) -> ConsortiumConfig:
    """The consortium file at `path`. Raises ConfigError."""
    return read_yaml(path, ConsortiumConfig)


def read_yaml(path: Path, model: type[Model]) -> Model:
    """The YAML file at `path` as `model`; every problem of the file in one ConfigError."""
    root = _compose(path)
    lines = dict(_key_lines(root, (), path=path))
    try:
        value = None if root is None else yaml.constructor.SafeConstructor().construct_document(root)
    except (yaml.YAMLError, ValueError):  # ValueError: a date such as 2020-13-45
        raise ConfigError.of("not valid YAML", where=str(path), expected="dates that exist, no tags") from None
    if not isinstance(value, dict):
        raise ConfigError.of("not a mapping", where=str(path), expected=f"the keys of {model.__name__}")
    try:
        return model.model_validate(value)
    except PydanticError as error:
        raise ConfigError(_problem(path, lines, model, detail) for detail in error.errors()) from None


def checked(model: type[Model], values: dict[str, Any], *, where: str) -> Model:
    """`values` as `model`, for options of the command line; every problem in one ConfigError that names `where`."""
    try:
        return model.model_validate(values)
    except PydanticError as error:
        raise ConfigError(_problem(Path(where), {}, model, detail) for detail in error.errors()) from None


def _compose(path: Path) -> yaml.Node | None:
    """The file's node tree, after the checks that `safe_load` does not make."""
    if not path.is_file():
        raise ConfigError.of("missing file", where=str(path), do="check the path")
    if path.stat().st_size > MAXIMUM_YAML_BYTES:
        raise ConfigError.of("file too large", where=str(path), expected=f"at most {MAXIMUM_YAML_BYTES} bytes")
    try:
        text = path.read_text(encoding="utf-8")
        _check_events(yaml.parse(text, Loader=_LOADER), path=path)
        return yaml.compose(text, Loader=_LOADER)
    except UnicodeDecodeError:
        raise ConfigError.of("not UTF-8", where=str(path), do="save the file as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError.of("not valid YAML", where=where, expected=str(getattr(error, "problem", ""))) from None


def _check_events(events: Iterable[yaml.Event], *, path: Path) -> None:
    """Raise ConfigError on an alias, an anchor, or nesting that no file of ours has."""
    depth = 0
    for event in events:
        where = f"{path}:{event.start_mark.line + 1}" if event.start_mark else str(path)
        if name := getattr(event, "anchor", None):
            raise ConfigError.of(
                "YAML alias or anchor", where=where, expected="neither", do=f"write &{name} out where *{name} is"
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAXIMUM_YAML_DEPTH:
            raise ConfigError.of("YAML nested too deeply", where=where, expected=f"{MAXIMUM_YAML_DEPTH} levels")


def _key_lines(
    node: yaml.Node | None, prefix: tuple[str | int, ...], *, path: Path
) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """(key path, line number) of every key and list item; raises ConfigError on a duplicate key."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError.of("key is not a word", where=f"{path}:{line}", expected="`key: value`")
            if key.value in seen:
                key_path = ".".join(map(str, (*prefix, key.value)))
                raise ConfigError.of("duplicate key", where=f"{path}:{line}  {key_path}", do="keep one of them")
            seen.add(key.value)
            yield (*prefix, key.value), line
            yield from _key_lines(value, (*prefix, key.value), path=path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*prefix, index), value.start_mark.line + 1
            yield from _key_lines(value, (*prefix, index), path=path)


def _problem(
    path: Path, lines: dict[tuple[str | int, ...], int], model: type[BaseModel], detail: ErrorDetails
) -> Problem:
    """One pydantic error as a Problem with the line of the nearest key."""
    location = tuple(part for part in detail["loc"])
    near = location
    while near and near not in lines:
        near = near[:-1]
    where = f"{path}:{lines[near]}" if near else str(path)
    key = ".".join(str(part) for part in location) or "(top level)"
    if detail["type"] == "extra_forbidden":
        known = _field_names(model, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        do = f"did you mean {close[0]!r}?" if close else "remove it"
        return Problem(what="unknown key", where=f"{where}  {key}", expected=f"one of: {', '.join(known)}", do=do)
    if detail["type"] == "missing":
        return Problem(what="missing key", where=f"{where}  {key}", do=f"add `{location[-1]}:`")
    return Problem(what="bad value", where=f"{where}  {key} -> {_shown(detail['input'])}", expected=detail["msg"])


def _field_names(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The keys that the model at `location` knows."""
    current: Any = model
    for part in location:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return []
        field = current.model_fields.get(str(part))
        if field is None:  # an index into a list: the element type is already `current`
            continue
        current = _inner_model(field.annotation)
    if not (isinstance(current, type) and issubclass(current, BaseModel)):
        return []
    return [field.alias or name for name, field in current.model_fields.items()]


def _inner_model(annotation: Any) -> Any:
    """The model inside `X | None`, `tuple[X, ...]`, ..."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (inner := _inner_model(argument)) is not None:
            return inner
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
