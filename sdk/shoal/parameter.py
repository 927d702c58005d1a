"""A parameter of a specification: a name in its file whose value is given when the file is read.

Theory. What is given is text of a command line or a value of a file; what is put in has the type that
the specification declares. Each type takes one way to write a value and refuses the others, so that a
value is shown as it was put in: `3` is the number 3, and neither `03` nor `+3`.
"""

import enum
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from shoal import limits
from shoal.suggestion import did_you_mean

ParameterValue = str | int | float | bool
"""What stands in for a parameter; a number that was written without a point is an int."""

NAME_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
"""What the name of a parameter looks like."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,400})(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,4})?")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_SHOWN_CHARACTERS = 60


class ParameterType(enum.Enum):
    """Of what kind the value of a parameter is."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a specification says of a parameter; without a default, each run has to give a value.

    With `choices`, the value is one of them.
    """

    name: str
    type: ParameterType = ParameterType.STRING
    default: ParameterValue | None = None
    choices: tuple[ParameterValue, ...] = ()
    description: str = ""

    def typed(self, value: ParameterValue) -> ParameterValue:
        """Return what was given, as text or as a value, with the type of the parameter.

        Raises:
            ValueError: It is no value of this parameter; the message is a clause that follows the value.
        """
        found = _READERS[self.type](value)
        if problem := value_problem(found):
            raise ValueError(problem)
        if self.choices and found not in self.choices:
            known = did_you_mean(value_text(found), map(value_text, self.choices))
            raise ValueError(f"is none of its choices; {known}")
        return found


def no_values() -> Mapping[str, ParameterValue]:
    """An empty mapping that cannot be filled: the default of the values of a pipeline."""
    return MappingProxyType({})


def value_text(value: ParameterValue) -> str:
    """Write a value as text, as it stands within a longer text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def shown_value(value: ParameterValue) -> str:
    """Write a value for people: as Python writes it if it is a text, and not longer than a line."""
    text = value_text(value)
    if len(text) > _SHOWN_CHARACTERS:
        text = f"{text[:_SHOWN_CHARACTERS]}…"
    return repr(text) if isinstance(value, str) else text


def name_problem(name: str) -> str:
    """Say why `name` cannot name a parameter; empty when it can. The words follow the name."""
    if NAME_PATTERN.fullmatch(name):
        return ""
    return (
        "is not a name of a parameter; "
        "use a letter, then up to 62 letters, digits, hyphens or underscores"
    )


def value_problem(value: ParameterValue) -> str:
    """Say why `value` cannot be carried; empty when it can. The words follow the value."""
    if isinstance(value, str):
        if "\0" in value:
            return "holds a NUL character, which no program can be given; remove it"
        if len(value) > limits.PARAMETER_CHARACTERS_MAX:
            return (
                f"has {len(value)} characters, {limits.PARAMETER_CHARACTERS_MAX} at most; "
                "put a long text into a file of the bundle"
            )
        if any("\ud800" <= one <= "\udfff" for one in value):
            return "is not UTF-8; write it as UTF-8"
        return ""
    if isinstance(value, int):
        if not -limits.INTEGER_MAX <= value <= limits.INTEGER_MAX:
            return f"is not from -{limits.INTEGER_MAX} to {limits.INTEGER_MAX}; write a smaller one"
        return ""
    return "" if math.isfinite(value) else "is not a finite number; write for example 0.5"


def _string(value: ParameterValue) -> ParameterValue:
    if not isinstance(value, str):
        raise ValueError("is not a text; put it in quotes")  # noqa: TRY004
    return value


def _integer(value: ParameterValue) -> ParameterValue:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    raise ValueError("is not a whole number; write for example 20")


def _number(value: ParameterValue) -> ParameterValue:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    raise ValueError("is not a number; write for example 20, 0.5 or 1e-3")


def _boolean(value: ParameterValue) -> ParameterValue:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise ValueError("is not true or false")


_READERS: Mapping[ParameterType, Callable[[ParameterValue], ParameterValue]] = MappingProxyType({
    ParameterType.STRING: _string,
    ParameterType.INTEGER: _integer,
    ParameterType.NUMBER: _number,
    ParameterType.BOOLEAN: _boolean,
})  # fmt: skip
