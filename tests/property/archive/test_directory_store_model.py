"""A folder behaves as a mapping, whatever is put in whichever order."""

import asyncio
import itertools
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from services.archive.directory_store import INCOMING, DirectoryStore
from services.archive.key import InvalidKeyError
from services.archive.object_store import PutOutcome
from services.archive.signature import PathSigner

SIGNER = PathSigner("http://127.0.0.1:1", b"0123456789abcdef")
KEYS = st.lists(st.sampled_from(["a", "b", "ab", "a-", "ö", INCOMING]), min_size=1, max_size=3).map(
    "/".join
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "put_if_absent"]), KEYS, st.binary(max_size=3)),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_a_folder_is_a_mapping(steps: list[tuple[str, str, bytes]]) -> None:
    asyncio.run(compare(steps))


async def compare(steps: list[tuple[str, str, bytes]]) -> None:
    model: dict[str, bytes] = {}
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as folder:
        store = DirectoryStore(
            Path(folder), signer=SIGNER, wall=lambda: 0.0, new_id=lambda: str(next(numbers))
        )
        async with store:
            for step, key, data in steps:
                try:
                    await take(store, model, step, key, data)
                except InvalidKeyError:
                    # Its first part is taken, or a folder stands there and stays there.
                    assert key.startswith(INCOMING) or key not in model
            for key, data in model.items():
                assert await store.get(key) == data
        found = {path for path in Path(folder).rglob("*") if path.is_file()}
        assert found == {Path(folder) / key for key in model}
        assert not list((Path(folder) / INCOMING).iterdir())


async def take(
    store: DirectoryStore, model: dict[str, bytes], step: str, key: str, data: bytes
) -> None:
    match step:
        case "put":
            await store.put(key, data)
            model[key] = data
        case _:
            outcome = await store.put(key, data, if_absent=True)
            assert outcome is (PutOutcome.EXISTS if key in model else PutOutcome.STORED)
            model.setdefault(key, data)
