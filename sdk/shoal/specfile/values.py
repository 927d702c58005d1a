"""The values of a specification's parameters: what was given, or else the default."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from shoal.parameter import Parameter, ParameterValue
from shoal.suggestion import did_you_mean


@dataclass(frozen=True, slots=True)
class GivenValue:
    """A value for a parameter, and where it was given: `--set`, `values.yaml:3:8`."""

    value: ParameterValue
    origin: str = ""


GivenValues = Mapping[str, ParameterValue | GivenValue]
"""Values by the names of their parameters, as a caller gives them."""

NONE_GIVEN: GivenValues = MappingProxyType({})
"""Every parameter has its default."""


@dataclass(slots=True)
class Values:
    """What is put into a file, and which of it was.

    Attributes:
        declared: The parameters of the file, in its order.
        by_name: The value of each; one that has none was complained about.
        used: The names of those that stood in a value.
    """

    declared: Mapping[str, Parameter]
    by_name: Mapping[str, ParameterValue]
    used: set[str] = field(default_factory=set[str])

    def unknown(self, name: str) -> str:
        """Say that there is no such parameter, and what is meant; empty if there is one."""
        if name in self.declared:
            return ""
        if not self.declared:
            remedy = "declare it at the top, as in: parameters: {%s: {type: string}}" % name  # noqa: UP031
        else:
            remedy = did_you_mean(name, self.declared)
        return f"there is no parameter {name!r}; {remedy}"
