"""The files of a new pipeline: small enough to be read at once, complete enough to run as they are."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from shoal import names

_PIPELINE = """\
# What runs, and how it is joined. Every key is explained in docs/spec.md of Shoal.
name: {name}
bundle: {{path: ., exclude: ["test_*.py", README.md, simulated/]}} # every job gets a copy of the rest
jobs:
  numbers:
    run: python numbers_source.py
    resources: {{cpus: 0.25}}
    variables: {{COUNT: "30", PAUSE: "0.1"}}
    outputs: [numbers]

  square:
    run: python square.py
    recovery: resume # it keeps no state: a replacement goes on where a lost one stopped
    resources: {{cpus: 0.25}}
    inputs: {{numbers: numbers.numbers}}
    outputs: [squares]

  table:
    run: python table.py
    resources: {{cpus: 0.25}}
    inputs: {{squares: square.squares}}
    archive: ["results/**"]
"""

_SOURCE = '''\
"""Counts from 1 to COUNT, with PAUSE seconds after each number, as a sensor would."""

import os
import time

from shoal import job


@job.source
def numbers():
    """Yield what is to be worked on; each yield is a record of the output "numbers"."""
    for number in range(1, int(os.environ.get("COUNT", "30")) + 1):
        yield number
        time.sleep(float(os.environ.get("PAUSE", "0")))
'''

_SQUARE = '''\
"""Works on one record after the other."""

from shoal import job


@job.main
def square(numbers):
    """Take one record of the input "numbers", and return what is sent on."""
    return {"number": numbers, "square": numbers * numbers}
'''

_TABLE = '''\
"""Writes results/squares.csv; what lies in results/ is kept."""

from shoal import job


class Table:
    """One row a record."""

    def setup(self):
        """Open the file; called on the board before the first record."""
        self.file = (job.context.results / "squares.csv").open("w")
        self.file.write("number,square\\n")
        self.rows = 0

    def run(self, squares):
        """Write a row."""
        self.file.write("{number},{square}\\n".format(**squares))
        self.rows += 1

    def finish(self):
        """Close the file; called after the last record."""
        self.file.close()
        print(self.rows, "rows")


if __name__ == "__main__":
    job.run(Table)
'''

_TEST = '''\
"""The jobs, tried without a cluster: python -m pytest"""

from shoal.job import testing

import numbers_source
import square
import table


def test_numbers_are_counted_from_one():
    result = testing.call(numbers_source.numbers, outputs=["numbers"])
    assert result.outputs["numbers"][:3] == [1, 2, 3]
    assert result.ended["numbers"]


def test_a_number_is_squared():
    result = testing.call(square.square, inputs={"numbers": [3, 4]}, outputs=["squares"])
    assert [record["square"] for record in result.outputs["squares"]] == [9, 16]


def test_the_table_has_a_row_for_each_record(tmp_path):
    records = [{"number": 3, "square": 9}]
    result = testing.call(table.Table, inputs={"squares": records}, results=tmp_path)
    assert (result.results / "squares.csv").read_text() == "number,square\\n3,9\\n"
'''

_README = """\
# {name}

`numbers` → `square` → `table`: thirty numbers become the rows of `results/squares.csv`.

| file | is |
|---|---|
| `pipeline.yaml` | what runs, and how it is joined |
| `numbers_source.py`, `square.py`, `table.py` | the jobs |
| `test_jobs.py` | tests of the jobs |

```sh
python -m pytest                            # the jobs, without a cluster
shoal validate pipeline.yaml                # every mistake, with line and remedy
shoal graph pipeline.yaml                   # what it looks like
shoal simulate pipeline.yaml                # all of it on this machine; files go to simulated/
shoal simulate --fault 'kill square@10 records' pipeline.yaml
shoal run pipeline.yaml                     # on a cluster
```
"""

_FILES: Mapping[str, str] = MappingProxyType({
    "pipeline.yaml": _PIPELINE,
    "numbers_source.py": _SOURCE,
    "square.py": _SQUARE,
    "table.py": _TABLE,
    "test_jobs.py": _TEST,
    "README.md": _README,
})  # fmt: skip

_FILLED = frozenset({"pipeline.yaml", "README.md"})


class ScaffoldNameError(ValueError):
    """No pipeline can have this name; the message says which one is close."""


def scaffold(name: str) -> Mapping[str, str]:
    """Return the text of every file of a new pipeline, by its path in the folder.

    Raises:
        ScaffoldNameError: no pipeline can have this name.
    """
    if not names.ID_PATTERN.fullmatch(name):
        raise ScaffoldNameError(
            f"{name!r} cannot name a pipeline, which begins with a letter and has at most 63 small "
            f"letters, digits and hyphens; {_remedy(name)}"
        )
    return {
        path: text.format(name=name) if path in _FILLED else text for path, text in _FILES.items()
    }


def _remedy(name: str) -> str:
    close = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    close = re.sub(r"^[0-9-]+", "", close)[:63].rstrip("-")
    return f"how about {close!r}?" if close else "choose another one, such as 'people-counter'"
