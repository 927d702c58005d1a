"""Folder inputs as they are written, checked, and laid out (cases E3, E4)."""

from pathlib import Path

import pytest

from shoal import spec
from shoal.check import check_pipeline
from shoal.folder_listing import FolderListing, ListedFile, ListingError, listing_digest
from shoal.placed_folder import FolderError, PlacedFolder, check_folders, chosen, resolved
from shoal.specfile.load import parse
from shoal.specfile.mark import SpecFileError
from shoal.wire.fields import WireError
from shoal.wire.spec import decode_job_spec, encode_job_spec

TASK = "s3://bucket/ada/Classification/task7/"
FLAT = spec.FolderInput("task", prefix=TASK, layout=spec.Layout.FLAT)
TREE = spec.FolderInput("task", prefix=TASK)
RUN = ("python", "{inputs.task.entry}")
RECIPE = spec.Environment(steps=(spec.RequirementsStep("{inputs.task.requirements}"),))


def placed(folder: spec.FolderInput, *keys: str) -> PlacedFolder:
    files = chosen(folder, [ListedFile(key, 0 if key.endswith("/") else 1, '"e"') for key in keys])
    return PlacedFolder(folder, FolderListing(TASK, files))


def written(inputs: str, run: str = "python main.py", more: str = "") -> str:
    return f"name: p\njobs:\n  a:\n    run: {run}\n    inputs: {inputs}\n    {more}\n"


def complaints(text: str, tmp_path: Path) -> list[str]:
    with pytest.raises(SpecFileError) as caught:
        parse(text, "spec.yaml", tmp_path)
    return [str(one) for one in caught.value.findings]


def test_both_kinds_are_read(tmp_path: Path) -> None:
    found = parse(
        written(
            f"{{task: {{prefix: '{TASK}', layout: flat, entry: Code/a.py}}, "
            "model: {artifacts: train-1/fit, pattern: 'results/*', path: model}}"
        ),
        "spec.yaml",
        tmp_path,
    )
    (job,) = found.pipeline.jobs
    assert job.folders == (
        spec.FolderInput("task", prefix=TASK, layout=spec.Layout.FLAT, entry="Code/a.py"),
        spec.FolderInput("model", artifacts="train-1/fit", path="model", patterns=("results/*",)),
    )
    assert not check_pipeline(found.pipeline)
    assert decode_job_spec(encode_job_spec(job)) == job


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ("{i: {prefix: s3://b/k/, source: s3://b/k}}", "one of them"),
        ("{i: {prefix: s3://b/k/, sha256: x}}", "an input with `prefix` has no 'sha256'"),
        ("{i: {prefix: 's3://bucket/k'}}", "end it with a slash"),
        ("{i: {prefix: 'https://bucket/k/'}}", "write s3://bucket/folder/"),
        ("{i: {artifacts: train}}", "names no job of a pipeline"),
        ("{i: {artifacts: train/Fit}}", "write PIPELINE/JOB"),
        ("{i: {prefix: s3://bucket/k/, path: ../x}}", "has '..' in it"),
        ("{i: {prefix: s3://bucket/k/, pattern: /x}}", "is an absolute path"),
        ("{i: {prefix: s3://bucket/k/, layout: round}}", "flat"),
    ],
)
def test_what_is_wrong_is_said(inputs: str, said: str, tmp_path: Path) -> None:
    assert any(said in one for one in complaints(written(inputs), tmp_path))


def test_places_of_files_are_checked(tmp_path: Path) -> None:
    inputs = "{task: {prefix: s3://bucket/k/}}"
    (only,) = complaints(written(inputs, "'python {inputs.tusk.entry}'"), tmp_path)
    assert "names no folder input of the job" in only
    assert "task" in only
    (only,) = complaints(written(inputs, "'python {inputs.task.requirements}'"), tmp_path)
    assert "is for the environment" in only


def test_a_message_names_one_kind_of_folder() -> None:
    message = encode_job_spec(spec.Job("a", ("x",), folders=(TREE,)))
    message.folders[0].artifacts = "p/j"
    with pytest.raises(WireError, match="either"):
        decode_job_spec(message)


def test_a_file_of_a_folder_input_is_not_missed_in_the_bundle() -> None:
    job = spec.Job(
        "a",
        ("python", "main.py"),
        environment=spec.Environment(steps=(spec.RequirementsStep("extra.txt"),)),
        folders=(TREE,),
    )
    pipeline = spec.Pipeline("p", (job,))
    assert not check_pipeline(pipeline, bundle_files=())


