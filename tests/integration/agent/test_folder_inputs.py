"""Folder inputs on a board: asked for again after a session broke, fetched anew from fresh addresses, kept."""

from pathlib import Path

from shoal.folder_listing import FolderListing, ListedFile
from shoal.model import JobState
from shoal.names import AttemptRef
from shoal.spec import FolderInput, Job, Layout
from tests.integration.agent.board import Board
from tests.integration.agent.test_offline_reboot import reboot, results
from tests.kit.until import until

FOLDER = FolderInput("task", prefix="s3://bucket/task/", layout=Layout.FLAT)
FILES = {
    "Code/main.sh": b"cat a.txt b.txt > results/x; until test -e $1; do sleep 0.05; done\n",
    "Data/a.txt": b"one ",
    "Input/b.txt": b"two",
}


def run(board: Board, gate: Path) -> AttemptRef:
    """Want a job to run whose files are on the board's object server."""
    listing = FolderListing(
        FOLDER.prefix, tuple(ListedFile(key, len(data)) for key, data in sorted(FILES.items()))
    )
    board.controller.folder_files = [
        board.objects.add(FILES[file.key], file.key)[1] for file in listing.files
    ]
    digest, url = board.objects.add(listing.encode())
    job = Job("a", ("sh", "main.sh", str(gate)), folders=(FOLDER,))
    return board.run(job, listings={"task": digest}, file_urls={"task": url})


async def test_addresses_are_asked_for_again_in_the_next_session(board: Board) -> None:
    gate = board.agent.state / "gate"
    gate.touch()
    board.controller.holds_files = True
    ref = run(board, gate)
    wanted = board.controller.files_wanted
    await until(lambda: wanted, 20, "a request for addresses")
    await board.controller.stop()
    board.controller.holds_files = False
    await board.controller.start()
    assert await board.end(ref) is JobState.SUCCEEDED, board.controller.reason(ref)
    assert len(wanted) == 2
    assert wanted[0] == wanted[1]
    assert board.artifact(ref, "results/x") == b"one two"


async def test_a_folder_is_there_again_after_a_reboot_without_network(board: Board) -> None:
    gate = board.agent.state / "gate"
    ref = run(board, gate)
    await until(lambda: results(board, ref).exists(), 20, "its result")
    results(board, ref).unlink()
    gets = board.objects.gets
    await reboot(board, controller=False)
    await until(lambda: results(board, ref).exists(), 30, f"it again\n{board.agent.log()[-2000:]}")
    assert board.objects.gets == gets
    assert len(board.controller.files_wanted) == 1
    await board.controller.start()
    board.objects.away = False
    gate.touch()
    assert await board.end(ref) is JobState.SUCCEEDED
    assert board.artifact(ref, "results/x") == b"one two"


async def test_a_listing_that_names_no_files_for_its_entry_fails_the_attempt(board: Board) -> None:
    """A controller of another version might pin what this agent cannot run: it says so."""
    listing = FolderListing(FOLDER.prefix, (ListedFile("Data/a.txt", 4),))
    board.controller.folder_files = [board.objects.add(b"one ", "a")[1]]
    digest, url = board.objects.add(listing.encode())
    job = Job("a", ("python", "{inputs.task.entry}"), folders=(FOLDER,))
    ref = board.run(job, listings={"task": digest}, file_urls={"task": url})
    assert await board.end(ref) is JobState.FAILED
    code, _, message = board.controller.reason(ref)
    assert code == "FETCH"
    assert "name the file that is to run" in message
