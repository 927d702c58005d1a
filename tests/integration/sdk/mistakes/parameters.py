"""Mistakes in parameters of a specification, and in their values."""

from tests.integration.sdk.mistakes.mistake import Mistake, SpecMistake

_RUN = "jobs: {a: {run: 'x ${{ parameters.n }}'}}"

DECLARED = (
    (f"params: {{n: 1}}\n{_RUN}", "params", "'params'", "`parameters: {NAME: {default: VALUE}}`"),
    (f"inputs: {{n: 1}}\n{_RUN}", "inputs", "'inputs'", "`parameters: {NAME: {default: VALUE}}`"),
    (f"parameters: [n]\n{_RUN}", "parameters", "has to be a mapping", "{limit: {type: integer"),
    (f"parameters: {{n: 20}}\n{_RUN}", "parameters.n", "'20'", "{default: 20}"),
    (f"parameters: {{n: }}\n{_RUN}", "parameters.n", "it has no value", "--set n=VALUE"),
    (f"parameters: {{n: {{enum: [a]}}}}\n{_RUN}", "parameters.n.enum", "'enum'", "write `choices: "),
    (f"parameters: {{n: {{value: a}}}}\n{_RUN}", "parameters.n.value", "'value'", "`default: VALUE`"),
    (f"parameters: {{n: {{type: int}}}}\n{_RUN}", "parameters.n.type", "'int'", "'integer'"),
    (f"parameters: {{n: {{choices: [a], default: b}}}}\n{_RUN}", "parameters.n.default", "'b'", "known are a"),
    (f"parameters: {{n: {{type: number, default: x}}}}\n{_RUN}", "parameters.n.default", "'x'", "for example 20"),
    (f"parameters: {{n m: {{default: x}}}}\n{_RUN}", "parameters.n m", "'n m'", "use a letter"),
    ("parameters: {n: {default: x}}\njobs: {a: {run: x}}", "parameters.n", "no value of the file", "or remove it"),
)  # fmt: skip
"""Declarations."""

_N = "parameters: {n: {default: x}, m: {default: '${n}'}}\n"
_WHERE = "labels: {n: '${{ parameters.n }}', m: '${{ parameters.m }}'}\n"

STANDING = (
    (_N + _WHERE + "jobs: {a: {run: 'x ${{ parameters.o }}'}}", "jobs.a.run", "'o'", "known are m, n"),
    (_RUN, "jobs.a.run", "'n'", "parameters: {n: {type: string}}"),
    (_N + _WHERE + "jobs: {a: {run: 'x ${{ env.HOME }}'}}", "jobs.a.run", "${{ env.HOME }}", "${{ parameters.NAME }}"),
    (_N + _WHERE + "jobs: {a: {run: \"sh -c 'ls ${{ parameters.n }}'\"}}", "jobs.a.run", "'n'", "`variables`"),
    (_N + _WHERE + "jobs: {a: {run: x, timeout: '${{ parameters.n }}'}}", "jobs.a.timeout", "n is 'x'", "90s, 2m"),
    (_N + _WHERE + "jobs: {'${{ parameters.n }}': {run: x}}", "jobs", "in a key", "write the key itself"),
    (_N + _WHERE + "jobs: {a: {run: [x, ${{ parameters.n }}]}}", "", "not YAML", "in quotes"),
)  # fmt: skip
"""Places of parameters."""

GIVEN = (
    ("run --set n good.yaml", 2, "--set", "'n'", "--set limit=20"),
    ("run --set n=1 --set n=2 good.yaml", 2, "--set", "'1' and '2'", "leave one of them"),
    ("run --set n=1 good.yaml", 2, "no parameter 'n'", "--set", "declare it under `parameters:`"),
    ("submit --set n=1 good.yaml", 2, "no parameter 'n'", "--set", "or leave it out"),
    ("simulate --set n=1 good.yaml", 2, "no parameter 'n'", "--set", "or leave it out"),
    ("run --set n=1 -- ls", 2, "--set", "specification", "instead of a command"),
    ("graph --set n=1 {ended}", 2, "--set", "specification", "when it was submitted"),
    ("run --values nowhere.yaml good.yaml", 2, "nowhere.yaml", "no such file", "did you mean"),
    ("run --values main.py good.yaml", 2, "main.py", "*.toml", "rename it"),
    ("run --values nothing.yaml good.yaml", 2, "nothing.yaml", "empty", "limit: 20"),
)  # fmt: skip
"""Values."""

SPECIFICATIONS = tuple(SpecMistake(*row) for row in (*DECLARED, *STANDING))
OPTIONS = tuple(Mistake(*row) for row in GIVEN)
