"""`shoal intake`: the root of an intake's process; configuration is read here, once."""

import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from services.runtime.process import run
from services.runtime.process_options import begin_log, process_options
from services.runtime.settings_file import read_settings, use_settings


def _use_file(context: click.Context, path: Path) -> None:
    use_settings(context, read_settings(context, path))


@click.command(context_settings={"auto_envvar_prefix": "SHOAL_INTAKE", "show_default": True})
@process_options("~/.local/state/shoal/intake", "the intake", "written with underscores", _use_file)
@click.option("--name", default="shoal-intake", help="Its client id at the broker, unique there.")
@click.option(
    "--controller",
    default="127.0.0.1:7470",
    metavar="HOST:PORT",
    help="Where the controller listens.",
)
@click.option("--namespace", default="default", help="Whose pipelines are submitted.")
@click.option(
    "--identity",
    default="",
    show_default=False,
    metavar="FOLDER",
    help="Credentials of a submitter, as `shoal login --identity FOLDER` makes them.  [default: those of the "
    "cluster of `shoal up`, or of `shoal login`]",
)
@click.option(
    "--insecure/--no-insecure",
    default=False,
    help="Prove nothing, as a controller with --insecure wants it.",
)
@click.option(
    "--task-queue",
    multiple=True,
    metavar="QUEUE[=TEMPLATE]",
    help="Queue of SQS with task messages, by name or address, and a template of its own; may be repeated.",
)
@click.option(
    "--task-topic",
    multiple=True,
    metavar="TOPIC[=TEMPLATE]",
    help="Topic of MQTT with task messages; may be repeated.",
)
@click.option(
    "--upload-queue",
    multiple=True,
    metavar="QUEUE=TEMPLATE",
    help="Queue of SQS that S3, or a topic of SNS, tells of new objects; may be repeated.",
)
@click.option(
    "--node-queue",
    multiple=True,
    metavar="QUEUE",
    help="Queue of SQS with questions about nodes; may be repeated.",
)
@click.option(
    "--node-topic",
    multiple=True,
    metavar="TOPIC",
    help="Topic of MQTT with questions about nodes; may be repeated.",
)
@click.option(
    "--template",
    type=click.Path(path_type=Path),
    default=None,
    show_default=False,
    metavar="FILE",
    help="Specification that is filled with the fields of a task message.  [default: the shipped one]",
)
@click.option(
    "--bucket",
    default="",
    show_default=False,
    help="Bucket with the folders of tasks: the value `bucket` of their template.  [default: a field of the "
    "message]",
)
@click.option(
    "--dead-queue",
    default="",
    show_default=False,
    metavar="QUEUE",
    help="Queue of SQS for messages of queues that are refused.  [default: the folder dead-letters of --state]",
)
@click.option(
    "--dead-topic",
    default="",
    show_default=False,
    metavar="TOPIC",
    help="Topic of MQTT for messages of topics that are refused.  [default: that folder]",
)
@click.option(
    "--sqs-endpoint",
    default="",
    show_default=False,
    metavar="URL",
    help="Server of the queues; credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.  [default: Amazon's]",
)
@click.option("--sqs-region", default="us-east-1", help="Region of the queues.")
@click.option(
    "--mqtt",
    default="",
    show_default=False,
    metavar="URL",
    help="Broker of the topics, written as for `shoal controller`.  [default: none]",
)
@click.option(
    "--mqtt-password-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    show_default=False,
    help="File (chmod 600) whose first line is the broker's password; read anew with each connection.",
)
@click.option(
    "--held-messages",
    type=int,
    default=100,
    help="How many messages of one queue or topic may be under way at once.",
)
@click.option(
    "--tries",
    type=int,
    default=5,
    help="How often a message may be refused before it is put aside.",
)
@click.option(
    "--try-seconds",
    type=float,
    default=1.0,
    help="How long to wait after the first refusal; the wait doubles, up to a minute.",
)
@click.option(
    "--hidden-seconds",
    type=float,
    default=60.0,
    help="How long a received message is hidden from other receivers; asked for again while it is under way.",
)
def intake(**given: Any) -> None:
    """Make pipelines of messages: from queues of SQS, uploads to S3, and topics of MQTT.

    A message is deleted only after its pipeline is recorded, and its id makes one pipeline for 15 days, however
    often it is delivered. A message that is refused five times is put aside with the reason. No outage of
    controller, broker, S3 or SQS counts as a refusal.

    Every option can also be set by a variable (SHOAL_INTAKE_TASK_QUEUE, several values between blanks) or
    in the file of --config. Flags win over variables, and those over the file.

    \b
    Examples:
      shoal intake --task-queue taskQ1 --bucket uploads --dead-queue taskQ1-dead
      shoal intake --upload-queue scans=scan.yaml --controller 10.0.0.1:7470
      shoal intake --task-topic tasks --mqtt mqtt://10.0.0.9
    """  # noqa: D301 - click wants the control character
    from services.events.broker_url import BrokerUrlError, parse_url  # noqa: PLC0415 - for a quick --help
    from services.intake.config import (  # noqa: PLC0415
        IntakeConfig,
        IntakeConfigError,
        source_settings,
    )
    from services.intake.message import MessageKind  # noqa: PLC0415
    from services.runtime.secret_option import check_secret, warn_of_visible  # noqa: PLC0415
    from shoal.cli.identity_folder import identity_folder  # noqa: PLC0415

    begin_log("intake", given)
    password_file: Path | None = given["mqtt_password_file"]
    if password_file is not None:
        check_secret(password_file)
    try:
        broker = parse_url(given["mqtt"]) if given["mqtt"] else None
        template: Path | None = given["template"]
        config = IntakeConfig(
            state=given["state"],
            name=given["name"],
            controller=given["controller"],
            namespace=given["namespace"],
            identity=None
            if given["insecure"]
            else identity_folder(given["identity"], given["controller"]),
            sources=[
                *source_settings(given["task_queue"], MessageKind.TASK, template),
                *source_settings(given["task_topic"], MessageKind.TASK, template, topic=True),
                *source_settings(given["upload_queue"], MessageKind.UPLOAD, None),
                *source_settings(given["node_queue"], MessageKind.QUESTION, None),
                *source_settings(given["node_topic"], MessageKind.QUESTION, None, topic=True),
            ],
            bucket=given["bucket"],
            dead_queue=given["dead_queue"],
            dead_topic=given["dead_topic"],
            sqs_endpoint=given["sqs_endpoint"],
            sqs_region=given["sqs_region"],
            broker=None if broker is None else replace(broker, password_file=password_file),
            held_max=given["held_messages"],
            tries=given["tries"],
            try_seconds=given["try_seconds"],
            hidden_seconds=given["hidden_seconds"],
            health_file=given["health_file"],
        )
    except (IntakeConfigError, BrokerUrlError) as error:
        raise click.UsageError(str(error)) from error
    if broker is not None and broker.password:
        warn_of_visible(click.get_current_context(), {"mqtt": "--mqtt-password-file"})
    from services.intake.intake import Intake, IntakeProcess  # noqa: PLC0415

    process = IntakeProcess(
        clock=time.monotonic,
        boottime=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        wall=time.time,
        chance=random.Random().random,
    )
    names = ", ".join(source.name for source in config.sources)
    ready = Intake(config, process, lambda: click.echo(f"intake ready {names}"))
    sys.exit(run(ready.run))
