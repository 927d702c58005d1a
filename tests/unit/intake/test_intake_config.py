"""What an intake may be told, and what is refused with a remedy."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from services.events.broker_url import parse_url
from services.intake.config import IntakeConfig, IntakeConfigError, SourceSettings, source_settings
from services.intake.main import intake
from services.intake.message import MessageKind
from services.intake.pipeline_template import SHIPPED

TASKS = SourceSettings("q", MessageKind.TASK, SHIPPED)
TOPIC = SourceSettings("t", MessageKind.TASK, SHIPPED, topic=True)


def config(*sources: SourceSettings, **changes: object) -> IntakeConfig:
    settings: dict[str, object] = {
        "state": Path("/s"),
        "name": "i",
        "controller": "h:1",
        "namespace": "default",
        "identity": None,
        **changes,
    }
    return IntakeConfig(sources=sources, **settings)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_source_has_the_shipped_template_or_one_of_its_own() -> None:
    own = Path("/t.yaml")
    found = source_settings(["q", "http://h/1/q2=/mine.yaml"], MessageKind.TASK, None)
    assert [(one.name, one.template) for one in found] == [
        ("sqs:q", SHIPPED),
        ("sqs:http://h/1/q2", Path("/mine.yaml")),
    ]
    [topic] = source_settings(["a/+"], MessageKind.TASK, own, topic=True)
    assert (topic.name, topic.template) == ("mqtt:a/+", own)
    [question] = source_settings(["n"], MessageKind.QUESTION, None)
    assert question.template is None


@pytest.mark.parametrize(
    ("sources", "changes", "words"),
    [
        ((), {}, "nothing to take messages from"),
        ((TASKS, TASKS), {}, "named twice"),
        ((TOPIC,), {}, "need a broker"),
        ((TASKS,), {"dead_topic": "d"}, "need a broker"),
        ((TASKS,), {"dead_queue": "q"}, "also a source"),
        ((TASKS,), {"controller": "nowhere"}, "nowhere"),
        ((TASKS,), {"name": "a b"}, "client id"),
        ((TASKS,), {"tries": 0}, "--tries"),
        ((TASKS,), {"held_max": 0}, "--held-messages"),
        ((TASKS,), {"hidden_seconds": 7200.0}, "3600 at most"),
    ],
)
def test_what_cannot_be_is_refused(
    sources: tuple[SourceSettings, ...], changes: dict[str, object], words: str
) -> None:
    with pytest.raises(IntakeConfigError, match=words):
        config(*sources, **changes)
    assert config(TASKS, TOPIC, broker=parse_url("mqtt://h")).tries == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to take messages from"),
        (["--upload-queue", "q"], "need a template"),
        (["--task-queue", "=x"], "names no queue"),
        (["--task-topic", "t", "--mqtt", "http://h"], "the broker's address"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(intake, [*arguments, "--state", str(tmp_path), "--insecure"])
    assert done.exit_code == 2
    assert words in done.output
