#!/bin/sh
# Installs the host packages that building and testing imgbuild need. Does nothing, without network, when all are there.
# Debian 12 or later, EL 9 or later (CentOS Stream, Rocky, AlmaLinux, RHEL). Needs root, or sudo.
# What each package is for stands in docs/build.md.
set -eu

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "installing packages needs root and there is no sudo; run this as root"
    as_root=sudo
fi

debian="
dnf createrepo-c rpm gnupg
squashfs-tools dracut-core kmod cpio zstd xz-utils
e2fsprogs xfsprogs dosfstools extlinux syslinux-common
gdisk fdisk mtools acl attr libcap2-bin
qemu-system-x86 qemu-utils ovmf ipxe ipxe-qemu dnsmasq-base iproute2
ca-certificates openssl make"

el="
dnf createrepo_c rpm gnupg2
squashfs-tools dracut kmod cpio zstd xz
e2fsprogs xfsprogs dosfstools syslinux syslinux-extlinux
gdisk util-linux mtools acl attr libcap
qemu-kvm qemu-img edk2-ovmf ipxe-bootimgs-x86 ipxe-roms-qemu dnsmasq iproute
ca-certificates openssl make"

install_debian() {
    missing=
    for p in $debian; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
    done
    [ -n "$missing" ] || { say "all host packages are installed"; return 0; }
    say "installing$missing"
    # Another apt may be at work on a machine that has just booted: wait for it instead of failing.
    apt() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -q "$@"; }
    apt update || say "apt-get update failed; going on with the package lists that are there"
    # shellcheck disable=SC2086 # the list is meant to be split
    apt install -y --no-install-recommends $missing || die "apt-get could not install$missing; see its message above"
}

install_el() {
    missing=
    for p in $el; do
        rpm -q --quiet "$p" || missing="$missing $p"
    done
    [ -n "$missing" ] || { say "all host packages are installed"; return 0; }
    say "installing$missing"
    # syslinux-extlinux is gone from EL 10, createrepo_c and mtools are in AppStream and EPEL: take what there is, then
    # say what is lacking for which job.
    for p in $missing; do
        $as_root dnf -q -y --setopt=install_weak_deps=False install "$p" || say "dnf has no package $p; imgbuild will say so if it needs it"
    done
}

[ -r /etc/os-release ] || die "there is no /etc/os-release: this is neither Debian 12 or later nor EL 9 or later"
. /etc/os-release
major=${VERSION_ID%%.*}
case " $ID ${ID_LIKE:-} " in
*" debian "*)
    [ "$ID" != debian ] || [ "${major:-99}" -ge 12 ] || die "Debian ${VERSION_ID} is too old; Debian 12 or later is needed"
    install_debian ;;
*" rhel "* | *" centos "* | *" fedora "*)
    [ "$ID" = fedora ] || [ "${major:-0}" -ge 9 ] || die "${PRETTY_NAME:-EL $VERSION_ID} is too old; EL 9 or later is needed"
    install_el ;;
*) die "${PRETTY_NAME:-$ID} is neither Debian 12 or later nor EL 9 or later; install by hand what docs/build.md lists" ;;
esac

command -v go >/dev/null || die "there is no go command; install Go 1.26 or later (https://go.dev/dl/) and put it in PATH"
