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


def test_clients_stay_with_the_pod_that_has_their_uploads() -> None:
    service, replicas = document("service.yaml"), document("deployment.yaml")["replicas"]
    assert replicas == 1 or service["sessionAffinity"] == "ClientIP"
    assert service["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"] >= ServiceLimits().upload_s
