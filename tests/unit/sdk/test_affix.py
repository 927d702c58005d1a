"""Names beside other names (K8)."""

from pathlib import Path

import pytest

from shoal.affix import beside


@pytest.mark.parametrize("length", [1, 200, 250, 251, 255])
def test_k8_a_name_with_an_affix_is_a_name(tmp_path: Path, length: int) -> None:
    for letter in ("x", "é"):
        path = tmp_path / (letter * (length // len(letter.encode())))
        part = beside(path, ".part")
        part.touch()
        assert part.parent == path.parent
        assert part != path
        assert part.name.endswith(".part")
        assert beside(path, ".part") == part
        if length < 250:
            assert part.name == f"{path.name}.part"
