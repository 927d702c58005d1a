"""What was put into a specification is shown with its pipeline, and outlives a restart."""

from pathlib import Path

from shoal.client import Client
from shoal.parameter import ParameterValue
from shoal.specfile.load import parse
from tests.kit.running_controller import running_controller

SPEC = """\
name: street
parameters:
  scene: {default: street}
  limit: {type: integer, default: 20}
  rate: {type: number, default: 0.5}
  fast: {type: boolean, default: no}
jobs:
  a:
    run: x ${{ parameters.scene }} ${{ parameters.limit }} ${{ parameters.rate }} ${{ parameters.fast }}
"""


async def test_values_are_stored_with_the_specification(tmp_path: Path) -> None:
    given: dict[str, ParameterValue] = {"scene": "two words; 'x'", "limit": "-3", "fast": True}
    spec = parse(SPEC, "street.yaml", tmp_path, given).pipeline
    values = {"scene": "two words; 'x'", "limit": -3, "rate": 0.5, "fast": True}
    async with running_controller(tmp_path / "controller") as at, Client(at.grpc) as client:
        submitted = (await client.submit(spec)).pipeline
        assert submitted.spec.parameters == values
    async with running_controller(tmp_path / "controller") as at, Client(at.grpc) as client:
        found = await client.get(submitted.name)
        assert found.spec == spec
        assert list(found.spec.parameters.items()) == list(values.items())
        assert [type(value) for value in found.spec.parameters.values()] == [str, int, float, bool]
        assert found.spec.jobs[0].run == ("x", "two words; 'x'", "-3", "0.5", "true")
