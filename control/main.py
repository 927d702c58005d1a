"""`shoal controller`: the root of a controller's process; configuration is read here, once."""

import gc
import random
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import click

from services.membership.options import gossip_options, gossip_settings
from services.metrics.options import metrics_option
from services.runtime.process import StartRefusedError, run
from services.runtime.process_options import begin_log, process_options
from services.runtime.settings_file import read_settings, use_settings
from services.traces.options import traces_options

_YOUNG_OBJECTS = 20_000
_YOUNG_COLLECTIONS = 5
"""After how many new objects, and how many such looks, the young ones are looked at for garbage.

A job makes some 150 objects that stay until it has ended, so looking at each 700, as is usual, finds none and costs a
tenth of what the controller needs for it. Garbage that waits for the next look has a few MiB at most.
"""


def _use_file(context: click.Context, path: Path) -> None:
    use_settings(context, read_settings(context, path))


@click.command(context_settings={"auto_envvar_prefix": "SHOAL_CONTROLLER", "show_default": True})
@process_options(
    "~/.local/state/shoal/controller", "the controller", "written with underscores", _use_file
)
@click.option(
    "--name", default="controller", help="Name in gossip and at the broker, unique in the cluster."
)
@click.option(
    "--grpc",
    default="127.0.0.1:7470",
    metavar="HOST:PORT",
    help="Where people and agents dial, and prove who they are.",
)
@click.option(
    "--newcomers",
    default=None,
    metavar="HOST:PORT",
    help='Where a join token is taken for a certificate; "off" for nowhere.  [default: two ports above '
    "--grpc]",
)
@click.option(
    "--insecure/--no-insecure",
    default=False,
    help="Serve every caller in the clear, and believe what it says of itself.",
)
@click.option(
    "--authority-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    show_default=False,
    help="PEM file with key and certificate (P-256) of an authority of your own, for the first start.  "
    "[default: one is made]",
)
@gossip_options("SHOAL_CONTROLLER", None, "  [default: port 7946 on the host of --grpc]", "--join")
@click.option(
    "--archive",
    default="",
    show_default=False,
    metavar="URL",
    help="file:///folder or s3://bucket/prefix?endpoint=https://host&region=…; credentials in "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.  [default: the folder archive of --state]",
)
@click.option(
    "--legacy-results",
    default="",
    show_default=False,
    metavar="URL",
    help="Where results are copied of pipelines with compat.legacy_results, as USER/ACTION/TASK/Results/: "
    "file:///folder or s3://bucket/prefix?endpoint=https://host&region=…  [default: that of --archive]",
)
@click.option(
    "--objects",
    default=None,
    metavar="HOST:PORT",
    help="Where agents and people read and write an archive that is a folder.  [default: port 7471 "
    "on the host of --grpc]",
)
@click.option(
    "--objects-url",
    default="",
    show_default=False,
    metavar="URL",
    help="http[s]://HOST:PORT under which agents and people reach the archive, a folder or a bucket, where it is "
    "another one than this controller knows: behind NAT, in a container.  "
    "[default: that of --objects, or of --archive]",
)
@click.option(
    "--mqtt",
    default="",
    show_default=False,
    metavar="URL",
    help="Broker: mqtt://user@host:1883 or mqtts://user@host:8883?ca=FILE&certificate=FILE&key=FILE "
    "(docs/mqtt.md has all options). A password may stand behind the user, but every user of the machine can "
    "read a command line: rather use --mqtt-password-file, or set SHOAL_CONTROLLER_MQTT.  [default: none; "
    "events are kept]",
)
@click.option(
    "--mqtt-password-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    show_default=False,
    help="File (chmod 600) whose first line is the broker's password; read anew with each connection.",
)
@click.option(
    "--source-endpoint",
    default="",
    show_default=False,
    metavar="URL",
    help="S3 server of s3:// file inputs.  [default: that of --archive, else Amazon's]",
)
@click.option(
    "--source-buckets",
    multiple=True,
    metavar="BUCKET",
    help="Bucket that any pipeline may read with s3://BUCKET/key, with this controller's "
    "credentials; may be repeated.  [default: none but the namespace's own part of --archive]",
)
@click.option("--source-region", default="us-east-1", help="Region of --source-endpoint.")
@click.option(
    "--lease-seconds",
    type=float,
    default=6.0,
    help="How long an agent may be silent before its jobs run elsewhere.",
)
@click.option(
    "--heartbeat-seconds",
    type=float,
    default=None,
    help="How often an agent speaks at least.  [default: a sixth of the lease]",
)
@click.option(
    "--unplaced-seconds",
    type=float,
    default=30.0,
    help="How long a job may wait for a node before an event over MQTT tells of it.",
)
@click.option(
    "--still-seconds",
    type=float,
    default=60.0,
    help="How long a stream of a running job may stand still before an event over MQTT tells of it.",
)
@click.option(
    "--url-expires-seconds",
    type=int,
    default=6 * 3600,
    help="How long presigned addresses are good.",
)
@click.option(
    "--dead-letters",
    type=int,
    default=1_000,
    help="How many pipelines that failed are kept until they are revived or discarded.",
)
@click.option(
    "--dead-letter-days",
    type=float,
    default=90.0,
    help="For how many days they are kept.",
)
@click.option(
    "--keep-results",
    default="forever",
    metavar="DAYS",
    help="For how many days committed results are kept, or forever.",
)
@click.option(
    "--keep-attempts-days",
    type=float,
    default=30.0,
    help="For how many days the archive keeps what attempts left that did not succeed; that of dead letters "
    "stays as long as they do.",
)
@click.option(
    "--keep-bundles-days",
    type=float,
    default=30.0,
    help="For how many days the archive keeps bundles that no remembered pipeline needs.",
)
@click.option(
    "--caller-calls",
    type=float,
    default=1000.0,
    help="Calls that one identity may begin a second.",
)
@click.option(
    "--caller-watches",
    type=int,
    default=1000,
    help="Watches, logs, taps, lanes and sessions that one identity may have open.",
)
@click.option(
    "--caller-pipelines",
    type=int,
    default=100_000,
    help="Pipelines of one identity that have not ended.",
)
@click.option(
    "--caller-spec-bytes",
    type=int,
    default=4 << 30,
    help="Bytes of specifications that one identity may submit within an hour.",
)
@click.option(
    "--caller-bundle-bytes",
    type=int,
    default=256 << 30,
    help="Bytes of bundles that one identity may upload within an hour.",
)
@metrics_option("127.0.0.1:7473")
@traces_options
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="File to write the addresses to as JSON, once they are served.",
)
def controller(**given: Any) -> None:
    """Run a controller: it takes pipelines, places their jobs on nodes, and remembers.

    Everything that it has acknowledged survives its end, however sudden; agents and their jobs go
    on meanwhile. SIGTERM, or the end of its terminal, ends it in good order.

    Every option can also be set by a variable (SHOAL_CONTROLLER_GRPC, SHOAL_CONTROLLER_JOIN,
    several values between blanks) or in the file of --config. Flags win over variables, and those
    over the file.

    \b
    Examples:
      shoal controller --grpc 10.0.0.1:7470
      shoal controller --archive 's3://shoal/main?endpoint=http://10.0.0.9:9000' --mqtt mqtt://10.0.0.9
    """  # noqa: D301 - click wants the control character
    from control.config import (  # noqa: PLC0415 - for a quick --help
        GOSSIP_PORT,
        OBJECTS_PORT,
        ControllerConfig,
        neighbour,
        newcomers_beside,
    )
    from services.archive.s3_server import S3Server  # noqa: PLC0415
    from services.events.broker_url import parse_url  # noqa: PLC0415
    from services.identity.authority import AuthorityError  # noqa: PLC0415
    from services.identity.cluster_identity import read_authority  # noqa: PLC0415
    from services.membership.settings import ConfigError  # noqa: PLC0415
    from services.runtime.open_files import allow_open_files  # noqa: PLC0415
    from services.runtime.secret_option import check_secret, warn_of_visible  # noqa: PLC0415

    begin_log("controller", given)
    allow_open_files()
    ready_file: Path | None = given.pop("ready_file")
    mqtt, password_file = given.pop("mqtt"), given.pop("mqtt_password_file")
    endpoint, region = given.pop("source_endpoint"), given.pop("source_region")
    for option, port in (("gossip", GOSSIP_PORT), ("objects", OBJECTS_PORT)):
        if given[option] is None:
            given[option] = neighbour(given["grpc"], port)
    if given["newcomers"] is None:
        given["newcomers"] = "" if given["insecure"] else newcomers_beside(given["grpc"])
    elif given["newcomers"] == "off":
        given["newcomers"] = ""
    authority_file: Path | None = given.pop("authority_file")
    if password_file is not None:
        check_secret(password_file)
    given["keep_results_days"] = _days(given.pop("keep_results"))
    if given["heartbeat_seconds"] is None:
        given["heartbeat_seconds"] = given["lease_seconds"] / 6
    try:
        config = ControllerConfig(
            **gossip_settings(given),
            broker=mqtt,
            broker_password_file=password_file,
            sources=S3Server(endpoint, region) if endpoint else None,
            authority=read_authority(authority_file.read_bytes()) if authority_file else None,
            **given,
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except (AuthorityError, OSError) as error:
        raise click.UsageError(f"--authority-file {authority_file}: {error}") from error
    instead = {"gossip_key": "--gossip-keyring", "serf_rpc_auth": "SHOAL_CONTROLLER_SERF_RPC_AUTH"}
    if mqtt and parse_url(mqtt).password:
        instead["mqtt"] = "--mqtt-password-file"
    warn_of_visible(click.get_current_context(), instead)
    gc.disable()  # nothing that an import makes is garbage, and `run` enables it again
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_COLLECTIONS)
    from control.controller import (  # noqa: PLC0415
        Controller,
        ControllerAddresses,
        ControllerProcess,
        write_ready_file,
    )

    def ready(addresses: ControllerAddresses) -> None:
        words = (f"{key}={value}" for key, value in addresses.as_json().items() if value)
        click.echo(f"controller ready {' '.join(words)}")
        if ready_file is None:
            return
        try:
            write_ready_file(ready_file, addresses)
        except OSError as error:
            raise StartRefusedError(
                f"--ready-file {ready_file} cannot be written: {error.strerror}; name a file in a "
                "folder where this user may write"
            ) from error

    process = ControllerProcess(
        clock=time.monotonic,
        boottime=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        wall=time.time,
        rng=random.Random(),
        token=lambda characters: secrets.token_hex((characters + 1) // 2)[:characters],
    )
    sys.exit(run(Controller(config, process, ready).run, uvloop=True))


def _days(word: str) -> float | None:
    """Read a number of days; None for ever."""
    if word == "forever":
        return None
    try:
        return float(word.removesuffix("d"))
    except ValueError:
        raise click.UsageError(
            f"--keep-results {word!r} is no number of days: write 90, or forever"
        ) from None
