"""Pipelines of streams that histories are lived through with, each for what it alone has.

`make sim SHAPES=1` takes one of them for each seed; seeds without it mean what they always did.
"""

from tests.simulation.mesh.stream_shape import Shape

SHAPES = {
    # The records of its source are above the credit.
    "large records": Shape.parse(
        "source records=40 record_bytes=2600",
        "map in<source.out resume=True record_bytes=900 replicas=2",
        "gather in<map.out record_bytes=1500",
        "sink in<gather.out",
    ),
    "chain": Shape.parse("source records=400", "map in<source.out resume=True", "sink in<map.out"),
    "stateful": Shape.parse("source records=300", "map in<source.out", "sink in<map.out"),
    "long": Shape.parse(
        "source records=200",
        "a in<source.out resume=True",
        "b in<a.out resume=True",
        "c in<b.out resume=True",
        "sink in<c.out resume=True",
    ),
    "diamond": Shape.parse(
        "source records=241",
        "left in<source.out resume=True",
        "right in<source.out,block_count=3",
        "join left<left.out,block_count=3 right<right.out resume=True",
        "sink in<join.out",
        "other in<join.out",
    ),
    "short rounds": Shape.parse(
        "source records=100",
        "map in<source.out,block_count=7 resume=True",
        "sink in<map.out",
    ),
    "replicas": Shape.parse(
        "source records=301 replicas=2 headers=True",
        "worker in<source.out resume=True replicas=3 headers=True",
        "gather in<worker.out resume=True",
        "sink in<gather.out",
    ),
    "broadcast": Shape.parse(
        "source records=150 replicas=2",
        "worker in<source.out,distribute=BROADCAST resume=True replicas=2",
        "sink in<worker.out replicas=2 resume=True",
    ),
    "latest": Shape.parse(
        "source records=150 keys=5",
        "sink in<source.out",
        "view in<source.out,keep=1",
        "views in<source.out,keep=3 replicas=2",
        "by-key in<source.keys,distribute=KEY,keep=2 replicas=2",
    ),
    "latest alone": Shape.parse(
        "source records=150 resume=True",
        "view in<source.out,keep=2",
        "numbers records=90 replicas=2",
        "map in<numbers.out resume=True replicas=2",
        "other in<map.out,ordered=False,keep=4",
    ),
    "by key": Shape.parse(
        "source records=300 keys=9",
        "split in<source.out keys=7",
        "count in<split.out,distribute=KEY resume=True replicas=3",
        "sink in<count.out,ordered=False",
    ),
    "by key to all": Shape.parse(
        "source records=200 replicas=2 keys=11",
        "two in<source.out,distribute=KEY,ordered=False replicas=2",
        "three in<source.out,distribute=KEY,ordered=False replicas=3",
        "one in<source.out,distribute=KEY resume=True",
    ),
}
"""By what is special about them."""

SCALED = {
    "one": Shape.parse(
        "source records=240 pace=0.02",
        "worker in<source.out resume=True plain=True replicas=2",
        "sink in<worker.out,block_count=3",
    ),
    "two": Shape.parse(
        "source records=70 pace=0.06 replicas=3",
        "first in<source.out resume=True plain=True",
        "second in<first.out resume=True plain=True replicas=3",
        "gather in<second.out resume=True plain=True",
        "sink in<gather.out",
    ),
    "beside": Shape.parse(
        "left records=200 pace=0.02",
        "right records=200 pace=0.02 resume=True",
        "worker left<left.out right<right.out resume=True plain=True",
        "sink in<worker.out",
        "other in<right.out",
    ),
}
"""By where the jobs are whose replicas are changed: those that are `plain`."""
