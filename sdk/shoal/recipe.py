"""What an installer reads when it follows the recipe of an environment.

Rule: every file of the bundle that the installer may read is named, or the whole bundle is. What is
plain by its form (`name[extra]>=1; marker`, an http address, an option that names no file) reads
nothing of the bundle; `-r` and `-c` read the file that they name, and whatever stands in it. All else
(paths, folders, archives, options that are not known here) may read anything, so the bundle counts
as a whole. Why not cleverer: pip and uv read the same line in different ways, and a file that is
missed here means that the packages of yesterday run. Example: `./libs[gpu] ; python_version > "3"`
is not plain, so the recipe depends on the whole bundle; `-r ../base.txt` depends on that file alone.

`shoal validate` and the agent both ask here, so that they cannot differ. Sources: pip's
`req_file.py` and `constructors.py`, and https://docs.astral.sh/uv/pip/compatibility/.
"""

import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from shoal import spec


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


_CONSTRAINTS = _words("""
    -c --constraint --constraints -b --build-constraint --build-constraints --override --overrides
    --excludes
""")
_REQUIREMENTS = _words("-r --requirement --requirements")
_INSTALLS = _words("-e --editable --group")
_FROM_PLACES = _words("""
    -f --find-links -i --index-url --extra-index-url --index --default-index
""")
_WITH_VALUE = _words("""
    --abi --allow-insecure-host --cache-dir --cert --client-cert --color -C --config-setting
    --config-settings --config-settings-package --exclude-newer --exclude-newer-package
    --exists-action --extra --fork-strategy --global-option --implementation --index-strategy
    --keyring-provider --link-mode --no-binary --no-build-isolation-package --no-build-package
    --no-editable-package --no-sources-package --only-binary --platform --prerelease
    --prerelease-package --progress-bar --proxy --python-platform --python-version --refresh-package
    --reinstall-package --resolution --retries --root-user-action --timeout --torch-backend
    --trusted-host --upgrade-group -P --upgrade-package --upgrade-strategy --use-deprecated
    --use-feature
""")
_FLAGS = _words("""
    --all-extras --break-system-packages --check-build-dependencies --compile --compile-bytecode
    --debug --disable-pip-version-check --exact --force-reinstall -I --ignore-installed
    --ignore-requires-python --isolated --no-break-system-packages --no-build --no-build-isolation
    -n --no-cache --no-cache-dir --no-clean --no-color --no-compile --no-config --no-deps
    --no-editable --no-index --no-input --no-progress --no-sources --no-verify-hashes
    --no-warn-conflicts --no-warn-script-location --offline --pre --prefer-binary -q --quiet
    --refresh --reinstall --require-build-hashes --require-hashes --strict --system-certs -U
    --upgrade --use-pep517 -v --verbose
""")
_ELSEWHERE = _words("""
    --check --directory --dry-run -h --help --log --prefix -p --project --python --report --root
    --src --system -t --target --user -V --version
""")
"""Options with which nothing is installed in the environment of the job."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_EXTRAS = r"(?:\[[A-Za-z0-9._,\s-]*\])?"
_PLAIN = re.compile(rf"({_NAME})\s*{_EXTRAS}\s*(?:[(<>=!~][^;@#/\\$]*)?(?:;.*)?")
_ARCHIVE = re.compile(r"\.(?:whl|zip|egg|tar|tar\.\w+|tgz|tbz2?|txz|tlz)$", re.IGNORECASE)
_ADDRESS = re.compile(rf"(?:{_NAME}\s*{_EXTRAS}\s*@\s*)?([a-z][a-z0-9+.-]*)://.*", re.IGNORECASE)
_OF_THE_NODE = re.compile(
    rf"(?:{_NAME}\s*{_EXTRAS}\s*@\s*)?(?:file:(?://(?:localhost)?)?)?(/[^\s;#\[]*).*", re.IGNORECASE
)
_HASH = re.compile(r"\s--hash(?:=|\s+)\S+")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
# What `str.splitlines` takes for an end of a line, and not every installer does.
_ODD_ENDS = re.compile("[\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")
_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff")
_LINKS_MAX = 40  # as Linux has it
_LIST_BYTES_MAX = 4 << 20
_OPTION_LINE_MAX = 4096
_LISTS = (".txt", ".in", ".lst", ".pip")
"""Names of lists of requirements; uv reads others, such as pyproject.toml and setup.py, in its own way."""


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at a path: a folder, a link with its target, or else a file."""

    folder: bool = False
    link: str = ""


