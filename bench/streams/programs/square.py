"""Stateless middle for chaos: squares numbers modulo 2**64."""

from shoal import job


@job.stream(codecs={"in": job.RAW, "out": job.RAW})
def square() -> None:
    """Send one record for each."""
    put = job.outputs["out"].send
    for record in job.inputs["in"]:
        number = int.from_bytes(record, "little")
        put((number * number % 2**64).to_bytes(8, "little"))
