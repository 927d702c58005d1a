"""A YAML tree to a specification: which keys there are, and what their short forms mean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from types import MappingProxyType

import yaml

from shoal import spec
from shoal.checks.problem import Path
from shoal.compat import Compat
from shoal.limits import BUFFER_MAX
from shoal.model import no_strings
from shoal.parameter import Parameter
from shoal.sandbox import Claim, Sandbox, SandboxLevel, SandboxNetwork
from shoal.secret import SecretForm, SecretUse
from shoal.specfile.command_reader import read_command
from shoal.specfile.declarations import read_declarations
from shoal.specfile.foreign_key import key_remedy
from shoal.specfile.scalars import Readers, Scalars, is_null
from shoal.specfile.step_reader import STEP_KINDS, fetching_wheels, read_short_steps, read_steps
from shoal.specfile.template import OPENING
from shoal.specfile.tree import mark_of
from shoal.specfile.values import GivenValues
from shoal.suggestion import did_you_mean

_PIPELINE_KEYS = ("name", "parameters", "bundle", "labels", "compat", "prefetch", "jobs")
_ENVIRONMENT_KEYS = ("python", "system_site_packages", "steps", *STEP_KINDS, "sha256")
_STAND_IN_KEYS = ("default", "repeat", "buffer", "drop")
_STREAM_KEYS = (
    *("from", "format", "as", "block_count", "merge", "promise", "keep", "optional"),
    *_STAND_IN_KEYS,
)
_FILE_KEYS = ("source", "path", "sha256")
_FOLDER_KEYS = ("path", "layout", "pattern", "entry")
_INPUT_KEYS = {
    "from": _STREAM_KEYS,
    "source": _FILE_KEYS,
    "prefix": ("prefix", *_FOLDER_KEYS),
    "artifacts": ("artifacts", *_FOLDER_KEYS),
}
"""The keys of an input, by the one that says what it is."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What could be read; `complete` is false when jobs, inputs or outputs are missing from it.

    `bundle` is the folder as it was written, None when there is none. `parameters` are declared.
    """

    pipeline: spec.Pipeline
    bundle: str | None
    exclude: tuple[str, ...]
    complete: bool
    parameters: tuple[Parameter, ...] = ()


class Reader:
    """Reads a tree into a draft, and leaves what was wrong with `scalars`."""

    def __init__(self, scalars: Scalars) -> None:
        self._scalars = scalars
        self._complete = True

    def read(self, root: yaml.Node, given: GivenValues, *, may_lack: bool = False) -> Draft:
        """Read the whole file, and put the values of its parameters in; with `may_lack` those that there are."""
        scalars = self._scalars
        scalars.note((), mark_of(root.start_mark))
        entries = scalars.entries(root, (), "a mapping with `name` and `jobs`")
        found: dict[str, yaml.Node] = {}
        for field in entries or ():
            if field.key in _PIPELINE_KEYS:
                found[field.key] = field.value
            elif not field.key.startswith("x-"):  # room for anchors
                remedy = key_remedy((field.key,), _PIPELINE_KEYS)
                scalars.complain(
                    (field.key,), f"there is no {field.key!r} here; {remedy}", field.mark
                )
        values = read_declarations(scalars, found.get("parameters"), given, may_lack=may_lack)
        scalars.values = values
        name = ""
        if "name" in found:
            name = scalars.text(found["name"], ("name",)) or ""
        elif entries is not None:
            scalars.complain(
                ("name",), "the pipeline has no name; write for example name: people-counter", root
            )
        bundle, exclude = self._bundle(found.get("bundle"))
        labels = self._map(found["labels"], ("labels",)) if "labels" in found else no_strings()
        compat = self._compat(found["compat"], ("compat",)) if "compat" in found else None
        prefetch = False
        if "prefetch" in found:
            prefetch = scalars.boolean(found["prefetch"], ("prefetch",)) or False
            if prefetch and bundle is None:
                scalars.complain(
                    ("prefetch",),
                    "there is no bundle to fetch; add `bundle: .`, or leave out `prefetch`",
                    found["prefetch"],
                )
        jobs: tuple[spec.Job, ...] = ()
        if "jobs" in found:
            jobs = self._jobs(found["jobs"])
        whole = not scalars.findings  # else its place may be among what could not be read
        for unused in (one for one in values.declared if whole and one not in values.used):
            scalars.complain(
                ("parameters", unused),
                f"no value of the file names it; write ${{{{ parameters.{unused} }}}} where it "
                "belongs, or remove it",
            )
        return Draft(
            spec.Pipeline(
                name,
                jobs,
                labels=labels,
                parameters=MappingProxyType(values.by_name),
                compat=compat,
                prefetch=prefetch,
            ),
            bundle,
            exclude,
            self._complete and not scalars.keys_refused,
            tuple(values.declared.values()),
        )

    # ---- the pipeline ---------------------------------------------------------------------------

    def _bundle(self, node: yaml.Node | None) -> tuple[str | None, tuple[str, ...]]:
        path = ("bundle",)
        if node is None or is_null(node):
            return None, ()
        if isinstance(node, yaml.ScalarNode):
            return self._scalars.text(node, path), ()
        fields = self._scalars.fields(
            node, path, ("path", "exclude"), "a folder, or a mapping with `path` and `exclude`"
        )
        if fields is None:
            return None, ()
        folder = self._scalars.text(fields["path"], (*path, "path")) if "path" in fields else "."
        exclude = self._texts("a list of patterns")
        if "exclude" not in fields:
            return folder, ()
        return folder, exclude(fields["exclude"], (*path, "exclude"))

    def _compat(self, node: yaml.Node, path: Path) -> Compat | None:
        scalars = self._scalars
        readers: Readers = {
            "user": ("user", scalars.text),
            "action": ("action", scalars.text),
            "task": ("task", scalars.text),
            "updates_topic": ("updates_topic", scalars.boolean),
            "legacy_results": ("legacy_results", scalars.boolean),
        }
        wanted = "a mapping such as {user: ada, task: task7, updates_topic: true}"
        found = scalars.mapping(Compat(), node, path, readers, wanted)
        return None if found == Compat() else found

    def _jobs(self, node: yaml.Node) -> tuple[spec.Job, ...]:
        path = ("jobs",)
        entries = self._scalars.entries(node, path, "a mapping from the name of a job to the job")
        jobs = [self._job(field.key, field.value) for field in entries or ()]
        self._complete &= entries is not None and None not in jobs
        return tuple(job for job in jobs if job is not None)

    # ---- a job ----------------------------------------------------------------------------------

    def _job(self, name: str, node: yaml.Node) -> spec.Job | None:
        at = ("jobs", name)
        scalars = self._scalars
        readers: Readers = {
            "run": ("run", partial(read_command, scalars)),
            "environment": ("environment", self._environment),
            "outputs": ("outputs", self._outputs),
            "replicas": ("replicas", scalars.integer),
            "resources": ("resources", self._resources),
            "place": ("place", self._place),
            "archive": ("archive", self._patterns),
            "archive_on": ("archive_on", scalars.choice_of(spec.ArchiveOn)),
            "retry": ("retry", self._retry),
            "timeout": ("timeout_seconds", scalars.duration),
            "grace": ("grace_seconds", scalars.duration),
            "variables": ("variables", self._map),
            "secrets": ("secrets", self._secrets),
            "recovery": ("recovery", scalars.choice_of(spec.Recovery)),
            "placement": ("placement", scalars.choice_of(spec.Placement)),
            "layout": ("layout", scalars.choice_of(spec.Layout)),
            "local": ("local", scalars.boolean),
            "sandbox": ("sandbox", self._sandbox),
            "stdin": ("stdin", scalars.text),
        }
        fields = scalars.fields(node, at, ("inputs", *readers), "a mapping with `run` at least")
        if fields is None:
            return None
        streams: tuple[spec.StreamInput, ...] = ()
        files: tuple[spec.FileInput, ...] = ()
        folders: tuple[spec.FolderInput, ...] = ()
        if "inputs" in fields:
            streams, files, folders = self._inputs(fields["inputs"], (*at, "inputs"))
        job = spec.Job(name, (), streams=streams, files=files, folders=folders)
        return fetching_wheels(self._scalars.filled(job, fields, at, readers))

    def _secrets(self, node: yaml.Node, path: Path) -> tuple[SecretUse, ...]:
        wanted = "a mapping from variables to names of secrets, such as {API_TOKEN: lab-token}"
        entries = self._scalars.entries(node, path, wanted) or ()
        read = [self._secret(one.key, one.value, (*path, one.key)) for one in entries]
        self._complete &= None not in read
        return tuple(use for use in read if use is not None)

    def _secret(self, variable: str, node: yaml.Node, path: Path) -> SecretUse | None:
        scalars = self._scalars
        if isinstance(node, yaml.ScalarNode):
            name = scalars.text(node, path)
            return None if name is None else SecretUse(variable, name)
        readers: Readers = {
            "name": ("name", scalars.text),
            "as": ("form", scalars.choice_of(SecretForm)),
        }
        wanted = "the name of a secret, or a mapping such as {name: lab-token, as: file}"
        use = scalars.mapping(SecretUse(variable, ""), node, path, readers, wanted)
        if not use.name:
            scalars.complain(path, "it names no secret; add for example `name: lab-token`")
            return None
        return use

    def _patterns(self, node: yaml.Node, path: Path) -> tuple[str, ...] | None:
        if is_null(node):
            return None
        return self._scalars.texts(node, path, "a list of patterns such as results/**")

    def _environment(self, node: yaml.Node, path: Path) -> spec.Environment:
        scalars = self._scalars
        fields = scalars.fields(
            node, path, _ENVIRONMENT_KEYS, "a mapping such as {requirements: requirements.txt}"
        )
        if not fields:
            return spec.Environment()
        readers: Readers = {
            "python": ("python", scalars.text),
            "system_site_packages": ("system_site_packages", scalars.boolean),
            "steps": ("steps", partial(read_steps, scalars)),
        }
        environment = self._scalars.filled(spec.Environment(), fields, path, readers)
        short = {kind: fields[kind] for kind in fields if kind in {*STEP_KINDS, "sha256"}}
        if "steps" in fields:
            for key in short:
                scalars.complain(
                    (*path, key),
                    "this cannot stand beside `steps`, since the order would not be clear; "
                    "make it a step",
                )
        elif short:
            environment = replace(environment, steps=read_short_steps(scalars, short, path))
        return environment

    def _resources(self, node: yaml.Node, path: Path) -> spec.Resources:
        readers: Readers = {
            "cpus": ("cpus", self._scalars.number),
            "memory": ("memory_bytes", self._scalars.size),
            "devices": ("devices", self._devices),
            "processes": ("processes", self._scalars.integer),
            "disk": ("disk_bytes", self._scalars.size),
        }
        wanted = "a mapping such as {cpus: 0.5, memory: 512MiB}"
        return self._scalars.mapping(spec.Resources(), node, path, readers, wanted)

    def _sandbox(self, node: yaml.Node, path: Path) -> Sandbox:
        scalars = self._scalars
        level = scalars.choice_of(SandboxLevel)
        if isinstance(node, yaml.ScalarNode) and not is_null(node):
            return Sandbox(level(node, path) or SandboxLevel.NONE)
        readers: Readers = {
            "level": ("level", level),
            "network": ("network", scalars.choice_of(SandboxNetwork)),
            "enforce": ("enforce", self._claims),
        }
        wanted = (
            "a level (none, user, confined), or a mapping such as {level: confined, network: none}"
        )
        return scalars.mapping(Sandbox(), node, path, readers, wanted)

    def _claims(self, node: yaml.Node, path: Path) -> frozenset[Claim] | None:
        items = self._scalars.items(node, path, "a list of claims such as [memory, cpus]")
        if items is None:
            return None
        claim = self._scalars.choice_of(Claim)
        read = [claim(item, path) for item in items]
        return frozenset(one for one in read if one is not None)

    def _place(self, node: yaml.Node, path: Path) -> spec.Place:
        readers: Readers = {
            "require": ("require", self._required),
            "prefer": ("prefer", self._texts("a list of nodes")),
            "strategy": ("strategy", self._scalars.choice_of(spec.Strategy)),
        }
        wanted = "a mapping such as {require: {role: camera}}"
        return self._scalars.mapping(spec.Place(), node, path, readers, wanted)

    def _devices(self, node: yaml.Node, path: Path) -> tuple[str, ...] | None:
        items = self._scalars.items(node, path, "a list of device classes such as [video]")
        if items is None:
            return None
        words = [(item, self._scalars.text(item, path)) for item in items]
        return tuple(
            word for item, word in words if word is not None and not _asks_nothing(item, word)
        )

    def _required(self, node: yaml.Node, path: Path) -> Mapping[str, str]:
        entries = self._scalars.entries(node, path, "a mapping from words to words") or ()
        read = [(one, self._scalars.text(one.value, (*path, one.key))) for one in entries]
        found = {
            one.key: word
            for one, word in read
            if word is not None and not _asks_nothing(one.value, word)
        }
        return MappingProxyType(found)

    def _retry(self, node: yaml.Node, path: Path) -> spec.Retry:
        scalars = self._scalars
        default = spec.Retry()
        if isinstance(node, yaml.ScalarNode) and not is_null(node):
            attempts = scalars.integer(node, path)
            return default if attempts is None else replace(default, attempts=attempts)
        readers: Readers = {
            "attempts": ("attempts", scalars.integer),
            "backoff": ("backoff_seconds", scalars.duration),
            "backoff_limit": ("backoff_limit_seconds", scalars.duration),
        }
        wanted = "a number of attempts, or a mapping such as {attempts: 3, backoff: 1s}"
        return scalars.mapping(default, node, path, readers, wanted)

    # ---- ports ----------------------------------------------------------------------------------

    def _inputs(
        self, node: yaml.Node, path: Path
    ) -> tuple[
        tuple[spec.StreamInput, ...], tuple[spec.FileInput, ...], tuple[spec.FolderInput, ...]
    ]:
        entries = self._scalars.entries(
            node, path, "a mapping from the name of an input to its source"
        )
        inputs = [self._input(one.key, one.value, (*path, one.key)) for one in entries or ()]
        self._complete &= entries is not None and None not in inputs
        return (
            tuple(one for one in inputs if isinstance(one, spec.StreamInput)),
            tuple(one for one in inputs if isinstance(one, spec.FileInput)),
            tuple(one for one in inputs if isinstance(one, spec.FolderInput)),
        )

    def _input(
        self, name: str, node: yaml.Node, path: Path
    ) -> spec.StreamInput | spec.FileInput | spec.FolderInput | None:
        scalars = self._scalars
        if isinstance(node, yaml.ScalarNode) and not is_null(node):
            ends = scalars.converted(node, path, _job_and_port)
            return None if ends is None else spec.StreamInput(name, *ends)
        wanted = (
            "JOB.PORT, or a mapping with `from: JOB.PORT`, `source: ADDRESS`, "
            "`prefix: s3://bucket/folder/` or `artifacts: PIPELINE/JOB`"
        )
        every = dict.fromkeys(key for keys in _INPUT_KEYS.values() for key in keys)
        fields = scalars.fields(node, path, tuple(every), wanted)
        if fields is None:
            return None
        kinds = [kind for kind in _INPUT_KEYS if kind in fields]
        if len(kinds) != 1:
            scalars.complain(path, f"this has to be {wanted}, one of them")
            return None
        (kind,) = kinds
        known = _INPUT_KEYS[kind]
        for key in fields:
            if key not in known:
                scalars.complain(
                    (*path, key),
                    f"an input with `{kind}` has no {key!r}; {key_remedy((*path, key), known)}",
                )
        match kind:
            case "from":
                return self._stream(name, fields, path)
            case "source":
                return self._file(name, fields, path)
            case _:
                return self._folder(name, fields, path)

    def _stream(
        self, name: str, fields: Mapping[str, yaml.Node], path: Path
    ) -> spec.StreamInput | None:
        scalars = self._scalars
        ends = scalars.converted(fields["from"], (*path, "from"), _job_and_port)
        stream = self._scalars.filled(
            spec.StreamInput(name, *(ends or ("", "")), self._binding(fields, path, "inputs")),
            fields,
            path,
            {
                "block_count": ("block_count", scalars.integer),
                "merge": ("merge", scalars.choice_of(spec.Merge)),
                "promise": ("promise", scalars.choice_of(spec.Promise)),
                "keep": ("keep", scalars.integer),
            },
        )
        if "keep" in fields and stream.promise is not spec.Promise.LATEST:
            scalars.complain(
                (*path, "keep"),
                "'keep' belongs to an input that drops records; add `promise: latest`",
            )
            stream = replace(stream, keep=1)
        stream = replace(stream, optional=self._stand_in(fields, path))
        return None if ends is None else stream

    def _stand_in(self, fields: Mapping[str, yaml.Node], path: Path) -> spec.StandIn | None:
        scalars = self._scalars
        optional = None
        if "optional" in fields:
            optional = scalars.boolean(fields["optional"], (*path, "optional"))
        found = self._scalars.filled(
            spec.StandIn(),
            fields,
            path,
            {
                "default": ("default_json", scalars.json),
                "repeat": ("repeat", scalars.boolean),
                "buffer": ("buffer", self._buffer),
                "drop": ("drop", scalars.choice_of(spec.Drop)),
            },
        )
        if "drop" in fields and "buffer" not in fields:
            scalars.complain(
                (*path, "drop"),
                "nothing is dropped without a limit; add for example `buffer: 10`",
            )
        if optional:
            return found
        for key in _STAND_IN_KEYS:
            if key in fields and ("optional" not in fields or optional is False):
                scalars.complain(
                    (*path, key), f"{key!r} belongs to an optional input; add `optional: true`"
                )
        return None

    def _buffer(self, node: yaml.Node, path: Path) -> int | None:
        buffer = self._scalars.integer(node, path)
        if buffer is None or 1 <= buffer <= BUFFER_MAX:
            return buffer
        self._scalars.complain(
            path,
            f"{buffer} records cannot wait; write 1 to {BUFFER_MAX}, or leave it out, "
            "and the producer waits",
        )
        return None

    def _file(
        self, name: str, fields: Mapping[str, yaml.Node], path: Path
    ) -> spec.FileInput | None:
        texts = {
            key: self._scalars.text(fields[key], (*path, key))
            for key in _FILE_KEYS
            if key in fields
        }
        source = texts.get("source")
        if source is None:
            return None
        target = texts.get("path") or PurePosixPath(source.split("?", 1)[0]).name
        return spec.FileInput(name, source, target, texts.get("sha256") or "")

    def _folder(
        self, name: str, fields: Mapping[str, yaml.Node], path: Path
    ) -> spec.FolderInput | None:
        scalars = self._scalars
        readers: Readers = {
            "prefix": ("prefix", scalars.text),
            "artifacts": ("artifacts", scalars.text),
            "path": ("path", scalars.text),
            "layout": ("layout", scalars.choice_of(spec.Layout)),
            "pattern": ("patterns", self._words_or_word),
            "entry": ("entry", scalars.text),
        }
        folder = scalars.filled(spec.FolderInput(name), fields, path, readers)
        return folder if folder.prefix or folder.artifacts else None

    def _words_or_word(self, node: yaml.Node, path: Path) -> tuple[str, ...] | None:
        if isinstance(node, yaml.ScalarNode):
            text = self._scalars.text(node, path)
            return None if text is None else (text,)
        return self._scalars.texts(node, path, "a pattern such as Code/**, or a list of them")

    def _outputs(self, node: yaml.Node, path: Path) -> tuple[spec.Output, ...]:
        scalars = self._scalars
        if isinstance(node, yaml.SequenceNode) or (
            isinstance(node, yaml.ScalarNode) and not is_null(node)
        ):
            items = scalars.items(node, path, "a list of names") or ()
            names = [(scalars.key(item, path), item) for item in items]
            self._complete &= all(name is not None for name, _ in names)
            for name, item in names:
                if name is not None:
                    scalars.note((*path, name), mark_of(item.start_mark))
            return tuple(spec.Output(name) for name, _ in names if name is not None)
        entries = scalars.entries(node, path, "a list of names, or a mapping from names to outputs")
        self._complete &= entries is not None
        return tuple(
            self._output(field.key, field.value, (*path, field.key)) for field in entries or ()
        )

    def _output(self, name: str, node: yaml.Node, path: Path) -> spec.Output:
        scalars = self._scalars
        known = ("format", "as", "distribute", "key")
        fields = scalars.fields(node, path, known, "a mapping such as {format: lines}") or {}
        readers: Readers = {
            "distribute": ("distribute", scalars.choice_of(spec.Distribute)),
            "key": ("key", scalars.text),
        }
        output = spec.Output(name, self._binding(fields, path, "outputs"))
        return scalars.filled(output, fields, path, readers)

    def _binding(
        self, fields: Mapping[str, yaml.Node], path: Path, direction: str
    ) -> spec.PortBinding:
        binding = spec.PortBinding()
        if "format" in fields:
            parsed = self._scalars.converted(fields["format"], (*path, "format"), _format)
            binding = parsed or binding
        attachments = {
            "stdin" if direction == "inputs" else "stdout": spec.PortAttachment.STDIO,
            "fd": spec.PortAttachment.FD,
            "fifo": spec.PortAttachment.FIFO,
        }
        readers: Readers = {"as": ("attachment", self._scalars.choice(attachments))}
        return self._scalars.filled(binding, fields, path, readers)

    # ---- small things ---------------------------------------------------------------------------

    def _texts(self, wanted: str) -> Callable[[yaml.Node, Path], tuple[str, ...]]:
        return lambda node, path: self._scalars.texts(node, path, wanted) or ()

    def _map(self, node: yaml.Node, path: Path) -> Mapping[str, str]:
        found = self._scalars.text_map(node, path, "a mapping from words to words")
        return MappingProxyType(found or {})


def _asks_nothing(node: yaml.Node, word: str) -> bool:
    """Whether a parameter with an empty value is all that stands there: a run may leave the wish out by it."""
    return not word and isinstance(node, yaml.ScalarNode) and OPENING in node.value


def _job_and_port(text: str) -> tuple[str, str]:
    job, dot, port = text.partition(".")
    if not job or not dot or not port or "." in port:
        raise ValueError("does not name an output; write JOB.PORT such as camera.frames")
    return job, port


def _format(text: str) -> spec.PortBinding:
    kind, colon, size = text.partition(":")
    known = [item.value for item in spec.PortFormat if item is not spec.PortFormat.BYTES]
    if kind == spec.PortFormat.BYTES.value:
        if not (colon and size.isascii() and size.isdigit() and len(size) <= 10):
            raise ValueError("has no size; write bytes:N with the bytes of a record, as in bytes:4")
        return spec.PortBinding(spec.PortFormat.BYTES, record_bytes=int(size))
    if text not in known:
        raise ValueError(f"is not a format; {did_you_mean(text, [*known, 'bytes:N'])}")
    return spec.PortBinding(spec.PortFormat(text))
