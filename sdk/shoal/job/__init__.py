"""For job code: standard library only, Python 3.6 and later.

```python
from shoal import job

@job.main
def detect(frames):
    return {"people": count(frames)}
```

This file alone of the `__init__.py` files says more than a sentence, because it is what job code
imports. docs/jobs.md teaches it.
"""

from shoal.job.codec import AUTO, JSON, NDARRAY, PICKLE, RAW, Codec
from shoal.job.entry import end, main, progress, run, source, stream
from shoal.job.error import (
    CodecError,
    HeaderError,
    JobError,
    OutsideShoalError,
    PortError,
    RoundError,
)
from shoal.job.outputs import Outputs
from shoal.job.process_proxies import context, headers, inputs, log, outputs

__all__ = [
    "AUTO",
    "JSON",
    "NDARRAY",
    "PICKLE",
    "RAW",
    "Codec",
    "CodecError",
    "HeaderError",
    "JobError",
    "Outputs",
    "OutsideShoalError",
    "PortError",
    "RoundError",
    "context",
    "end",
    "headers",
    "inputs",
    "log",
    "main",
    "outputs",
    "progress",
    "run",
    "source",
    "stream",
]
