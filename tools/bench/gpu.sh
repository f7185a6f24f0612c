#!/usr/bin/env bash
# What a model takes on this machine's GPU: python -m tools.bench.gpu (--help), in under ten minutes. Fetches nothing.
# What `python3` (or $PYTHON) lacks may lie in .whl/ as wheels, or as pieces of wheels, where only so much can be carried
# at a time. It goes into a temporary folder:
#
#   pip download -d .whl --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \
#       onnxruntime-gpu
#   cd .whl; for wheel in onnxruntime_gpu-*.whl; do split -b 44M -d "$wheel" "$wheel.part" && rm "$wheel"; done
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
for first in .whl/*.part00; do
    if [ -e "$first" ]; then cat "${first%00}"* >"$site/$(basename "${first%.part00}")"; fi
done
for wheel in .whl/*.whl; do
    if [ -e "$wheel" ]; then ln -s "$PWD/$wheel" "$site"; fi
done
if compgen -G "$site/*.whl" >/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site/packages" "$site"/*.whl
    export PYTHONPATH="$site/packages${PYTHONPATH:+:$PYTHONPATH}"
fi
# CUDA's libraries that came with PyTorch, for an onnxruntime in another folder
libraries=$("$python" - <<'EOF'
from glob import glob
from site import getsitepackages
print(*(found for folder in getsitepackages() for found in glob(f"{folder}/nvidia/*/lib")), sep=":")
EOF
)
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
"$python" -m tools.bench.gpu "$@"
