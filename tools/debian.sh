# Sourced by arm.sh and vulkan.sh: Debian packages unpacked into a folder, with nothing run from there: no chroot, no
# binfmt, no mounts.

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

needs_x86_64_linux() {
    [ "$(uname -sm)" = "Linux x86_64" ] || die "this runs on x86-64 Linux only, not on $(uname -sm)"
    command -v apt-get >/dev/null || die "this needs apt-get: Debian or Ubuntu"
}

# install PACKAGE...: what is not there yet
install() {
    dpkg-query -W -f '${db:Status-Abbrev}\n' "$@" 2>/dev/null | grep -c '^ii' | grep -qx $# && return
    [ "$(id -u)" = 0 ] || die "as root first: apt-get install --no-install-recommends $*"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y -qq --no-install-recommends "$@" >/dev/null
}

# unpack FOLDER SUITE ARCHITECTURE PACKAGES: that Debian's base and these packages (a,b,c), from the mirror that apt uses
# on this machine, or, where this is no Debian, from debootstrap's own
unpack() {
    local mirror
    [ "$(id -u)" = 0 ] || die "debootstrap needs root"
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' | head -n 1)
    # shellcheck disable=SC2086  # no mirror, no argument
    debootstrap --foreign --variant=minbase --arch="$3" --include="$4" "$2" "$1" $mirror >"$1.log" ||
        die "debootstrap failed: $1.log"
    for package in "$1"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$1"; done
    rm -f "$1"/var/cache/apt/archives/*.deb
}
