"""Dashboard, alerts and Prometheus' settings: they name metrics that there are."""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from crane_ray.runtime.metrics import METRICS
from tests.unit.cluster.files import CLUSTER, load
from tests.unit.cluster.kuberay_fields import problems
from tests.unit.cluster.monitoring_fields import KINDS

FOLDER = CLUSTER / "monitoring"
OURS = {metric.exported: metric for metric in METRICS.values()}
OF_RAY = {
    "ray_component_rss_bytes",
    "ray_node_cpu_count",
    "ray_node_cpu_utilization",
    "ray_node_disk_free",
    "ray_node_gpus_utilization",
    "ray_node_gram_used",
    "ray_node_mem_total",
    "ray_node_mem_used",
    "ray_node_network_receive_speed",
    "ray_node_network_send_speed",
}
"""Of Ray's own that are used; that Ray has them is tested below."""
LABELS_OF_RAY = {"SessionName", "NodeAddress", "WorkerId", "ip", "Component"}
WORDS = {
    "sum", "avg", "min", "max", "count", "rate", "increase", "by", "or", "vector", "scalar",
    "topk", "max_over_time",
}  # fmt: skip
PROMETHEUS_OWN = {"up": {"job", "instance"}}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "crane-ray.json").read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """All but the rows' headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = load("monitoring", "rules.yml")["groups"][0]["rules"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression with the panel or alert that has it."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


def names_in(expression: str) -> tuple[set[str], set[str]]:
    """The metrics and the labels that an expression names."""
    labels = {
        label.strip()
        for group in re.findall(r"\bby \(([^)]*)\)", expression)
        for label in group.split(",")
    }
    labels |= {
        label
        for matchers in re.findall(r"\{([^}]*)\}", expression)
        for label in re.findall(r"(\w+)\s*=", matchers)
    }
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\bby \([^)]*\)', " ", expression)
    words = set(re.findall(r"[a-zA-Z_:][\w:]*", re.sub(r"\b\d+(?:\.\d+)?(?:e\d+)?\b", " ", bare)))
    return words - WORDS, labels


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_an_expression_names_metrics_and_labels_that_are_exported(
    where: str, expression: str
) -> None:
    metrics, labels = names_in(expression)
    assert metrics, where
    known = OURS.keys() | OF_RAY | PROMETHEUS_OWN.keys()
    assert metrics <= known, f"{where}: {metrics - known}"
    tags = {tag for name in metrics & OURS.keys() for tag in OURS[name].tags}
    tags |= {tag for name in metrics & PROMETHEUS_OWN.keys() for tag in PROMETHEUS_OWN[name]}
    assert labels <= tags | LABELS_OF_RAY, f"{where}: {labels - tags - LABELS_OF_RAY}"
    for name in metrics & OURS.keys():
        if OURS[name].kind == "gauge":
            assert not re.search(rf"(rate|increase)\({name}\b", expression), where


def test_a_wrong_name_would_be_found() -> None:
    metrics, labels = names_in(
        'sum by (verb) (rate(ray_crane_ray_slide_total{stat="x"}[5m])) > 1e9'
    )
    assert metrics == {"ray_crane_ray_slide_total"}
    assert labels == {"verb", "stat"}


def test_ray_has_the_metrics_of_its_own_that_are_used() -> None:
    from ray.dashboard.modules.reporter import reporter_agent

    there = Path(reporter_agent.__file__).read_text()
    for name in OF_RAY:
        assert f'"{name.removeprefix("ray_")}"' in there, name


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {
        name for panel in panels() for one in panel["targets"] for name in names_in(one["expr"])[0]
    }
    assert OURS.keys() <= shown
    assert shown - OURS.keys() == OF_RAY


def test_the_dashboard_has_its_own_ids_and_asks_for_prometheus() -> None:
    board = dashboard()
    every = board["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert variables["session"]["datasource"] == source
    for panel in panels():
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["title"]
        assert panel["datasource"] == source
        ids = [target["refId"] for target in panel["targets"]]
        assert len(set(ids)) == len(ids) > 0
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert target["legendFormat"] or panel["type"] == "stat"
            assert 'SessionName=~"$session"' in target["expr"]
            used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert used <= names_in(target["expr"])[1], panel["title"]
    asked = set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - {"__all", "__range"}
    assert asked == set(variables)


def overlaps(board: list[dict[str, Any]]) -> list[str]:
    """Panels that lie on others, or off the grid of 24 columns."""
    taken: dict[tuple[int, int], str] = {}
    found = []
    for panel in board:
        at = panel["gridPos"]
        if at["x"] < 0 or at["x"] + at["w"] > 24:
            found.append(panel["title"])
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"])
                     for y in range(at["y"], at["y"] + at["h"])):  # fmt: skip
            if cell in taken:
                found.append(f"{panel['title']} on {taken[cell]}")
            taken[cell] = panel["title"]
    return found


def test_no_panel_lies_on_another() -> None:
    board = dashboard()["panels"]
    assert overlaps(board) == []
    moved = copy.deepcopy(board)
    moved[2]["gridPos"]["x"] -= 1
    assert overlaps(moved)


def promtool(*words: str) -> str:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-compose.yml"])
def test_prometheus_takes_its_settings_and_the_rules(name: str) -> None:
    settings = load("monitoring", name)
    (job,) = settings["scrape_configs"]
    assert job["job_name"] == "ray", "an alert asks for it"
    assert settings["rule_files"] == ["rules.yml"]
    promtool("check", "config", str(FOLDER / name))


def test_every_expression_parses(tmp_path: Path) -> None:
    filled = [
        {"record": f"r{n}", "expr": expr.replace("$session", ".*").replace("$__range", "1h")}
        for n, (_, expr) in enumerate(expressions())
    ]
    path = tmp_path / "all.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": filled}]}))
    assert f"{len(filled)} rules found" in promtool("check", "rules", str(path))


SESSION = 'SessionName="s"'
SERIES = {
    "CraneRayNoProgress": [(f'ray_crane_ray_quiet_seconds{{{SESSION},verb="extract"}}', "0+60x60")],
    "CraneRaySlidesFail": [
        (f'ray_crane_ray_slides_total{{{SESSION},verb="patch",status="failed"}}', "0+1x60"),
        (f'ray_crane_ray_slides_total{{{SESSION},verb="patch",status="done"}}', "0+2x60"),
    ],
    "CraneRayDecodeBound": [
        (f'ray_crane_ray_encoder_seconds_total{{{SESSION},state="decode_wait"}}', "0+40x60"),
        (f'ray_crane_ray_encoder_seconds_total{{{SESSION},state="encode"}}', "0+20x60"),
    ],
    "CraneRayStagingBound": [
        (f'ray_crane_ray_encoder_seconds_total{{{SESSION},state="staging_wait"}}', "0+40x60"),
        (f'ray_crane_ray_encoder_seconds_total{{{SESSION},state="encode"}}', "0+20x60"),
    ],
    "CraneRayCacheDiskFull": [
        (f'ray_crane_ray_cache_free_bytes{{{SESSION},NodeAddress="10.0.0.1"}}', "1500000000x60")
    ],
    "CraneRayStorageFails": [(f"ray_crane_ray_storage_retries_total{{{SESSION}}}", "0+20x60")],
    "CraneRayFoldsFail": [(f'ray_crane_ray_folds_total{{{SESSION},status="failed"}}', "0x30 1x30")],
    "CraneRayNodeNotScraped": [('up{job="ray",instance="10.0.0.1:8080"}', "0x60")],
}
"""By alert, series of an hour, a value a minute, at whose end it fires."""
CALM = [
    (f'ray_crane_ray_quiet_seconds{{{SESSION},verb="extract"}}', "5x60"),
    (f'ray_crane_ray_slides_total{{{SESSION},verb="patch",status="failed"}}', "0+1x60"),
    (f'ray_crane_ray_slides_total{{{SESSION},verb="patch",status="done"}}', "0+20x60"),
    (f'ray_crane_ray_encoder_seconds_total{{{SESSION},state="decode_wait"}}', "0+20x60"),
    (f'ray_crane_ray_encoder_seconds_total{{{SESSION},state="staging_wait"}}', "0+5x60"),
    (f'ray_crane_ray_encoder_seconds_total{{{SESSION},state="encode"}}', "0+40x60"),
    (f'ray_crane_ray_cache_free_bytes{{{SESSION},NodeAddress="10.0.0.1"}}', "9000000000x60"),
    (f"ray_crane_ray_storage_retries_total{{{SESSION}}}", "0+1x60"),
    (f'ray_crane_ray_folds_total{{{SESSION},status="failed"}}', "0x60"),
    ('up{job="ray",instance="10.0.0.1:8080"}', "1x60"),
]


@pytest.mark.parametrize("alert", SERIES)
def test_an_alert_fires_when_it_should_and_not_on_a_calm_run(alert: str, tmp_path: Path) -> None:
    for series, fires in ((SERIES[alert], True), (CALM, False)):
        query = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
        test = {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series],
            "promql_expr_test": [
                {"expr": query, "eval_time": "1h",
                 "exp_samples": [{"labels": "{}", "value": int(fires)}]}
            ],
        }  # fmt: skip
        whole = {"rule_files": [str(FOLDER / "rules.yml")], "evaluation_interval": "1m"}
        path = tmp_path / "test.yml"
        path.write_text(yaml.safe_dump({**whole, "tests": [test]}))
        promtool("test", "rules", str(path))


def test_every_alert_is_tried_and_says_what_to_do() -> None:
    assert {rule["alert"] for rule in rules()} == set(SERIES)
    for rule in rules():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.parametrize(
    ("file", "kind"), [("podmonitor", "PodMonitor"), ("prometheusrule", "PrometheusRule")]
)
def test_kubernetes_resources_have_the_operators_fields(file: str, kind: str) -> None:
    resource = load("monitoring", "kuberay", f"{file}.yaml")
    assert (resource["apiVersion"], resource["kind"]) == ("monitoring.coreos.com/v1", kind)
    assert problems(resource["spec"], KINDS[kind]) == []
    wrong = copy.deepcopy(resource["spec"])
    first = next(iter(wrong.values())) if kind == "PrometheusRule" else wrong["podMetricsEndpoints"]
    first[0]["intervall"] = "1m"
    assert problems(wrong, KINDS[kind]) != []


def test_pods_of_ray_are_scraped_and_alerts_are_the_same_everywhere() -> None:
    spec = load("monitoring", "kuberay", "podmonitor.yaml")["spec"]
    assert spec["selector"]["matchLabels"] == {"ray.io/is-ray-node": "yes"}
    (endpoint,) = spec["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    assert {"targetLabel": "job", "replacement": "ray"} in endpoint["relabelings"]
    rule = load("monitoring", "kuberay", "prometheusrule.yaml")
    assert rule["spec"] == load("monitoring", "rules.yml")


def test_kubectl_puts_the_folder_together() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: it puts the manifests together")
    words = ["kubectl", "kustomize", str(FOLDER)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resources = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    assert set(resources) == {"PodMonitor", "PrometheusRule", "ConfigMap"}
    assert resources["ConfigMap"]["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert json.loads(resources["ConfigMap"]["data"]["crane-ray.json"]) == dashboard()


def test_compose_mounts_what_is_here_and_scrapes_its_nodes() -> None:
    compose = yaml.safe_load((CLUSTER / "docker" / "compose.yaml").read_text())
    services = compose["services"]
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["monitoring"], "only when it is asked for"
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
        for volume in services[name]["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (CLUSTER / "docker" / source).is_file(), source
            else:
                assert source in compose["volumes"]
    (job,) = load("monitoring", "prometheus-compose.yml")["scrape_configs"]
    nodes = [name for name, service in services.items() if "profiles" not in service]
    assert job["static_configs"] == [{"targets": [f"{name}:8080" for name in nodes]}]
    for name in nodes:
        assert "--metrics-export-port 8080" in services[name]["command"]
    provider = load("monitoring", "grafana", "dashboards.yaml")["providers"][0]
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/crane-ray.json" in mounted
    (source,) = load("monitoring", "grafana", "datasources.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
