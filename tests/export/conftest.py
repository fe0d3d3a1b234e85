from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the export extra is not installed")
