"""Tables of what the controller knows, drawn with rich."""

from collections.abc import Callable, Iterable
from datetime import datetime

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shoal import view
from shoal.cli.figures import (
    age_text,
    bytes_text,
    counted,
    path_text,
    scale_text,
    state_style,
    state_word,
    values_lines,
)
from shoal.cli.progress import Row
from shoal.model import JobState, MemberState, PipelineState
from shoal.trace_context import TraceContext


def console(*, stderr: bool = False) -> Console:
    """Make a console that shows words as they are, and every column in full when piped."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False, emoji=False, markup=False)
    if not made.is_terminal:
        made.width = 1_000
    return made


def show(renderable: RenderableType, *, stderr: bool = False) -> None:
    """Print a table; into a pipe or file without the blanks that fill its last column."""
    screen = console(stderr=stderr)
    if screen.is_terminal:
        screen.print(renderable)
        return
    with screen.capture() as captured:
        screen.print(renderable)
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), err=stderr)


def redrawn(screen: Console, draw: Callable[[], RenderableType]) -> Live:
    """Make what draws anew again and again while it is entered; other output stays where it is."""
    return Live(
        console=screen,
        get_renderable=draw,
        refresh_per_second=4,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def make_table(*columns: str) -> Table:
    """Make an empty table; a column that begins with > is aligned to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        right = column.startswith(">")
        table.add_column(
            column.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    return table


def _state(state: JobState | PipelineState | MemberState) -> Text:
    return Text(state_word(state), style=state_style(state))


def jobs_table(rows: Iterable[Row]) -> Table:
    """Show the jobs of a pipeline."""
    table = make_table("job", "state", "node", ">attempt", "records", "")
    for row in rows:
        table.add_row(
            row.job.id,
            _state(row.job.state),
            row.job.node,
            str(len(row.job.attempts) or ""),
            row.flow,
            Text(row.text, style="dim"),
        )
    return table


def headline(pipeline: view.PipelineView, now: datetime) -> Text:
    """Say how a pipeline stands in one line."""
    line = Text(pipeline.id, style="bold")
    line.append("  ")
    line.append(state_word(pipeline.state), style=state_style(pipeline.state))
    if pipeline.create_time is not None:
        end = pipeline.end_time or now
        verb = "took" if pipeline.end_time else "for"
        line.append(f"  {verb} {age_text(pipeline.create_time, end)}", style="dim")
    if pipeline.creator:
        line.append(f"  by {pipeline.creator}", style="dim")
    if pipeline.stored:
        line.append(f"  of {pipeline.stored}", style="dim")
    if pipeline.revived_from:
        line.append(f"  revived from {pipeline.revived_from}", style="dim")
    if pipeline.revived_by:
        line.append(f"  revived as {pipeline.revived_by}", style="dim")
    if pipeline.finish_time is not None and not pipeline.state.terminal:
        line.append(f"  finishing for {age_text(pipeline.finish_time, now)}", style="yellow")
    if pipeline.prefetch is not None:
        line.append(f"  {_prefetched(pipeline.prefetch)}", style="dim")
    if pipeline.traceparent:
        line.append(f"  trace {TraceContext.of(pipeline.traceparent).trace_id}", style="dim")
    if pipeline.reason.code:
        line.append(f"  {pipeline.reason.short}", style="red")
    return line


def _prefetched(prefetch: view.PrefetchView) -> str:
    return f"prefetched on {prefetch.present} of {counted(prefetch.nodes, 'node')}"


def pipeline_group(pipeline: view.PipelineView, rows: Iterable[Row], now: datetime) -> Group:
    """Show a pipeline with its values and jobs, and how many replicas were asked for since."""
    values = [Text(line, style="dim") for line in values_lines(pipeline.spec.parameters)]
    scales = [Text(scale_text(scale)) for scale in pipeline.scales]
    return Group(headline(pipeline, now), *values, jobs_table(rows), *scales)


def pipelines_table(pipelines: Iterable[view.PipelineSummary], now: datetime) -> Table:
    """Show many pipelines, one a line."""
    table = make_table("pipeline", "state", ">jobs", ">age", ">took", "by", "reason")
    for pipeline in pipelines:
        counts = pipeline.job_counts
        took = ""
        if pipeline.create_time and pipeline.end_time:
            took = age_text(pipeline.create_time, pipeline.end_time)
        table.add_row(
            pipeline.id,
            _state(pipeline.state),
            f"{counts.get(JobState.SUCCEEDED, 0)}/{sum(counts.values())}",
            age_text(pipeline.create_time, now),
            took,
            pipeline.creator,
            pipeline.reason.short,
        )
    return table


def listed_jobs_table(jobs: Iterable[view.JobView], now: datetime) -> Table:
    """Show jobs of many pipelines, each with its newest attempt."""
    table = make_table("job", "state", "node", ">attempt", ">since", "reason", "")
    for job in jobs:
        newest = job.attempts[-1] if job.attempts else None
        times = () if newest is None else (newest.end_time, newest.start_time, newest.create_time)
        table.add_row(
            job.name.removeprefix("pipelines/").replace("/jobs/", "/"),
            _state(job.state),
            "" if newest is None else newest.node,
            "" if newest is None else str(newest.number),
            age_text(next(filter(None, times), None), now),
            job.reason.short,
            Text(job.waiting_for or job.progress, style="dim"),
        )
    return table


def totals_table(totals: view.PipelineTotals) -> Table:
    """Show how many pipelines and jobs are in each state."""
    table = make_table("state", ">pipelines", ">jobs")
    of_jobs = {state.name: count for state, count in totals.jobs.items()}
    of_pipelines = {state.name: count for state, count in totals.pipelines.items()}
    for state in (*PipelineState, *JobState):
        pipelines, jobs = of_pipelines.pop(state.name, 0), of_jobs.pop(state.name, 0)
        if pipelines or jobs:
            table.add_row(
                _state(state), f"{pipelines:,}" if pipelines else "", f"{jobs:,}" if jobs else ""
            )
    return table


def artifacts_table(jobs: Iterable[view.JobView]) -> Table:
    """Show the manifests of jobs: each artifact's path, bytes and SHA-256."""
    table = make_table("job", "artifact", ">bytes", "SHA-256")
    for job in jobs:
        for artifact in job.artifacts:
            size = f"{artifact.size_bytes:,}"
            table.add_row(job.id, path_text(artifact.path), size, artifact.sha256)
    return table


def node_state(node: view.NodeView) -> str:
    """Say in a word or two how a node stands: `ready`, `away`, `drained, away`."""
    state = "drained" if node.drained else "ready" if node.connected else "away"
    if state == "ready" and node.refuses:
        state = "refuses"
    state = "quarantined" if node.quarantine else state
    return state if node.connected or state == "away" else f"{state}, away"


def nodes_table(nodes: Iterable[view.NodeView], now: datetime, *, watched: bool = False) -> Table:
    """Show nodes: how they stand, what they have, and what of it is claimed.

    Of those that are `watched` a controller does not say each sign of life, so no age is shown while they
    have a session.
    """
    table = make_table(
        "node",
        "state",
        "member",
        ">cores",
        ">memory",
        "devices",
        ">attempts",
        "sandbox",
        "labels",
        "version",
        "seen",
        "",
    )
    for node in nodes:
        state = node_state(node)
        word = state.partition(",")[0]
        style = {"ready": "green", "drained": "yellow", "refuses": "yellow"}.get(word, "red")
        table.add_row(
            node.name,
            Text(state, style=style),
            _state(node.member_state),
            f"{node.claimed.cpus:g}/{node.capacity.cpus:g}",
            f"{bytes_text(node.claimed.memory_bytes)}/{bytes_text(node.capacity.memory_bytes)}",
            " ".join(node.capacity.devices),
            str(len(node.attempts)),
            node.sandbox.default.value if node.sandbox else "",
            _pairs(node.labels.items()),
            _versions(node),
            _seen(node, now, watched=watched),
            Text(node.refuses, style="dim"),
        )
    return table


def _seen(node: view.NodeView, now: datetime, *, watched: bool) -> str:
    if watched and node.connected:
        return "now"
    return f"{age_text(node.last_seen_time, now)} ago" if node.last_seen_time else ""


def _versions(node: view.NodeView) -> str:
    """The agent's version, and those of its keeper and stream worker where they are others."""
    parts = {"keeper": node.keeper_version, "streams": node.stream_worker_version}
    others = [
        f"{part} {version}"
        for part, version in parts.items()
        if version and version != node.agent_version
    ]
    return f"{node.agent_version} ({', '.join(others)})" if others else node.agent_version


def _pairs(items: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(items))


def members_table(members: Iterable[view.MemberView], now: datetime) -> Table:
    """Show the members of the gossip cluster."""
    table = make_table("member", "state", "address", ">incarnation", ">since", "tags")
    for member in members:
        host = f"[{member.address}]" if ":" in member.address else member.address
        table.add_row(
            member.name,
            _state(member.state),
            f"{host}:{member.port}",
            str(member.incarnation),
            age_text(member.state_time, now),
            _pairs(member.tags.items()),
        )
    return table


def keys_table(report: view.KeysReport) -> Table:
    """Show the keys that seal gossip, and how many members have them."""
    table = make_table("key", "", ">installed on", ">seals on")
    for number, key in enumerate(report.keys):
        use = Text("in use", style="green") if number == 0 and key.primary else Text("")
        table.add_row(
            key.id, use, f"{key.installed}/{report.members}", f"{key.primary}/{report.members}"
        )
    return table


def events_table(events: Iterable[view.Event]) -> Table:
    """Show events, oldest first."""
    table = make_table("time", "type", "id", "published")
    for event in events:
        moment = event.time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if event.time else ""
        published = Text("yes", style="green") if event.published else Text("not yet")
        if event.problem:
            published = Text(event.problem, style="red")
        table.add_row(moment, event.type, event.id, published)
    return table


def verdicts_table(verdicts: Iterable[view.NodeVerdict]) -> Table:
    """Show what the scheduler thinks of each node, the best first."""
    table = make_table("node", "", ">score", "because")
    for verdict in sorted(verdicts, key=lambda item: (not item.feasible, -item.score, item.node)):
        possible = Text("possible", style="green") if verdict.feasible else Text("no", style="red")
        score = f"{verdict.score:.2f}" if verdict.feasible else ""
        table.add_row(verdict.node, possible, score, verdict.sentence)
    return table
