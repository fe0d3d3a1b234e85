#!/usr/bin/env bash
# Everything that a machine with one NVIDIA GPU is asked: build, test, time, write results; needs no network.
#
#   benchmarks/gpu.sh                                  # about ten minutes
#   benchmarks/gpu.sh --minutes 5 --parts machine,build,slots
#   benchmarks/gpu.sh --parts build,sanitizer          # races and stray accesses, with compute-sanitizer; apart from the rest
#   benchmarks/gpu.sh --results DIR --work DIR         # results elsewhere; kernels, bundle and logs elsewhere
#   benchmarks/gpu.sh --wheels DIR                     # packages that are not installed, as wheels of a folder
#   benchmarks/gpu.sh --emulate --results /tmp/emulated    # no GPU: tiny sizes on the CPU, shows that it all works
#
# It writes benchmarks/results/gpu_NAME.json after every row, so that a run which is cut off loses nothing, and
# gpu_NAME.md at its end. NAME is the GPU's (or --name). Each part has a limit of its own; one that fails or runs out of
# time is recorded with the reason, and the next one runs. The exit code is 1 where a part failed. PYTHON names another
# interpreter than python3; it must have torch (CUDA), onnx, onnxscript, onnxruntime, transformers, tokenizers,
# safetensors, h5py, scipy, pandas and pytest. The package itself need not be installed. Where anndata is missing a
# stand-in with its one name takes its place (benchmarks/gpu/standins): .h5ad files are read with h5py.
#
# What it measures is in benchmarks/gpu/, a question a file; bytes, operations and floors are in gpu/roofline.py.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
work=$root/build/gpu
wheels=
passed=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        --work | --wheels)
            [ $# -gt 1 ] || { echo "$1 wants a folder" >&2; exit 2; }
            if [ "$1" = --work ]; then work=$2; else wheels=$2; fi
            shift 2 ;;
        *) passed+=("$1"); shift ;;
    esac
done
mkdir -p "$work"
work=$(cd "$work" && pwd)

path=$root:$root/benchmarks
if [ -n "$wheels" ]; then
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --find-links "$wheels" --no-deps --upgrade \
        --target "$work/packages" "$wheels"/*.whl
    path=$work/packages:$path
fi
export PYTHONPATH=$path${PYTHONPATH:+:$PYTHONPATH}
if ! "$python" -c 'import anndata' 2> /dev/null; then
    echo "anndata is not installed here; its stand-in is used"
    export PYTHONPATH=$PYTHONPATH:$root/benchmarks/gpu/standins
fi
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

cd "$root"
exec "$python" -m gpu.run --work "$work" ${passed[@]+"${passed[@]}"}
