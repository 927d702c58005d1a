"""The parameters that a specification file declares, with the values that were given for them."""

from functools import partial

import yaml

from shoal import limits
from shoal.checks.problem import Path
from shoal.parameter import (
    Parameter,
    ParameterType,
    ParameterValue,
    name_problem,
    shown_value,
)
from shoal.specfile.scalars import Scalars, is_null
from shoal.specfile.template import OPENING
from shoal.specfile.values import GivenValue, GivenValues, Values
from shoal.suggestion import did_you_mean

_KEYS = ("type", "default", "choices", "description")
_AT = ("parameters",)


def read_declarations(
    scalars: Scalars, node: yaml.Node | None, given: GivenValues, *, may_lack: bool = False
) -> Values:
    """Read `parameters:`, and give each parameter its value.

    What is wrong with the declarations or with what was given is left with `scalars`.

    Args:
        scalars: The reader of the file, which puts nothing in yet.
        node: What stands under `parameters`; None if nothing does.
        given: Values by name; a parameter without one has its default.
        may_lack: Whether one without either is no mistake.
    """
    declared: dict[str, Parameter] = {}
    values: dict[str, ParameterValue] = {}
    wanted = "a mapping from names to parameters, as in {limit: {type: integer, default: 20}}"
    fields = [] if node is None else scalars.entries(node, _AT, wanted) or []
    if len(fields) > limits.PARAMETERS_MAX:
        scalars.complain(
            _AT, f"there are {len(fields)}, {limits.PARAMETERS_MAX} at most; leave some out"
        )
    for field in fields:
        path = (*_AT, field.key)
        if problem := name_problem(field.key):
            scalars.complain(path, f"{field.key!r} {problem}", field.mark)
        before = len(scalars.findings)
        parameter = _declaration(scalars, field.key, field.value, path)
        declared[field.key] = parameter
        if len(scalars.findings) == before:  # else its type may be another one
            lacks = parameter.default is None and field.key not in given
            value = None if lacks and may_lack else _value(scalars, parameter, given, path)
            if value is not None:
                values[field.key] = value
    for name in (one for one in given if one not in declared):
        origin = _of(given[name]).origin
        remedy = "declare it under `parameters:`, or leave it out"
        if declared:
            remedy = did_you_mean(name, declared)
        by = f", which {origin} gives" if origin else ""
        scalars.complain((*_AT, name), f"the file declares no parameter {name!r}{by}; {remedy}")
    return Values(declared, values)


def _declaration(scalars: Scalars, name: str, node: yaml.Node, path: Path) -> Parameter:
    if isinstance(node, yaml.ScalarNode) and not is_null(node):
        scalars.complain(
            path, f"{node.value!r} is no declaration; write for example {{default: {node.value}}}"
        )
        return Parameter(name)
    wanted = "a mapping such as {type: integer, default: 20}"
    fields = scalars.fields(node, path, _KEYS, wanted) or {}
    kind: ParameterType | None = ParameterType.STRING
    if "type" in fields:
        kind = scalars.choice_of(ParameterType)(fields["type"], (*path, "type"))
    if kind is None:
        return Parameter(name)

    def choices(node: yaml.Node, at: Path) -> tuple[ParameterValue, ...]:
        items = scalars.items(node, at, "a list of values")
        if items == []:
            scalars.complain(at, "the list is empty; name the values, or leave it out")
        read = [scalars.converted(item, at, partial(_plain, found)) for item in items or ()]
        return tuple(one for one in read if one is not None)

    def default(node: yaml.Node, at: Path) -> ParameterValue | None:
        return scalars.converted(node, at, partial(_plain, found))

    found = Parameter(name, kind)
    found = scalars.filled(found, fields, path, {"description": ("description", scalars.text)})
    found = scalars.filled(found, fields, path, {"choices": ("choices", choices)})
    return scalars.filled(found, fields, path, {"default": ("default", default)})


def _plain(parameter: Parameter, text: str) -> ParameterValue:
    """Read a default or a choice, in which no other parameter can stand."""
    if OPENING in text:
        raise ValueError("holds another parameter; write a plain value")
    return parameter.typed(text)


def _value(
    scalars: Scalars, parameter: Parameter, given: GivenValues, path: Path
) -> ParameterValue | None:
    name = parameter.name
    if name not in given:
        if parameter.default is None:
            what = f" ({parameter.description})" if parameter.description else ""
            scalars.complain(
                path,
                f"it has no value{what}; give one with --set {name}=VALUE or in a file for "
                "--values, or write a default",
            )
        return parameter.default
    found = _of(given[name])
    try:
        return parameter.typed(found.value)
    except ValueError as error:
        origin = f" of {found.origin}" if found.origin else ""
        scalars.complain(path, f"{shown_value(found.value)}{origin} {error}")
        return None


def _of(given: ParameterValue | GivenValue) -> GivenValue:
    return given if isinstance(given, GivenValue) else GivenValue(given)
