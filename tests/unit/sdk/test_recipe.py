"""What an installer reads is known, or the whole bundle counts; what has no effect is refused (K1, K2, K4)."""

from collections.abc import Mapping, Sequence

import pytest

from shoal.recipe import Found, Ingredients, ingredients, installs, resolve
from shoal.spec import (
    ConstraintsStep,
    EnvironmentStep,
    PipStep,
    RequirementsStep,
    UrlStep,
    WheelStep,
)


class Files:
    """A bundle in memory: contents by path; a value that begins with -> is a link."""

    def __init__(self, files: Mapping[str, str | bytes]) -> None:
        self.files = dict(files)

    def look(self, path: str) -> Found | None:
        content = self.files.get(path)
        if isinstance(content, str) and content.startswith("->"):
            return Found(link=content[2:])
        if content is not None:
            return Found()
        below = any(name.startswith(f"{path}/") for name in self.files)
        return Found(folder=True) if below else None

    def read(self, path: str) -> bytes:
        content = self.files[path]
        return content.encode() if isinstance(content, str) else content


def look(steps: Sequence[EnvironmentStep], files: Mapping[str, str | bytes]) -> Ingredients:
    return ingredients(steps, Files(files))


def listed(text: str | bytes, **more: str) -> Ingredients:
    """What a list of requirements with this text needs."""
    return look((RequirementsStep("r.txt"),), {"r.txt": text, "libs/setup.py": "", **more})


PLAIN = (
    "numpy", "numpy==2.1", "numpy >= 2, < 3 ; python_version > '3'", "pillow[jpeg,webp]~=11.0",
    "a.b-c_d (>=1)", "six==1.17 --hash=sha256:00 --hash sha256:11", "six # and why",
    "https://host/x.whl", "x @ https://host/x.whl#sha256=00", "git+https://host/x.git@main",
    "x[y] @ git+ssh://git@host/x.git", "--index-url https://host/simple", "-i https://host/simple",
    "--extra-index-url=https://host/simple", "--find-links https://host/wheels", "--no-index",
    "--pre", "--no-binary :all:", "--only-binary=numpy", "--trusted-host host", "--require-hashes",
    "-c https://host/c.txt", "", "# ./libs", "\ufeffnumpy",
)  # fmt: skip


@pytest.mark.parametrize("line", PLAIN)
def test_k1_what_is_plain_reads_nothing_of_the_bundle(line: str) -> None:
    found = listed(f"{line}\n")
    assert not found.whole
    assert found.files == {"r.txt"}
    assert not found.problems


OTHER = (
    "./libs", "libs/", "./libs[gpu] ; python_version > '3'", ".", "..", "wheels/mine-1.0-py3-none-any.whl",
    "mine-1.0-py3-none-any.whl", "mine-1.0.tar.gz", "MINE.ZIP", "file:libs", "file:./libs",
    "mine @ file:./libs", "mine @ ./libs", "mine@./libs", "mine @ file:///x/y.whl", "git+file:///x",
    "-e ./libs", "-e./libs", "-elibs", "--editable ./libs", "--editable=./libs", "-e .[dev]",
    "-e 'libs'", "--find-links wheels", "-f ./wheels", "-fwheels", "--find-links=wheels",
    "-f file:wheels", "--index-url ./simple", "--extra-index-url=file:simple", "--unknown libs",
    "--requir base.txt", "six --global-option=x", "six --config-settings=--build=./x", "${WHERE}/x.whl",
    "libs\\setup.py", "six \\\n# note \\\n-r hidden.txt", "six # note \\\n-r hidden.txt",
    "six\x0c-r hidden.txt", "-r my\\ file.txt", "-r 'my file.txt'", '-r "my file.txt', "$(x)", "<x>",
)  # fmt: skip


@pytest.mark.parametrize("line", OTHER)
def test_k1_what_is_not_plain_makes_the_whole_bundle_count(line: str) -> None:
    assert listed(f"six\n{line}\n", **{"hidden.txt": "", "my file.txt": ""}).whole


@pytest.mark.parametrize("data", [b"caf\xe9\n", "./libs\n".encode("utf-16"), b"x" * (5 << 20)])
def test_k1_a_list_that_cannot_be_read_makes_the_whole_bundle_count(data: bytes) -> None:
    assert listed(data).whole


@pytest.mark.parametrize("name", ["pyproject.toml", "setup.py", "setup.cfg", "pylock.toml", "list"])
def test_k1_other_lists_make_the_whole_bundle_count(name: str) -> None:
    found = look((RequirementsStep(name),), {name: "six"})
    assert found.whole
    assert found.files == {name}


def test_k1_settings_of_uv_in_the_bundle_make_it_count() -> None:
    step = PipStep(("six",))
    assert look((step,), {"uv.toml": ""}).whole
    assert look((step,), {"pyproject.toml": "[tool.uv]\nindex-url = 'x'"}).whole
    assert not look((step,), {"pyproject.toml": "[project]\nname = 'x'"}).whole
    assert not look((), {"uv.toml": ""}).whole


NAMED = (
    "-r base.txt", "-rbase.txt", "-r\tbase.txt", "-r=base.txt", "--requirement base.txt",
    "--requirement=base.txt", "--requirements base.txt", "-c base.txt", "-cbase.txt",
    "--constraint=base.txt", "-r ./base.txt", "-r base.txt # all", "-r \\\nbase.txt",
    "-r deep/../base.txt", "-r link.txt", "--build-constraint base.txt",
)  # fmt: skip


