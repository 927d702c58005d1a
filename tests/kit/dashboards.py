"""The dashboards of deploy/grafana, made by Grafana's own typed SDK.

`python -m tests.kit.dashboards` writes them. A source of data called `prometheus` is asked; each panel has the
expressions that the lane of metrics sends to a real Prometheus.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from tests.kit.tree import ROOT

FOLDER: Final = ROOT / "deploy" / "grafana"
_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="prometheus")
_WIDTH: Final = 12
_HEIGHT: Final = 8


@dataclass(frozen=True, slots=True)
class PanelPlan:
    """One panel: its title, the unit as Grafana calls it, and its expressions with their legends."""

    title: str
    unit: str
    queries: Mapping[str, str]


DASHBOARDS: Final[Mapping[str, tuple[str, Sequence[PanelPlan]]]] = {
    "cluster": (
        "Shoal: cluster",
        (
            PanelPlan("Nodes", "short", {"shoal_controller_nodes": "{{state}}"}),
            PanelPlan("Attempts on nodes", "short", {"shoal_controller_attempts": "{{state}}"}),
            PanelPlan(
                "Waiting and open",
                "short",
                {
                    "shoal_controller_jobs_waiting": "jobs that wait",
                    "shoal_controller_pipelines_open": "open pipelines",
                    "shoal_controller_dead_letters": "dead letters",
                },
            ),
            PanelPlan("Attempts that end", "ops", {"shoal:attempts_ended:rate5m": "{{outcome}}"}),
            PanelPlan(
                "Why attempts do not succeed",
                "ops",
                {
                    "sum by (reason) "
                    '(rate(shoal_controller_attempts_ended_total{outcome!="succeeded"}[5m])) > 0': "{{reason}}"
                },
            ),
            PanelPlan(
                "Pipelines that end",
                "ops",
                {
                    "sum by (outcome) (rate(shoal_controller_pipelines_ended_total[5m]))": "{{outcome}}"
                },
            ),
            PanelPlan(
                "From submission to the first attempt",
                "s",
                {
                    "shoal:job_wait_seconds:p99_5m": "99 of 100 within",
                    "histogram_quantile(0.5, sum by (le) "
                    "(rate(shoal_controller_job_wait_seconds_bucket[5m])))": "half within",
                },
            ),
            PanelPlan(
                "How long programs run",
                "s",
                {
                    "shoal:attempt_run_seconds:p50_5m": "half within",
                    "rate(shoal_controller_attempt_run_seconds_sum[5m]) "
                    "/ rate(shoal_controller_attempt_run_seconds_count[5m])": "mean",
                },
            ),
            PanelPlan(
                "Cores claimed", "percentunit", {"shoal:cores_claimed:ratio": "of those offered"}
            ),
            PanelPlan("Memory", "bytes", {"shoal_controller_memory_bytes": "{{share}}"}),
            PanelPlan(
                "Open pipelines by identity",
                "short",
                {"topk(10, shoal_controller_pipelines_open_of)": "{{identity}}"},
            ),
            PanelPlan(
                "Members of gossip", "short", {"shoal_gossip_members": "{{state}} at {{instance}}"}
            ),
        ),
    ),
    "nodes": (
        "Shoal: nodes",
        (
            PanelPlan("Session", "short", {"shoal_node_up": "{{node}}"}),
            PanelPlan("Attempts", "short", {"shoal_node_attempts": "{{node}}"}),
            PanelPlan("Processors", "percentunit", {"shoal_node_cpu_ratio": "{{node}}"}),
            PanelPlan(
                "Memory available", "bytes", {"shoal_node_memory_available_bytes": "{{node}}"}
            ),
            PanelPlan(
                "Free on the fullest disk", "bytes", {"shoal_node_disk_free_bytes": "{{node}}"}
            ),
            PanelPlan("Hottest zone", "celsius", {"shoal_node_temperature_celsius": "{{node}}"}),
            PanelPlan("Not heard for", "s", {"shoal_node_silent_seconds": "{{node}}"}),
            PanelPlan(
                "Agents: phases of attempts",
                "short",
                {"sum by (phase) (shoal_agent_attempts)": "{{phase}}"},
            ),
            PanelPlan(
                "Agents: artifacts that wait", "bytes", {"shoal_agent_spool_bytes": "{{instance}}"}
            ),
            PanelPlan(
                "Agents: power", "watt", {"shoal_agent_power_watts": "{{rail}} at {{instance}}"}
            ),
        ),
    ),
    "processes": (
        "Shoal: controller, agents and gateways as processes",
        (
            PanelPlan(
                "CPU",
                "percentunit",
                {'rate(process_cpu_seconds_total{job=~"shoal-.*"}[5m])': "{{job}} {{instance}}"},
            ),
            PanelPlan(
                "Memory",
                "bytes",
                {'process_resident_memory_bytes{job=~"shoal-.*"}': "{{job}} {{instance}}"},
            ),
            PanelPlan(
                "Open files",
                "percentunit",
                {
                    'process_open_fds{job=~"shoal-.*"} / process_max_fds{job=~"shoal-.*"}': (
                        "{{job}} {{instance}}"
                    )
                },
            ),
            PanelPlan(
                "Calls",
                "reqps",
                {
                    "topk(10, sum by (method) (rate(shoal_controller_calls_total[5m])))": "{{method}}"
                },
            ),
            PanelPlan(
                "Calls refused",
                "reqps",
                {"sum by (reason) (rate(shoal_controller_calls_refused_total[5m]))": "{{reason}}"},
            ),
            PanelPlan(
                "Transactions", "ops", {"rate(shoal_controller_commits_total[5m])": "{{instance}}"}
            ),
            PanelPlan(
                "What waits to leave",
                "short",
                {
                    "shoal_controller_outbox_rows": "rows",
                    "shoal_controller_outbox_oldest_seconds": "seconds since the first",
                },
            ),
            PanelPlan("Disk of the controller", "percentunit", {"shoal:disk_free:ratio": "free"}),
            PanelPlan(
                "Gossip",
                "Bps",
                {
                    "sum by (direction) (rate(shoal_gossip_bytes_total[5m]))": "{{direction}}",
                },
            ),
            PanelPlan(
                "Calls of browsers",
                "reqps",
                {"topk(10, sum by (method) (rate(shoal_gateway_calls_total[5m])))": "{{method}}"},
            ),
            PanelPlan(
                "Calls of browsers that came to nothing",
                "reqps",
                {
                    "sum by (reason) (rate(shoal_gateway_calls_refused_total[5m]))": "refused: {{reason}}",
                    "sum by (code) (rate(shoal_gateway_calls_failed_total[5m]))": "failed: {{code}}",
                },
            ),
            PanelPlan(
                "What browsers watch",
                "short",
                {
                    "shoal_gateway_watches": "watches {{instance}}",
                    "shoal_gateway_connections": "connections {{instance}}",
                    "rate(shoal_gateway_messages_total[5m])": "messages a second {{instance}}",
                },
            ),
            PanelPlan(
                "Collections of figures",
                "s",
                {"shoal_metrics_collect_seconds": "{{job}} {{instance}}"},
            ),
        ),
    ),
}


def made(name: str) -> str:
    """A dashboard as Grafana imports it."""
    title, plans = DASHBOARDS[name]
    builder = dashboard.Dashboard(title)
    builder = builder.uid(f"shoal-{name}").tags(["shoal"]).refresh("30s").time("now-3h", "now")
    for plan in plans:
        panel = timeseries.Panel().title(plan.title).unit(plan.unit).datasource(_SOURCE)
        panel = panel.span(_WIDTH).height(_HEIGHT).min(0)
        for letter, (expression, legend) in zip("ABCDEFG", plan.queries.items(), strict=False):
            query = prometheus.Dataquery().expr(expression).legend_format(legend)
            panel = panel.with_target(query.ref_id(letter))
        builder = builder.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=2).encode(builder.build()) + "\n"


def expressions(text: str) -> Iterable[tuple[str, str]]:
    """Yield the title of each panel of a dashboard with each of its expressions."""
    for panel in cast("dict[str, Any]", json.loads(text))["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def write(folder: Path = FOLDER) -> None:
    """Write all of them."""
    folder.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (folder / f"{name}.json").write_text(made(name))


if __name__ == "__main__":
    write()
