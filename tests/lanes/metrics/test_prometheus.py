"""A real Prometheus scrapes a real cluster, and every expression that is shipped has data."""

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from compose.local_cluster import LocalCluster, LocalClusterConfig
from control.front.controller_figures import CONTROLLER_FIGURES
from edge_agent.agent_figures import AGENT_FIGURES
from services.gateway.gateway_figures import GATEWAY_FIGURES
from services.metrics.figure import LEFT_OUT, Figure, FigureKind
from shoal.credentials import write_credentials
from shoal.identity import Role
from shoal.spec import Job, Pipeline
from tests.kit.controller_credentials import credentials_of
from tests.kit.dashboards import DASHBOARDS, FOLDER, expressions, made
from tests.kit.ports import quiet_port
from tests.kit.prometheus import Prometheus, promtool
from tests.kit.running_gateway import RunningGateway
from tests.kit.span_collector import SpanCollector, span_collector
from tests.kit.tree import ROOT
from tests.kit.tx2_tree import Tx2Tree
from tests.kit.until import until

SHIPPED = ROOT / "deploy" / "prometheus"
RULES = ("rules.yml", "alerts.yml")
NOT_HERE = {LEFT_OUT.name, "shoal_gossip_dropped_total"}
"""Figures without a series while all is well."""
COMPARED = re.compile(r" (==|>=|>|<) ")


def rules() -> list[Mapping[str, str]]:
    """All that is recorded, and all alerts."""
    files: list[Any] = [yaml.safe_load((SHIPPED / name).read_text()) for name in RULES]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def test_promtool_is_content_with_rules_alerts_and_configuration() -> None:
    promtool(SHIPPED, "check", "rules", *RULES)
    promtool(SHIPPED, "check", "config", "--syntax-only", "prometheus.yml")
    assert "SUCCESS" in promtool(SHIPPED, "test", "rules", "test.yml")


