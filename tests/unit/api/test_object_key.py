"""Where things lie in the archive."""

import pytest

from control.front.object_key import bundle_key, wrong_key
from services.archive.artifact_key import artifact_key
from services.archive.key import InvalidKeyError
from shoal.model import Artifact
from shoal.names import AttemptRef

REF = AttemptRef("ns", "p-1", "a-0", number=2, epoch=5)
PREFIX = "ns/pipelines/p-1/jobs/a-0/attempts/5-2"


def test_artifacts_lie_under_out_and_logs_beside_it() -> None:
    assert artifact_key(REF, "results/x") == f"{PREFIX}/out/results/x"
    assert artifact_key(REF, "stdout") == f"{PREFIX}/stdout"
    assert artifact_key(REF, "out/stdout") == f"{PREFIX}/out/out/stdout"
    assert bundle_key("ab") == "bundles/sha256/ab"


@pytest.mark.parametrize("path", ["", "/x", "../x", "a/../x", "a//b", "."])
def test_no_path_leads_out(path: str) -> None:
    with pytest.raises(InvalidKeyError):
        artifact_key(REF, path)


def test_a_key_that_is_not_the_artifacts_own_is_named() -> None:
    good = Artifact("x", 1, "ab" * 32, f"{PREFIX}/out/x")
    assert wrong_key(REF, [good]) == ""
    older = Artifact("x", 1, "ab" * 32, good.key.replace("5-2", "4-1"))
    assert "4-1" in wrong_key(REF, [good, older])
    assert "'..'" in wrong_key(REF, [Artifact("../x", 1, "ab" * 32, good.key)])
