"""Uploads live in one pod: where there are several, clients are held to theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cellscribe.engine.service.limits import ServiceLimits

yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")
FOLDER = Path(__file__).resolve().parents[3] / "examples/service/kubernetes"


def document(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))["spec"]


def bytes_of(size: str) -> int:
    number, unit = size[:-2], size[-2:].lower()
    return int(number) << {"mi": 20, "gi": 30}[unit]


def test_uploads_fit_the_disk_that_they_have() -> None:
    pod = document("deployment.yaml")["template"]["spec"]
    (scratch,) = [one["emptyDir"]["sizeLimit"] for one in pod["volumes"] if one["name"] == "scratch"]
    compose = yaml.safe_load((FOLDER.parent / "compose.yaml").read_text(encoding="utf-8"))["services"]["cellscribe"]
    (tmpfs,) = [one.split("size=")[1].split(",")[0] for one in compose["tmpfs"] if one.startswith("/tmp:")]
    for size, arguments in ((scratch, pod["containers"][0]["args"]), (tmpfs[:-1] + "gi", compose["command"])):
        told = arguments[arguments.index("--max-disk-mb") + 1]
        assert ServiceLimits().disk_bytes < int(told) * 1_000_000 <= 0.9 * bytes_of(size)


def test_clients_stay_with_the_pod_that_has_their_uploads() -> None:
    service, replicas = document("service.yaml"), document("deployment.yaml")["replicas"]
    assert replicas == 1 or service["sessionAffinity"] == "ClientIP"
    assert service["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"] >= ServiceLimits().upload_s