@pytest.mark.parametrize("line", NAMED)
def test_k1_a_list_that_a_list_names_counts_however_it_is_named(line: str) -> None:
    more = {"base.txt": "six", "deep/x": "", "link.txt": "->base.txt"}
    found = listed(f"numpy\n{line}\n", **more)
    assert found.files == {"r.txt", "base.txt"}
    assert not found.whole
    assert not found.problems
    assert listed(f"{line}\n", **{**more, "base.txt": "./libs"}).whole


def test_k4_a_path_is_judged_where_it_leads() -> None:
    files = {"requirements/dev.txt": "-r ../base.txt\n-r more.txt", "base.txt": "six"}
    found = look((RequirementsStep("requirements/dev.txt"),), files)
    assert found.files == {"requirements/dev.txt", "base.txt"}
    [problem] = found.problems
    assert (problem.step, "'requirements/more.txt'" in problem.message) == (0, True)


@pytest.mark.parametrize(
    "line",
    ["-r ../r.txt", "-r libs/../../r.txt", "-c /etc/hostname", "-r absent.txt", "-r out.txt",
     "-r loop", "-r libs", "-r r.txt/../base.txt", "-r libs/../../work/base.txt", "-r ${X}/base.txt",
     "-r a\0b"],
)  # fmt: skip
def test_k4_what_leaves_the_bundle_or_is_not_there_is_refused(line: str) -> None:
    more = {"base.txt": "", "out.txt": "->../x.txt", "loop": "->loop"}
    [problem] = listed(f"{line}\n", **more).problems
    assert line[3:].split("/", 1)[0] in problem.message or "a\\x00b" in problem.message


def test_links_are_followed_before_what_comes_after_them() -> None:
    files = Files({"a/b/c.txt": "", "l": "->a/b", "a/d.txt": "", "d.txt": ""})
    assert resolve(files, "l/../d.txt") == "a/d.txt"
    assert resolve(files, "l/c.txt") == "a/b/c.txt"
    assert resolve(files, "a/../l/../../d.txt") == "d.txt"
    assert resolve(files, "l") is None


def test_lists_that_name_each_other_come_to_an_end_and_a_long_chain_too() -> None:
    files = {f"{n}.txt": f"-r {n + 1}.txt\n-r 0.txt" for n in range(3000)} | {"3000.txt": "six"}
    assert len(look((RequirementsStep("0.txt"),), files).files) == 3001
    assert listed("-r libs/../r.txt\n").files == {"r.txt"}


def test_variables_and_places_of_the_node_are_named() -> None:
    found = listed(
        "x @ https://${USER_1}@host/x.whl\n/opt/a.whl\n-f file:///opt/w\n-e /src/x[y] ; z\n"
    )
    assert found.variables == {"USER_1"}
    assert found.outside == {"/opt/a.whl", "/opt/w", "/src/x"}


INSTALLING = (
    ("six",), ("-rdev.txt",), ("-r", "dev.txt"), ("--requirement=dev.txt",), ("--requirement", "dev.txt"),
    ("--requirements=dev.txt",), ("-e", "."), ("-e.",), ("--editable=.",), ("--group", "dev"),
    ("--no-deps", "six"), ("-U", "six"), ("-qr", "dev.txt"), ("-Urdev.txt",), ("--", "six"), ("--what=x",),
    ("-i", "https://x", "six"), ("dev.txt",), (".",),
)  # fmt: skip
NOT_INSTALLING = (
    ("--extra-index-url", "http://x"), ("--no-deps", "-i", "http://x"), ("-U",), ("-qq",), ("-f", "wheels"),
    ("-c", "dev.txt"), ("--constraint=dev.txt",), ("-fwheels",), ("--no-binary", ":all:"),
)  # fmt: skip


@pytest.mark.parametrize("words", INSTALLING)
def test_k2_words_that_install_are_known_in_every_spelling(words: tuple[str, ...]) -> None:
    assert installs(PipStep(words))
    found = look((PipStep(words),), {"dev.txt": "six"})
    assert not found.problems
    if any("r" in word and "dev.txt" in "".join(words) for word in words):
        assert "dev.txt" in found.files


@pytest.mark.parametrize("words", NOT_INSTALLING)
def test_k2_words_that_install_nothing_need_a_step_after_them(words: tuple[str, ...]) -> None:
    step = PipStep(words)
    assert not installs(step)
    files = {"dev.txt": "six", "m.whl": ""}
    assert not look((step, WheelStep("m.whl")), files).problems
    [problem] = look((WheelStep("m.whl"), step), files).problems
    assert (problem.step, "before" in problem.message) == (1, True)


def test_k2_constraints_need_a_step_after_them() -> None:
    [problem] = ingredients((UrlStep("http://x/y.whl"), ConstraintsStep("c.txt"))).problems
    assert problem.step == 1


@pytest.mark.parametrize("words", [("--dry-run", "six"), ("--target=x", "six"), ("--user", "six"),
                                   ("-t", "x", "six"), ("--prefix", "x", "six"), ("-h",)])  # fmt: skip
def test_k2_options_with_which_nothing_is_installed_are_refused(words: tuple[str, ...]) -> None:
    assert words[0].split("=")[0] in ingredients((PipStep(words),)).problems[0].message


@pytest.mark.parametrize("text", ["a" * 200_000 + "!", "a" + " " * 200_000 + "!", "-" * 200_000,
                                  "a[" * 100_000, "--hash " * 50_000, "#" * 200_000])  # fmt: skip
def test_a_long_line_costs_no_more_than_its_length(text: str) -> None:
    assert not listed(text).problems
