"""Keys that people bring from other systems, and what says the same here.

A key that is unknown is looked for here first: `depends_on` is spelled like no key of ours, and a list
of all of them does not tell which one is meant. Spelling of the other system does not matter:
`dependsOn`, `depends-on` and `depends_on` are one key.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from shoal.checks.problem import Path
from shoal.suggestion import did_you_mean

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _table(rows: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    return MappingProxyType({key: remedy for keys, remedy in rows for key in keys.split()})


_VARIABLES = "variables of the program stand under `variables: {NAME: value}` of the job"
_INPUTS = (
    "a job follows another by reading from it, as in `inputs: {frames: camera.frames}`; "
    "jobs without a stream between them run side by side"
)
_PACKAGES = (
    "programs run without a container; packages stand under `environment: {requirements: FILE}`"
)
_DEVICES = "write `resources: {devices: [gpu]}`, a class of device that the node has to have"
_PLACE = "write `place: {prefer: [NODE]}`, or `place: {require: {LABEL: value}}`"
_JOBS = "the programs of a pipeline stand under `jobs: {NAME: {run: …}}`"
_RETRY = "write `retry: 3`, or `retry: {attempts: 3, backoff: 1s}`"
_FILES = "files that a job needs lie in the folder that `bundle: .` at the top names"
_CPUS = "write `resources: {cpus: 2}`"
_MEMORY = "write `resources: {memory: 512MiB}`"
_RUN = "the command of a job is `run`, as in `run: python main.py`"
_KEPT = "files that are kept stand under `archive: [results/**]`"
_SHARED = "variables belong to a job, as `jobs: {NAME: {variables: {LIMIT: 20}}}`"

_PIPELINE = _table([
    ("services tasks steps stages nodes processes programs containers components functions", _JOBS),
    ("version api_version kind schema", "there is no such header; leave it out"),
    ("title id pipeline project", "the pipeline's name is `name`"),
    ("metadata", "write `name` and `labels` themselves"),
    ("spec", "write `jobs` and the other keys themselves"),
    ("env environment variables vars", _SHARED),
    ("files folder path context workdir working_dir directory src source", _FILES),
    ("image container build", _PACKAGES),
    ("volumes mounts", _FILES),
    ("user user_name action action_type task_name updates updates_topic legacy legacy_results",
     "what the edge-analytics dashboard needs stands under `compat: {user: ada, task: task7}`"),
    ("params param args arguments inputs config values settings options",
     "values that a run may give are declared under `parameters: {NAME: {default: VALUE}}`"),
    ("tags annotations", "write `labels: {key: value}`"),
    ("defaults", "write shared values under a key such as `x-shared: &shared`, and `<<: *shared`"),
    ("run command cmd", "a command belongs to a job, as `jobs: {NAME: {run: python main.py}}`"),
])  # fmt: skip
_JOB = _table([
    ("command cmd entrypoint entry_point exec executable program script args arguments shell", _RUN),
    ("env envs environ env_vars environment_variables vars env_file", _VARIABLES),
    ("image container docker build dockerfile", _PACKAGES),
    ("pip packages dependencies requirements conda python python_version venv",
     "packages and Python stand under `environment: {python: '3.11', requirements: FILE}`"),
    ("depends_on needs after requires upstream dependency links source from subscribe input", _INPUTS),
    ("output publish publishes topics", "streams that a job sends stand under `outputs: [NAME]`"),
    ("gpu gpus device devices accelerator accelerators", _DEVICES),
    ("cpu cpus cores vcpus threads", _CPUS),
    ("memory mem ram memory_limit mem_limit limits requests", _MEMORY),
    ("node nodes node_name node_selector host hosts hostname machine board deploy", _PLACE),
    ("affinity constraints placement_constraints target require prefer labels", _PLACE),
    ("restart restart_policy retries max_retries attempts on_failure backoff backoff_limit", _RETRY),
    ("instances scale count parallelism num_replicas copies", "write `replicas: 2`"),
    ("volumes mounts files workdir working_dir cwd directory folder context bundle path", _FILES),
    ("artifacts results save keep store", _KEPT),
    ("timeout_seconds max_runtime time_limit active_deadline_seconds deadline ttl",
     "write `timeout: 90s`"),
    ("stop_grace_period termination_grace_period_seconds kill_timeout", "write `grace: 5s`"),
    ("ports expose", "jobs exchange records by `inputs` and `outputs`, and need no network ports"),
    ("tty terminal interactive stdin_open", "write `local: true` and `stdin: terminal`"),
    ("name id", "the name of a job is its key, as `jobs: {camera: {run: …}}`"),
    ("type kind", "every job is a program; leave it out"),
    ("strategy", "write `place: {strategy: spread}`"),
    ("description comment", "write a comment, `# …`"),
])  # fmt: skip
_RESOURCES = _table([
    ("gpu gpus device accelerator accelerators", "write `devices: [gpu]`"),
    ("cpu cores vcpus threads", "write `cpus: 2`"),
    ("mem ram", "write `memory: 512MiB`"),
    ("limits requests reservations", "write `cpus` and `memory` themselves"),
    ("disk storage ephemeral_storage", "room on the disk cannot be asked for; leave it out"),
])  # fmt: skip
_ENVIRONMENT = _table([
    ("env vars variables environment_variables", _VARIABLES),
    ("image container docker dockerfile", "programs run without a container; leave it out"),
    ("packages dependencies install conda", "write `requirements: FILE`, or `pip: [numpy==2.1.0]`"),
    ("python_version version interpreter", "write `python: '3.11'`"),
])  # fmt: skip
_PLACE_KEYS = _table([
    ("node nodes name host hosts hostname", "write `prefer: [NODE]`"),
    ("labels node_selector selector match_labels constraints requires", "write `require: {LABEL: value}`"),
    ("affinity", "write `require` for what has to be, and `prefer` for nodes that are better"),
])  # fmt: skip
_RETRY_KEYS = _table([
    ("max retries count limit max_retries max_attempts times", "write `attempts: 3`"),
    ("delay interval wait pause", "write `backoff: 1s`"),
    ("max_delay max_backoff", "write `backoff_limit: 1m`"),
])  # fmt: skip
_INPUT = _table([
    ("url uri address file key", "write `source: https://…`, a file that is fetched first"),
    ("job stream topic output port source_job", "write `from: JOB.PORT`"),
    ("type codec encoding dtype", "write `format: lines`"),
    ("to target destination dest", "write `path: FILE`, where the file lies in the job's folder"),
    ("queue queue_size size depth history", "write `promise: latest` with `keep: 10`"),
    ("batch batch_size", "write `block_count: 5`"),
    ("checksum hash digest", "write `sha256: …`"),
    ("required", "write `optional: true` for an input that rounds do not wait for"),
])  # fmt: skip
_OUTPUT = _table([
    ("type codec encoding dtype", "write `format: lines`"),
    ("to target consumers", "a reader names the output, as `inputs: {frames: JOB.PORT}`"),
    ("partition partition_by shard by", "write `distribute: key` and `key`"),
])  # fmt: skip
_PARAMETER = _table([
    ("enum options values allowed one_of", "write `choices: [street, square]`"),
    ("value initial", "write `default: VALUE`"),
    ("help doc title text comment", "write `description: TEXT`"),
    ("required", "a parameter without `default` has to be given; leave this out"),
    ("kind format schema", "write `type: integer`, or string, number, boolean"),
])  # fmt: skip
_BUNDLE = _table([
    ("folder directory context root source src", "write `path: .`"),
    ("ignore excludes include", "write `exclude: ['*.pyc', data/]`"),
])  # fmt: skip
_COMPAT = _table([
    ("user_name username name", "write `user: NAME`"),
    ("action_type actiontype", "write `action: NAME`"),
    ("task_name taskname", "write `task: NAME`"),
    ("updates update_topic topic mqtt", "write `updates_topic: true`"),
    ("legacy results", "write `legacy_results: true`"),
])  # fmt: skip
_NOTHING: Mapping[str, str] = MappingProxyType({})


def key_remedy(path: Path, known: Iterable[str]) -> str:
    """Complete a complaint about an unknown key: what says the same here, or the keys there are.

    Args:
        path: the key with all that is around it, as `("jobs", "camera", "env")`.
        known: the keys that are possible there; all of them are named where nothing is close.
    """
    choices = tuple(known)
    plain = _HUMP.sub("_", path[-1]).replace("-", "_").lower()
    around = _around(path[:-1])
    if around is _ENVIRONMENT and path[-1].isupper():
        return _VARIABLES
    found = around.get(plain)
    return found or did_you_mean(path[-1], choices, len(choices))


def _around(path: Path) -> Mapping[str, str]:
    match path:
        case ():
            return _PIPELINE
        case ("bundle",):
            return _BUNDLE
        case ("compat",):
            return _COMPAT
        case ("parameters", _):
            return _PARAMETER
        case ("jobs", _):
            return _JOB
        case ("jobs", _, "resources"):
            return _RESOURCES
        case ("jobs", _, "environment") | ("jobs", _, "environment", "steps", _):
            return _ENVIRONMENT
        case ("jobs", _, "place"):
            return _PLACE_KEYS
        case ("jobs", _, "retry"):
            return _RETRY_KEYS
        case ("jobs", _, "inputs", _):
            return _INPUT
        case ("jobs", _, "outputs", _):
            return _OUTPUT
        case _:
            return _NOTHING