class BundleFiles(Protocol):
    """What lies in one bundle, by paths relative to it, without `.`, `..` and links in them."""

    def look(self, path: str) -> Found | None:
        """Say what lies at a path; None for nothing that a bundle may hold."""
        ...

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            OSError: it cannot be read.
        """
        ...


def resolve(bundle: BundleFiles, path: str) -> str | None:
    """Return where a path leads, without `.`, `..` and links; None where that is no file of the bundle.

    It is followed part by part, as the system does: a path that leaves the bundle on its way is
    none of it, although it may come back.
    """
    if path.startswith("/") or "\0" in path:
        return None
    done: list[str] = []
    rest = path.split("/")[::-1]
    links = 0
    while rest:
        part = rest.pop()
        if part == "..":
            if not done:
                return None
            done.pop()
        elif part not in {"", "."}:
            here = "/".join([*done, part])
            found = bundle.look(here)
            if found is None or (rest and not found.folder and not found.link):
                return None
            if not found.link:
                done.append(part)
                continue
            links += 1
            if found.link.startswith("/") or links > _LINKS_MAX:
                return None
            rest.extend(reversed(found.link.split("/")))
    end = "/".join(done)
    found = bundle.look(end) if end else None
    return end if found is not None and not found.folder else None


@dataclass(frozen=True, slots=True)
class RecipeProblem:
    """A step, by its number from 0, that cannot be followed, and what would be right.

    `name` is the path that is not there, as it was written; empty for other problems.
    """

    step: int
    message: str
    name: str = ""


@dataclass(slots=True)
class Ingredients:
    """What goes into an environment besides what packages are called.

    Attributes:
        files: files of the bundle that are read, by their paths in it.
        whole: whether any other file of the bundle may be read, too.
        variables: names of variables that the installer puts in.
        outside: absolute paths on the node.
        problems: why the recipe cannot be followed.
    """

    files: set[str] = field(default_factory=set[str])
    whole: bool = False
    variables: set[str] = field(default_factory=set[str])
    outside: set[str] = field(default_factory=set[str])
    problems: list[RecipeProblem] = field(default_factory=list[RecipeProblem])


def ingredients(
    steps: Sequence[spec.EnvironmentStep], bundle: BundleFiles | None = None
) -> Ingredients:
    """Look at a recipe as its installer would.

    Args:
        steps: the recipe.
        bundle: the files that it may name; None where they are not at hand, which leaves out what
            needs them.
    """
    found = Ingredients()
    reading = _Reading(found, bundle)
    if steps:
        reading.settings()
    waiting: int | None = None
    for number, step in enumerate(steps):
        reading.step = number
        match step:
            case spec.RequirementsStep(path):
                reading.follow("", path)
            case spec.ConstraintsStep(path):
                reading.follow("", path)
            case spec.WheelStep(path):
                reading.take(path)
            case spec.PipStep(arguments):
                reading.words(arguments)
            case spec.UrlStep():
                pass
            case _:
                assert_never(step)
        reading.go_on()
        waiting = None if installs(step) else number
    if waiting is not None:
        found.problems.append(
            RecipeProblem(
                waiting,
                "it installs nothing by itself and no step comes after it, so it would have no "
                "effect; put it before the steps that it is meant for",
            )
        )
    return found


def installs(step: spec.EnvironmentStep) -> bool:
    """Whether a step installs something by itself; any other is meant for the steps after it."""
    match step:
        case spec.ConstraintsStep():
            return False
        case spec.PipStep(arguments):
            return any(
                option not in _CONSTRAINTS | _FROM_PLACES | _WITH_VALUE | _FLAGS
                for option, _ in _options(arguments)
            )
        case _:
            return True


@dataclass(slots=True)
class _Reading:
    """One look at a recipe on its way."""

    found: Ingredients
    bundle: BundleFiles | None
    step: int = 0
    seen: set[str] = field(default_factory=set[str])
    rest: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Lists that are still to be read: the folder of the file that names one, and its name there."""

    def settings(self) -> None:
        """Count in what uv takes its own settings from, in the folder that it works in."""
        if self.bundle is None:
            return
        if resolve(self.bundle, "uv.toml") is not None:
            self.found.whole = True
        project = resolve(self.bundle, "pyproject.toml")
        if project is not None and b"tool.uv" in self.read(project):
            self.found.whole = True

    def complain(self, message: str, name: str = "") -> None:
        self.found.problems.append(RecipeProblem(self.step, message, name))

    def read(self, place: str) -> bytes:
        """Read a file of the bundle; one that cannot be read is a problem, and empty."""
        try:
            return b"" if self.bundle is None else self.bundle.read(place)
        except OSError as error:
            self.complain(f"{place!r} of the bundle cannot be read: {error.strerror}")
            return b""

    def take(self, path: str) -> str | None:
        """Count a file of the bundle in; None where it is not at hand."""
        if self.bundle is None:
            return None
        place = resolve(self.bundle, path)
        if place is None:
            self.complain(
                f"the recipe names {path!r}, which is not a file of the bundle: "
                "add it to the bundle or correct the path",
                path,
            )
            return None
        self.found.files.add(place)
        return place

    def follow(self, parent: str, name: str) -> None:
        """Let a list of requirements be read that stands in a file of the folder `parent`."""
        self.rest.append((parent, name))

    def go_on(self) -> None:
        """Read all lists that were named, and those that they name."""
        while self.rest:
            self._list(*self.rest.pop())

    def _list(self, parent: str, name: str) -> None:
        if re.match(r"https?://", name, re.IGNORECASE):
            return
        if "${" in name:
            self.complain(
                f"the recipe names {name!r}, and which file that is cannot be known beforehand: "
                "write the path out"
            )
            return
        # Joined as it is written: where it leads is for the bundle to say.
        path = posixpath.join(parent, name)
        place = self.take(path)
        if place is None or self.bundle is None or place in self.seen:
            return
        self.seen.add(place)
        if not place.endswith(_LISTS):
            self.found.whole = True
        if place.endswith((".toml", ".py", ".pyw", ".cfg")):
            return
        data = self.read(place)
        if len(data) > _LIST_BYTES_MAX:
            self.found.whole = True
            return
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            self.found.whole = True
            if not data.startswith(_OTHER_ENCODINGS):
                return
            text = data.decode("utf-16", "replace")
        self.found.whole |= _ODD_ENDS.search(text) is not None
        self.found.variables.update(_VARIABLE.findall(text))
        for line in self._lines(text):
            self._line(line, posixpath.dirname(path))

    def words(self, words: Sequence[str]) -> None:
        """Look at the words of a command line."""
        for option, value in _options(words):
            if option in _ELSEWHERE:
                self.complain(
                    f"with {option} nothing would be installed in the environment of the job; "
                    "leave it out"
                )
            else:
                self._option(option, value, "")

    def _lines(self, text: str) -> Iterator[str]:
        """Join what a backslash continues, without comments."""
        begun: list[str] = []
        for line in text.splitlines():
            stripped = _COMMENT.sub("", line)
            if stripped != line:
                # Installers differ in whether a comment goes on.
                self.found.whole |= line.endswith("\\") or bool(begun)
            elif line.endswith("\\"):
                begun.append(line[:-1])
                continue
            yield " ".join([*begun, stripped]).strip()
            begun.clear()
        yield " ".join(begun).strip()

    def _line(self, line: str, parent: str) -> None:
        if not line:
            return
        if not line.startswith("-"):
            self._requirement(line)
            return
        option, value = _option_of(line)
        if option in _REQUIREMENTS | _CONSTRAINTS and not re.search(r"[\s'\"\\]", value):
            self._option(option, value, parent)
            return
        try:
            # Which takes its time.
            words = shlex.split(line) if len(line) <= _OPTION_LINE_MAX else []
        except ValueError:
            words = []
        self.found.whole |= not words
        for known, given in _options(words):
            if known in _REQUIREMENTS | _CONSTRAINTS:
                # Installers differ in what a blank or a quote means here.
                self.found.whole = True
            else:
                self._option(known, given, parent)

    def _option(self, option: str, value: str, parent: str) -> None:
        if not option:
            self._requirement(value)
        elif option in _REQUIREMENTS | _CONSTRAINTS:
            self.follow(parent, value)
        elif option in _FROM_PLACES:
            if re.match(r"(?:[\w.-]+=)?https?://", value, re.IGNORECASE) is None:
                self.found.whole = True
                self._of_the_node(value)
        elif option in _WITH_VALUE:
            self.found.whole |= "/" in value and "://" not in value
        elif option not in _FLAGS:
            self.found.whole = True
            self._of_the_node(value)

    def _requirement(self, text: str) -> None:
        text = " ".join(_HASH.sub("", text).split())
        plain = _PLAIN.fullmatch(text)
        if plain is not None and _ARCHIVE.search(plain[1]) is None:
            return
        address = _ADDRESS.fullmatch(text)
        if address is not None and "file" not in address[1].lower():
            return
        self.found.whole = True
        self._of_the_node(text)

    def _of_the_node(self, text: str) -> None:
        if (found := _OF_THE_NODE.fullmatch(text)) is not None:
            self.found.outside.add(found[1])


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of an option and its value; what is no option comes with an empty one."""
    rest = [*reversed(words)]
    while rest:
        word = rest.pop()
        if word == "--":
            yield from (("", literal) for literal in reversed(rest))
            return
        if not word.startswith("-") or word == "-":
            yield "", word
            continue
        option, value = _option_of(word)
        if option in _FLAGS and value and not option.startswith("--"):
            rest.append("-" + value)  # several in one word: -qU
            value = ""
        elif option == word and _takes_value(option):
            value = rest.pop() if rest else ""
        yield option, value


def _takes_value(option: str) -> bool:
    return option in _REQUIREMENTS | _CONSTRAINTS | _INSTALLS | _FROM_PLACES | _WITH_VALUE


def _option_of(text: str) -> tuple[str, str]:
    """Split `--option=value`, `--option value`, `-ovalue` and `-o value`; the value may be empty."""
    if text.startswith("--"):
        found = re.match(r"(--[\w-]+)(?:\s*=\s*|\s+)?(.*)", text, re.DOTALL)
        return (found[1], found[2].strip()) if found else (text, "")
    return text[:2], text[2:].lstrip(" =\t")
