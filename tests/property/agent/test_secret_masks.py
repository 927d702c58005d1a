"""However a log grows and is read, what is shipped of it has no secret and is as long as it is."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.logs import _Followed
from edge_agent.long_work import done_at_once
from edge_agent.secrets.masked_file import mask_file
from edge_agent.secrets.secret_mask import SecretMask
from shoal.names import AttemptRef
from shoal.view import LogStream

REF = AttemptRef("default", "p", "a", 1, 1)
# Few letters, so that values overlap each other, begin again within themselves, and are cut at each place.
VALUES = st.lists(st.text("ab\n*", min_size=4, max_size=9).map(str.encode), min_size=1, max_size=3)
GROWTH = st.lists(st.text("ab\n*", max_size=20).map(str.encode), max_size=6)
SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=8)


@given(VALUES, GROWTH, SIZES, st.data())
def test_pieces_are_what_the_whole_would_be(
    values: list[bytes], growth: list[bytes], sizes: list[int], data: st.DataObject
) -> None:
    mask = SecretMask(values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdout"
        path.touch()
        followed = _Followed(REF, LogStream.STDOUT, str(path), mask)
        shipped = b""
        for more in [*growth, b""]:
            with path.open("ab") as log:
                log.write(more)
            if data.draw(st.booleans()):
                followed.sent = data.draw(st.integers(0, followed.sent))  # what was not confirmed
                shipped = shipped[: followed.sent]
            for size in sizes:
                piece = followed.read(size)
                shipped += piece
                followed.sent += len(piece)
        followed.ended = True
        while piece := followed.read(sizes[0]):
            shipped += piece
            followed.sent += len(piece)
        whole = b"".join(growth)
        assert shipped == mask.hide(whole, ended=True)
        assert len(shipped) == len(whole)
        done_at_once(mask_file(path, mask, sizes[0]))
        assert path.read_bytes() == shipped


@given(VALUES, st.text("abc\n*x", max_size=60).map(str.encode))
def test_nothing_but_values_is_hidden_and_each_of_them_is(values: list[bytes], text: bytes) -> None:
    mask = SecretMask(values)
    hidden = mask.hide(text)
    for value in values:
        core = value.strip()
        at = text.find(core) if len(core) >= 4 else -1
        while at >= 0:
            assert set(hidden[at : at + len(core)]) <= set(b"*\n")
            at = text.find(core, at + 1)
    if not any(form in text for form in mask._forms):
        assert hidden == text
