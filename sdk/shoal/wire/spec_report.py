"""What a controller says of a specification, between `shoal.spec_report` and the contract."""

from collections.abc import Iterable
from typing import Final

from shoal.parameter import Parameter, ParameterType, name_problem, value_text
from shoal.spec_report import SpecProblem, SpecReport
from shoal.v1 import specs_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.codec import codec, enumeration
from shoal.wire.fields import WireError
from shoal.wire.spec import decode_pipeline_spec, encode_pipeline_spec

SPEC_PROBLEM: Final = codec(SpecProblem, v1.SpecProblem)

_TYPE: Final = enumeration(ParameterType, v1.ParameterType, "type", "type of parameter")


def encode_declared(parameters: Iterable[Parameter]) -> list[v1.DeclaredParameter]:
    """Write the parameters that a text declares."""
    return [
        v1.DeclaredParameter(
            name=one.name,
            type=_TYPE.encode(one.type),
            default_value=None if one.default is None else value_text(one.default),
            choices=[value_text(choice) for choice in one.choices],
            description=one.description,
        )
        for one in parameters
    ]


def decode_declared(messages: Iterable[v1.DeclaredParameter], path: str) -> tuple[Parameter, ...]:
    """Read the parameters that a text declares.

    Raises:
        WireError: a value is none of its parameter.
    """
    return fields.each(messages, path, _declared)


def _declared(message: v1.DeclaredParameter, path: str) -> Parameter:
    if problem := name_problem(message.name):
        raise WireError(fields.at(path, "name"), f"{message.name!r} {problem}")
    found = Parameter(
        message.name, _TYPE.decode(message.type, path), description=message.description
    )
    try:
        choices = tuple(found.typed(choice) for choice in message.choices)
        default = found.typed(message.default_value) if message.HasField("default_value") else None
    except ValueError as error:
        raise WireError(path, f"a value of {message.name!r} {error}") from error
    return Parameter(found.name, found.type, default, choices, found.description)


def encode_report(report: SpecReport) -> v1.ValidateSpecResponse:
    """Write what was found."""
    pipeline = report.pipeline
    return v1.ValidateSpecResponse(
        problems=[SPEC_PROBLEM.encode(one) for one in report.problems],
        problems_left_out=report.left_out,
        spec=None if pipeline is None else encode_pipeline_spec(pipeline),
        parameters=encode_declared(report.parameters),
    )


def decode_report(message: v1.ValidateSpecResponse, path: str = "") -> SpecReport:
    """Read what was found.

    Raises:
        WireError: it breaks the contract.
    """
    has = message.HasField("spec")
    return SpecReport(
        fields.each(message.problems, fields.at(path, "problems"), SPEC_PROBLEM.decode),
        message.problems_left_out,
        decode_pipeline_spec(message.spec, fields.at(path, "spec")) if has else None,
        decode_declared(message.parameters, fields.at(path, "parameters")),
    )
