#!/usr/bin/env bash
# A Vulkan device in software, for onnxruntime's WebGPU provider (pip install onnxruntime-ep-webgpu) on x86-64 Linux
# without a GPU, set up once, as root:
#
#     tools/vulkan.sh swiftshader .venv/bin/python -m pytest tests/test_webgpu.py     float32 alone; that of Chromium
#     tools/vulkan.sh FOLDER .venv/bin/python -m pytest tests/test_webgpu.py          float16, too, and many times faster:
#                             lavapipe of Debian 13, unpacked into FOLDER (half a minute, 0.5 GB); that of Debian 12 is too old
#
# What a test starts in a process of its own has no lavapipe: it is loaded by Debian 13's loader and C library, which
# only the program named here runs with.
set -euo pipefail
checkout=$(realpath "$(dirname "$0")/..")
. "$checkout/tools/debian.sh"
[ $# -gt 1 ] || die "usage: tools/vulkan.sh swiftshader|FOLDER PYTHON ARGUMENTS"
needs_x86_64_linux
export ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1 XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}"

if [ "$1" = swiftshader ]; then
    shift
    for VK_ICD_FILENAMES in /usr/lib/chromium /opt/google/chrome; do
        VK_ICD_FILENAMES+=/vk_swiftshader_icd.json
        if [ -e "$VK_ICD_FILENAMES" ]; then break; fi
    done
    [ -e "$VK_ICD_FILENAMES" ] || { install chromium; VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json; }
    [ -e "$VK_ICD_FILENAMES" ] || die "no SwiftShader: neither Debian's chromium nor Google Chrome is here"
    export VK_ICD_FILENAMES
    exec "$@"
fi

root=$(realpath -m "$1")
shift
lib=$root/usr/lib/x86_64-linux-gnu
if [ ! -e "$root/complete" ]; then
    install debootstrap debian-archive-keyring
    unpack "$root" trixie amd64 mesa-vulkan-drivers,libvulkan1
    sed "s#\"library_path\": \"[^\"]*\"#\"library_path\": \"$lib/libvulkan_lvp.so\"#" \
        "$root/usr/share/vulkan/icd.d/lvp_icd.json" >"$root/lavapipe.json"
    touch "$root/complete"
fi
# Shaders are compiled without optimisation and for narrow vectors: 11 s of processor time for the demonstration model, not
# 29; later runs find them in $root, and a step takes twice as long, 30 ms.
export GALLIVM_PERF=nopt LP_NATIVE_VECTOR_WIDTH=128 MESA_SHADER_CACHE_DIR=$root VK_ICD_FILENAMES=$root/lavapipe.json
exec "$lib/ld-linux-x86-64.so.2" --library-path "$lib" "$@"
