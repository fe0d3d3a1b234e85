"""The samples of deployment hold together: nothing here needs a docker daemon or a cluster."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "examples/service"
PORT = 8000
DOCKERFILES = sorted(FOLDER.glob("Dockerfile.*"))
# What the service counts; compared with its own module below.
METRICS = {
    "cellscribe_requests_total", "cellscribe_errors_total", "cellscribe_queue_cells", "cellscribe_slots",
    "cellscribe_slots_in_use", "cellscribe_tokens_total", "cellscribe_cells_total",
    "cellscribe_time_to_first_token_seconds", "cellscribe_time_per_token_seconds", "cellscribe_cell_latency_seconds",
    "cellscribe_queue_seconds", "cellscribe_cancelled_total", "cellscribe_uploads", "cellscribe_build_info",
}  # fmt: skip
HISTOGRAMS = {name for name in METRICS if name.endswith("_seconds")}
LABELS = {
    "cellscribe_requests_total": {"route", "code"},
    "cellscribe_errors_total": {"kind"},
    "cellscribe_cells_total": {"task", "status"},
    "cellscribe_cell_latency_seconds": {"task"},
    "cellscribe_cancelled_total": {"reason"},
}
# Of prometheus_client, on Linux.
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"}


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def option(arguments: list[str], name: str) -> int:
    return int(arguments[arguments.index(name) + 1])


def queries() -> list[str]:
    board = json.loads((FOLDER / "grafana/dashboards/cellscribe.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def documents(kind: str) -> list[Any]:
    found = [one for path in (FOLDER / "kubernetes").glob("*.yaml") for one in yaml.safe_load_all(path.read_text())]
    return [one for one in found if one["kind"] == kind]


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.y*ml")), ids=lambda path: path.name)
def test_yaml_can_be_read(path: Path) -> None:
    assert list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    asked = set()
    for query in queries():
        for name in re.findall(r"\b(?:cellscribe|process)_[a-z_]+", query):
            bare = name.removesuffix("_bucket")
            assert bare in METRICS | PROCESS, name
            assert (name != bare) == (bare in HISTOGRAMS), f"{name}: quantiles are of buckets, and only those"
            asked.add(bare)
            labels = set(re.findall(r"by \(([^)]*)\)", query.split(name)[0])[-1:])
            wanted = {one.strip() for group in labels for one in group.split(",")} - {"le", "instance"}
            assert wanted <= LABELS.get(bare, set()), query
    assert asked >= METRICS, sorted(METRICS - asked)


def test_the_metrics_are_those_of_the_service() -> None:
    if find_spec("cellscribe.engine.service") is None or find_spec("cellscribe.engine.service.metrics") is None:
        pytest.skip("the service is not part of this package")
    path = find_spec("cellscribe.engine.service.metrics").origin  # type: ignore[union-attr]
    said = set(re.findall(r"[\"'](cellscribe_[a-z_]+)[\"']", Path(str(path)).read_text(encoding="utf-8")))

    def bare(names: set[str]) -> set[str]:
        """Leave out what prometheus_client adds to names by itself."""
        return {name.removesuffix("_total").removesuffix("_info") for name in names}

    assert bare(said) == bare(METRICS)


def test_panels_lie_side_by_side_and_ask_the_provisioned_datasource() -> None:
    board = json.loads((FOLDER / "grafana/dashboards/cellscribe.json").read_text(encoding="utf-8"))
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["datasource"]["uid"] == source["uid"]
    services = load("compose.yaml")["services"]
    assert source["url"] == "http://prometheus:9090"
    assert "127.0.0.1:9090:9090" in services["prometheus"]["ports"]
    (provider,) = load("grafana/provisioning/dashboards/cellscribe.yaml")["providers"]
    mounts = dict(one.split(":")[:2] for one in services["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]


def test_compose_prometheus_and_images_agree_on_ports_and_health() -> None:
    services = load("compose.yaml")["services"]
    service = services["cellscribe"]
    assert service["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert option(service["command"], "--port") == PORT
    assert int(service["stop_grace_period"].removesuffix("s")) > option(service["command"], "--grace")
    assert f"127.0.0.1:{PORT}/health/ready" in service["healthcheck"]["test"][-1]
    (job,) = load("prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"cellscribe:{PORT}"]}]
    (secret,) = services["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    for name, one in services.items():
        assert "healthcheck" in one, name
        assert all(port.startswith("127.0.0.1:") for port in one["ports"]), "listening beyond loopback is asked for"
    for path in DOCKERFILES:
        text = path.read_text(encoding="utf-8")
        assert f"EXPOSE {PORT}" in text
        assert f"http://127.0.0.1:{PORT}/health/live" in text
        assert f'"--port", "{PORT}"' in text


def test_services_have_no_rights_that_they_do_not_need() -> None:
    for name, one in load("compose.yaml")["services"].items():
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert one["logging"]["options"]["max-size"], name
        # Compose writes a secret that comes from the environment into the file system of the container.
        assert one.get("read_only", False) != ("secrets" in one), name
    overlay = load("compose.cuda.yaml")["services"]["cellscribe"]
    (device,) = overlay["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_what_compose_mounts_and_builds_from_is_there() -> None:
    services = load("compose.yaml")["services"]
    for one in services.values():
        for mount in one["volumes"]:
            source = mount.split(":")[0] if not mount.startswith("${") else mount.split(":-")[1].split("}")[0]
            assert not source.startswith(".") or (FOLDER / source).exists(), source
    for name in ("compose.yaml", "compose.cuda.yaml"):
        build = load(name)["services"]["cellscribe"]["build"]
        assert (ROOT / build["dockerfile"]).is_file()


def test_pods_have_probes_a_gpu_and_time_to_finish() -> None:
    (deployment,) = documents("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    (port,) = container["ports"]
    assert port["containerPort"] == PORT == option(container["args"], "--port")
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/health/ready", "readiness": "/health/ready", "liveness": "/health/live"}
    assert all(container[f"{name}Probe"]["httpGet"]["port"] == port["name"] for name in paths)
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pod["terminationGracePeriodSeconds"] > wait + option(container["args"], "--grace")
    assert pod["securityContext"]["runAsNonRoot"]
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["volumes"]}


def test_kubernetes_documents_mean_the_same_pods_and_the_same_secret() -> None:
    (deployment,), (service,) = documents("Deployment"), documents("Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    for kind in ("PodDisruptionBudget", "ServiceMonitor"):
        (one,) = documents(kind)
        assert one["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (variable,) = container["env"]
    (endpoint,) = documents("ServiceMonitor")[0]["spec"]["endpoints"]
    assert variable["name"] == "CELLSCRIBE_API_KEY"
    assert variable["valueFrom"]["secretKeyRef"] == endpoint["authorization"]["credentials"]
    assert not documents("Secret")  # keys are made by hand
    listed = load("kubernetes/kustomization.yaml")["resources"]
    assert all((FOLDER / "kubernetes" / name).is_file() for name in listed)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_install_extras_that_there_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if not (ROOT / "cellscribe/cli/serve.py").is_file():
        pytest.skip("the service is not part of this package")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", text, re.MULTILINE)
    assert "serve" in extras.split(",")
    assert set(extras.split(",")) <= set(known)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_small_and_run_without_rights(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    assert len(stages) == 2
    assert ".[${EXTRAS}]" in stages[0]
    assert "--constraint constraints.txt" in stages[0]
    assert "g++" not in stages[1]
    assert re.search(r"^USER 10001$", stages[1], re.MULTILINE)
    assert "--uid 10001 --gid 10001" in stages[1]
    assert not re.search(r"KEY=|PASSWORD=|TOKEN=", text)
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    for name in ("pyproject.toml", "constraints.txt", "CMakeLists.txt", "cellscribe", "engine", "export", "kernels"):
        assert f"!{name}\n" in kept, name
        assert (ROOT / name).exists()


def test_tags_of_images_are_versions() -> None:
    images = [one["image"] for one in load("compose.yaml")["services"].values() if "build" not in one]
    for path in DOCKERFILES:
        text = path.read_text(encoding="utf-8")
        given = dict(re.findall(r"^ARG (\w+)=(\S*)$", text, re.MULTILINE))
        for name, value in given.items():
            text = text.replace(f"${{{name}}}", value)
        images += re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(images) == 6
    for image in images:
        name, _, tag = image.rpartition(":")
        assert name, image
        assert re.match(r"v?\d+\.\d+", tag), image
