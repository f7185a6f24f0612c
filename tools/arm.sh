#!/usr/bin/env bash
# The package as an ARM64 program, emulated on x86-64 Linux (Debian 12 or newer, Ubuntu 24.04), as root:
#
#     tools/arm.sh FOLDER             sets FOLDER up once (half a minute, 0.5 GB); then, on a Cortex-A76 (Raspberry Pi 5)
#                                     and on a Cortex-A72 (Pi 4): the words of the sample, log-mel, decoder (two minutes)
#     tools/arm.sh FOLDER -m pytest tests/test_tokens.py      anything else with the emulated Python; CPU=cortex-a72
#
# What starts a process fails there: the kernel does not know ARM64 programs.
set -euo pipefail
checkout=$(realpath "$(dirname "$0")/..")
. "$checkout/tools/debian.sh"
[ $# -gt 0 ] || die "usage: tools/arm.sh FOLDER [ARGUMENTS OF PYTHON]"
root=$(realpath -m "$1")
shift

set_up() {
    install debootstrap debian-archive-keyring qemu-user-static
    python3 -m pip --version >/dev/null 2>&1 || install python3-pip
    unpack "$root" bookworm arm64 python3
    python3 -m pip install -q --target "$root/packages" --only-binary :all: --python-version 3.11 --implementation cp \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 \
        --platform manylinux2014_aarch64 numpy onnxruntime onnx ml_dtypes safetensors pytest hypothesis
    mkdir -p "$root/proc" "$root/sys/devices/system/cpu"
    for file in possible present online; do echo 0-1 >"$root/sys/devices/system/cpu/$file"; done
    touch "$root/complete"
}

# python ARGUMENTS...: the ARM64 Python, in the checkout
python() {
    local cpu=${CPU:-cortex-a76} part=0xd0b features="fp asimd aes pmull sha1 sha2 crc32"
    case $cpu in
        cortex-a72) part=0xd08 ;;
        *) features+=" atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp" ;;
    esac
    # onnxruntime reads /proc/cpuinfo, and crashes on that of the host (qemu 7.2 hands it over); -L puts this before it.
    for core in 0 1; do
        printf '%s\t: %s\n' processor "$core" Features "$features" "CPU implementer" 0x41 "CPU architecture" 8 \
            "CPU variant" 0x4 "CPU part" "$part" "CPU revision" 1
        echo
    done >"$root/proc/cpuinfo"
    PYTHONHOME="$root/usr" PYTHONPATH="$root/packages:$checkout" PYTHONPYCACHEPREFIX="$root/pycache" \
        COHERE_LITE_CACHE=off qemu-aarch64-static -cpu "$cpu" -L "$root" "$root/usr/bin/python3.11" "$@"
}

needs_x86_64_linux
[ -e "$root/complete" ] || set_up
cd "$checkout"
if [ $# -gt 0 ]; then python "$@"; exit; fi

# Left out: what compares with PyTorch, and what takes longest.
tests=(-m "not slow and not reference" -k "not (fp32 or int4 or same_tokens or rows_that_end or loop_ends)")
export CPU
for CPU in cortex-a76 cortex-a72; do
    text=$(python -m cohere_lite --quiet cohere_lite/demo/sample.wav)
    echo "$CPU: $text"
    [ "$text" = "Turn on the light in the living room." ]
    python -m pytest -q -p no:cacheprovider "${tests[@]}" tests/test_mel.py tests/test_decode.py | tee "$root/$CPU.log"
    if grep -qE '[0-9]+ skipped' "$root/$CPU.log"; then die "a test was skipped"; fi
done
