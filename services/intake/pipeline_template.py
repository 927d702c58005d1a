"""The template of an operator: a specification file whose parameters are filled from a message.

A message gives the values whose names the file declares under `parameters`; what it does not declare it
does not get. So values go through what `docs/spec.md` says of parameters: they never reach a shell, and
are never more than a part of the word in which they stand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from services.runtime.process import StartRefusedError
from shoal.cli.local_jobs import refuse_local
from shoal.errors import ShoalError
from shoal.parameter import Parameter, ParameterType, value_text
from shoal.specfile.declarations import read_declarations
from shoal.specfile.folder import spec_path
from shoal.specfile.load import SpecFile, parse
from shoal.specfile.mark import SpecFileError
from shoal.specfile.scalars import Scalars
from shoal.specfile.source_text import read_source
from shoal.specfile.tree import read_tree
from shoal.specfile.values import GivenValue

SHIPPED: Final = Path(__file__).parent / "template" / "pipeline.yaml"
"""The template of task messages that an operator may replace."""


@dataclass(frozen=True, slots=True)
class PipelineTemplate:
    """A template that was read.

    Attributes:
        path: of the file.
        text: its content when this process began.
        names: the parameters that it declares.
    """

    path: Path
    text: str
    names: frozenset[str]

    def fill(self, values: Mapping[str, str], origin: str) -> SpecFile:
        """Make a specification; reads the folder of the bundle, if the template names one: call it in a thread.

        Args:
            values: by name, those of the message.
            origin: what to call the message in errors.

        Raises:
            SpecFileError: with these values it is no specification.
            ShoalError: it has local jobs, which need a command that stays.
        """
        given = {name: GivenValue(values[name], origin) for name in self.names & values.keys()}
        found = parse(self.text, str(self.path), self.path.parent, given)
        refuse_local(found.pipeline)
        return found


def read_template(path: Path, sample: Mapping[str, str]) -> PipelineTemplate:
    """Read a template, and fill it once to see that it is one.

    Args:
        path: the file, or a folder with a `pipeline.yaml`.
        sample: values as a message could give them; of others one is made.

    Raises:
        StartRefusedError: it cannot be used; says every mistake.
    """
    try:
        path = spec_path(path.expanduser().absolute())
        text = read_source(path)
        declared = _declared(read_tree(text, str(path)))
        template = PipelineTemplate(path, text, frozenset(declared))
        template.fill({name: _sample(one, sample) for name, one in declared.items()}, "a sample")
    except SpecFileError as error:
        raise StartRefusedError(f"the template cannot be used:\n{error}") from error
    except ShoalError as error:
        raise StartRefusedError(f"the template {path} cannot be used: {error.message}") from error
    except (OSError, RuntimeError) as error:
        raise StartRefusedError(f"the template {path} cannot be read: {error}") from error
    return template


def _declared(root: yaml.Node) -> Mapping[str, Parameter]:
    """What stands under `parameters`; mistakes in it show when the template is filled."""
    nodes = dict(_entries(root))
    return read_declarations(Scalars(), nodes.get("parameters"), {}).declared


def _sample(parameter: Parameter, known: Mapping[str, str]) -> str:
    if parameter.choices:
        return value_text(parameter.choices[0])
    if parameter.default is not None:
        return value_text(parameter.default)
    match parameter.type:
        case ParameterType.STRING:
            return known.get(parameter.name, "sample")
        case ParameterType.INTEGER | ParameterType.NUMBER:
            return "1"
        case ParameterType.BOOLEAN:
            return "true"


def _entries(node: yaml.Node) -> list[tuple[str, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        return []
    return [(key.value, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