def test_each_rule_and_each_alert_is_tested() -> None:
    tested = (SHIPPED / "test.yml").read_text()
    names = [rule.get("alert") or rule["record"] for rule in rules()]
    assert len(names) == len(set(names))
    assert [name for name in names if name not in tested and name != "shoal:disk_free:ratio"] == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_as_it_is_made(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == made(name), "run: make dashboards"


def configuration(folder: Path, controller: int, agent: int, gateway: int) -> Path:
    """The shipped configuration, scraping this cluster, and more often."""
    text = (SHIPPED / "prometheus.yml").read_text()
    for shipped, here in (
        ("/etc/prometheus/shoal", str(folder)),
        ("10.0.0.1:7473", f"127.0.0.1:{controller}"),
        ("127.0.0.1:7474", f"127.0.0.1:{agent}"),
        ("127.0.0.1:7475", f"127.0.0.1:{gateway}"),
        ("_interval: 15s", "_interval: 1s"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    for name in RULES:
        (folder / name).write_text((SHIPPED / name).read_text())
    (folder / "prometheus.yml").write_text(text)
    return folder / "prometheus.yml"


@dataclass(frozen=True)
class Scraped:
    """What is scraped, and the token of a user of the gateway."""

    prometheus: Prometheus
    cluster: LocalCluster
    gateway: RunningGateway
    ann: str


@contextlib.asynccontextmanager
async def scraped_cluster(
    folder: Path, patch: pytest.MonkeyPatch, collector: SpanCollector
) -> AsyncIterator[Scraped]:
    """A cluster with identity and a broker: its controller is scraped over HTTPS, agent and gateway on loopback."""
    controller, agent, gateway = quiet_port(), quiet_port(), quiet_port()
    board = folder / "board"
    board.mkdir()
    Tx2Tree(board)
    load = board / "proc" / "stat"
    load.unlink(missing_ok=True)
    load.symlink_to("/proc/stat")  # that of this machine, since it has to go on
    patch.setenv("SHOAL_AGENT_METRICS", f"127.0.0.1:{agent}")
    patch.setenv("SHOAL_AGENT_FACTS_ROOT", str(board))
    config = LocalClusterConfig(
        state=folder / "cluster",
        agents=1,
        controller_environ={
            "SHOAL_CONTROLLER_METRICS": f"0.0.0.0:{controller}",
            "SHOAL_CONTROLLER_TRACES": collector.url,
        },
    )
    async with LocalCluster(config) as cluster:
        proof = credentials_of(config.state / "controller", Role.VIEWER, "prometheus")
        (folder / "identity.pem").write_bytes(proof.key + proof.certificate)
        (folder / "authorities.pem").write_bytes(proof.authorities)
        file = configuration(folder, controller, agent, gateway)
        promtool(folder, "check", "config", str(file))
        web = folder / "web"
        write_credentials(web, credentials_of(config.state / "controller", Role.GATEWAY, "web"))
        words = ("--identity", str(web), "--metrics", f"127.0.0.1:{gateway}")
        async with (
            RunningGateway(folder / "gateway", cluster.controller_address, *words) as browsers,
            Prometheus(folder, file) as prometheus,
        ):
            yield Scraped(prometheus, cluster, browsers, browsers.allow("ann"))


async def play(cluster: LocalCluster) -> None:
    """Let jobs succeed, and one fail."""
    good = Pipeline(name="good", jobs=(Job("main", ("true",)),))
    bad = Pipeline(name="bad", jobs=(Job("main", ("false",)),))
    async with cluster.client() as client:
        refs = [await client.submit(one) for one in (*[good] * 5, bad)]
        for ref in refs:
            await client.when(ref.pipeline.id, lambda view: view.state.terminal)
        await client.node("node-1", fresh_facts=True)  # its agent looks at the board again


async def browse(scraped: Scraped) -> None:
    """Let a browser ask, and a stranger."""
    assert (await scraped.gateway.ask("NodesService/ListNodes", scraped.ann))[0] == 200
    assert (await scraped.gateway.ask("NodesService/ListNodes", "guessed"))[0] == 401


async def test_a_real_run_gives_every_expression_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        span_collector() as collector,
        scraped_cluster(tmp_path, monkeypatch, collector) as scraped,
    ):
        prometheus, cluster = scraped.prometheus, scraped.cluster

        async def is_up() -> bool:
            found = await prometheus.query("up")
            return len(found) == 3 and all(one["value"][1] == "1" for one in found)

        await until(is_up, 30, "all three are scraped")
        asked = {name: name for name in expected_names()}
        for name in DASHBOARDS:
            text = (FOLDER / f"{name}.json").read_text()
            asked |= {f"{name}: {title}: {expr}": expr for title, expr in expressions(text)}
        for rule in rules():
            if "alert" in rule:
                # Without its threshold: what an alert compares has to be there while all is well.
                asked[f"alert {rule['alert']}"] = COMPARED.sub(r" \1 bool ", rule["expr"])
            else:
                asked[f"rule {rule['record']}"] = rule["record"]
        missing = dict(asked)

        async def all_have_data() -> bool:
            await browse(scraped)
            await play(cluster)  # more of it, so that there are rises between two scrapes
            for what, expression in tuple(missing.items()):
                if await prometheus.query(expression):
                    del missing[what]
            return not missing

        try:
            await until(all_have_data, 20, "every expression has data")
        except AssertionError as error:
            raise AssertionError(f"no data: {sorted(missing)}") from error
        await series_are_bounded(prometheus)
        [failed] = await prometheus.query(
            'shoal_controller_attempts_ended_total{outcome="failed", reason="EXIT"}'
        )
        assert float(failed["value"][1]) >= 1
        alerts = (await prometheus.ask("alerts"))["alerts"]
        assert [one for one in alerts if one["state"] == "firing"] == []


def expected_names() -> set[str]:
    """What all processes have to tell, as Prometheus calls it."""
    figures: set[Figure] = {*CONTROLLER_FIGURES, *AGENT_FIGURES, *GATEWAY_FIGURES}
    return {
        f"{one.name}_bucket" if one.kind is FigureKind.HISTOGRAM else one.name
        for one in figures
        if one.name not in NOT_HERE
    }


async def series_are_bounded(prometheus: Prometheus) -> None:
    """No figure has more series than its catalogue says, and none is told that stands in no catalogue."""
    most = {
        one.name: one.series_max for one in (*CONTROLLER_FIGURES, *AGENT_FIGURES, *GATEWAY_FIGURES)
    }
    counted = await prometheus.query(
        'count by (__name__, instance) ({__name__=~"shoal_.*", __name__!~".*_(bucket|sum|count)"})'
    )
    assert counted
    for one in counted:
        name = one["metric"]["__name__"]
        assert int(one["value"][1]) <= most[name], name
