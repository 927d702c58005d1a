"""Stateless middle: sends each number with its square modulo 2**64, eight bytes each."""

from shoal import job


@job.stream(codecs={"in": job.RAW, "out": job.RAW})
def square() -> None:
    """Send one record for each."""
    put = job.outputs["out"].send
    for record in job.inputs["in"]:
        number = int.from_bytes(record, "little")
        put(number.to_bytes(8, "little") + (number * number % 2**64).to_bytes(8, "little"))