def test_the_originals_layout_becomes_one_folder() -> None:
    one = placed(
        FLAT,
        "Code/main.py",
        "Data/",
        "Data/iris.csv",
        "Model/pavan.h5",
        "Requirement/r.txt",
        "Results/out.txt",
    )
    assert {place: file.key for place, file in one.places()} == {
        "main.py": "Code/main.py",
        "iris.csv": "Data/iris.csv",
        "pavan.h5": "Model/pavan.h5",
        "r.txt": "Requirement/r.txt",
    }
    job = spec.Job("a", RUN, environment=RECIPE, folders=(FLAT,))
    check_folders(job, {"task": one})
    runs = resolved(job, {"task": one})
    assert runs.run == ("python", "main.py")
    assert runs.environment.steps == (spec.RequirementsStep("r.txt"),)


def test_a_tree_keeps_folders_and_no_requirements_are_no_step() -> None:
    one = placed(TREE, "Code/main.py", "Data/a/iris.csv")
    assert [place for place, _ in one.places()] == ["Code/main.py", "Data/a/iris.csv"]
    runs = resolved(spec.Job("a", RUN, environment=RECIPE, folders=(TREE,)), {"task": one})
    assert runs.run == ("python", "Code/main.py")
    assert not runs.environment.steps


def test_two_files_of_one_name_are_refused_with_both_keys() -> None:
    one = placed(FLAT, "Data/x.csv", "Input/x.csv")
    with pytest.raises(FolderError) as raised:
        check_folders(spec.Job("a", ("x",), folders=(FLAT,)), {"task": one})
    assert f"{TASK}Data/x.csv" in str(raised.value)
    assert f"{TASK}Input/x.csv" in str(raised.value)


def test_a_file_that_would_be_a_folder_is_refused() -> None:
    one = placed(TREE, "a", "a/b")
    with pytest.raises(FolderError, match="a file and"):
        check_folders(spec.Job("a", ("x",), folders=(TREE,)), {"task": one})


def test_two_inputs_do_not_share_a_place() -> None:
    file = spec.FileInput("model", "s3://b/m", "Model/m.h5")
    one = placed(TREE, "Model/m.h5")
    with pytest.raises(FolderError, match="the input 'model'"):
        check_folders(spec.Job("a", ("x",), files=(file,), folders=(TREE,)), {"task": one})


@pytest.mark.parametrize(
    ("entry", "keys", "said"),
    [
        ("", ("Code/a.py", "Code/b.py"), "Code/a.py, Code/b.py"),
        ("", ("Data/a.py",), "name the file that is to run"),
        ("c.py", ("Code/a.py",), "it has Code/a.py"),
        ("a.py", ("Code/a.py", "Code/x/a.py"), "Code/a.py, Code/x/a.py"),
    ],
)
def test_an_entry_that_is_not_clear_is_refused(
    entry: str, keys: tuple[str, ...], said: str
) -> None:
    folder = spec.FolderInput("task", prefix=TASK, entry=entry)
    job = spec.Job("a", RUN, folders=(folder,))
    with pytest.raises(FolderError) as raised:
        check_folders(job, {"task": placed(folder, *keys)})
    assert said in str(raised.value)


def test_an_entry_may_be_named_and_is_no_option() -> None:
    folder = spec.FolderInput("task", prefix=TASK, entry="-c.py", layout=spec.Layout.FLAT)
    one = placed(folder, "Code/-c.py", "Code/b.py")
    runs = resolved(spec.Job("a", RUN, folders=(folder,)), {"task": one})
    assert runs.run == ("python", "./-c.py")


@pytest.mark.parametrize("key", ["a/../b", "/a", "a//b", "a\0b", "x" * 256, "./a"])
def test_keys_that_cannot_be_files_are_refused(key: str) -> None:
    with pytest.raises(FolderError, match="rename it"):
        chosen(TREE, [ListedFile(key, 1)])


def test_a_folder_with_bytes_is_refused() -> None:
    with pytest.raises(FolderError, match="give it a name"):
        chosen(TREE, [ListedFile("Data/", 3)])


def test_a_listing_is_what_was_written() -> None:
    listing = FolderListing(TASK, (ListedFile("a", 1, '"x"'), ListedFile("b", 2, "", "0" * 64)))
    data = listing.encode()
    assert FolderListing.decode(data) == listing
    assert listing_digest(data) == listing_digest(FolderListing.decode(data).encode())
    for broken in (b"", b"[]", b"{}", b'{"format":2}', data[:-3]):
        with pytest.raises(ListingError):
            FolderListing.decode(broken)
