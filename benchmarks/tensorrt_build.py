"""What does building the 4090's plans of a full-size model take? ``python benchmarks/tensorrt_build.py WORK_DIR``.

Writes benchmarks/results/tensorrt_build.json: seconds, peak memory and plan sizes of building a lingocell-1.1b in half
precision (random weights, exported into WORK_DIR unless it is there) with TensorRT for RTX, ahead of time and without a
GPU. Nothing is run: this says nothing about how fast the plans are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from hardware import hardware
from results_folder import results_folder

from cellscribe.engine.backends.tensorrt import find_plans
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.versions import versions

SHAPE, TARGET, SLOTS, TOKENS = "lingocell-1.1b", "rtx4090", (32, 96), 96
CELLSCRIBE = (sys.executable, "-m", "cellscribe")


def main() -> None:
    work = Path(sys.argv[1])
    bundle = work / f"{SHAPE}-fp16"
    if not bundle.is_dir():
        export = ("export", "--random", "--shape", SHAPE, "--precision", "fp16", str(bundle))
        subprocess.run([*CELLSCRIBE, *export], check=True)
    rows = [build(bundle, work / "plans", slots) for slots in SLOTS]
    result = {"shape": SHAPE, "target": TARGET, "rows": rows, "hardware": hardware(), "versions": versions()}
    (results_folder() / "tensorrt_build.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def build(bundle: Path, plans: Path, slots: int) -> dict[str, object]:
    """Build in a process of its own, whose peak memory is then its own."""
    options = ("--target", TARGET, "--slots", str(slots), "--max-new-tokens", str(TOKENS), "--rebuild")
    load, started = os.getloadavg()[0], time.perf_counter()
    process = subprocess.Popen([*CELLSCRIBE, "build", str(bundle), *options, "--output", str(plans)])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    assert status == 0
    plan = next(one for one in find_plans(open_bundle(bundle), plans) if one.recipe.slots == slots)
    recorded = json.loads((plan.folder / "plan.json").read_text())
    return {
        "slots": slots,
        "max_new_tokens": TOKENS,
        "genes": plan.recipe.genes,
        "capacity": plan.recipe.capacity,
        "product": f"{plan.recipe.product} {plan.recipe.version}",
        "load_average_before": round(load, 2),
        "command_seconds": round(seconds, 1),
        "build_seconds": recorded["build_seconds"],
        "peak_gib": round(usage.ru_maxrss * 1024 / 2**30, 2),
        "plan_gb": {name: round(one.bytes / 1e9, 3) for name, one in plan.files.items()},
    }


if __name__ == "__main__":
    main()
