#!/bin/sh
# Installs the host packages that building imgbuild and the demo need; with the argument "test" also the programs that
# tests compare with. Does nothing, without network, when all are there.
# Debian 12 or later, EL 9 or later (CentOS Stream, Rocky, AlmaLinux, RHEL). Needs root, or sudo.
# What each package is for stands in docs/build.md.
set -eu
case "${1:-}" in
"" | test) ;;
*) echo "setup: $1 is not known; the argument is test or nothing" >&2; exit 1 ;;
esac

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "installing packages needs root and there is no sudo; run this as root"
    as_root=sudo
fi

debian="
dnf createrepo-c rpm gnupg
squashfs-tools xorriso dracut-core kmod cpio zstd xz-utils
e2fsprogs xfsprogs dosfstools extlinux syslinux-common
gdisk fdisk mtools acl attr libcap2-bin
qemu-system-x86 qemu-utils ovmf ipxe ipxe-qemu dnsmasq-base iproute2
ca-certificates openssl make"

el="
dnf createrepo_c rpm gnupg2
squashfs-tools xorriso dracut kmod cpio zstd xz
e2fsprogs xfsprogs dosfstools syslinux syslinux-extlinux
gdisk util-linux mtools acl attr libcap
qemu-kvm qemu-img edk2-ovmf ipxe-bootimgs-x86 ipxe-roms-qemu dnsmasq iproute
ca-certificates openssl make"

# Peers of tests: DHCP clients, relays and servers, TFTP clients, an NFS server, databases, other readers and makers of file systems and volumes; and
# what docs/pxe.md puts onto a PXE server, with the paths that Debian has. The tests that want one that is not there are skipped and say so.
debian_test="
postgresql isc-dhcp-client isc-dhcp-relay busybox-static tftp-hpa atftp curl kea-admin
lldpd selinux-utils selinux-policy-default network-manager dbus grub-common grub-pc-bin nginx
pxelinux shim-signed grub-efi-amd64-signed ruby
lvm2 mdadm dmsetup cryptsetup-bin parted thin-provisioning-tools rpm2cpio shellcheck aria2 transmission-cli
btrfs-progs exfatprogs ntfs-3g f2fs-tools bcache-tools jfsutils reiserfsprogs udftools erofs-utils gfs2-utils ocfs2-tools nilfs-tools genisoimage
dracut-network dracut-live nfs-ganesha nfs-ganesha-vfs"

el_test="
postgresql-server dhcp-client dhcp-relay busybox tftp atftp curl kea
lldpd libselinux-utils selinux-policy-targeted NetworkManager dbus-daemon grub2-tools-minimal grub2-tools grub2-pc-modules nginx
lvm2 mdadm cryptsetup parted device-mapper-persistent-data ShellCheck aria2 transmission-cli
btrfs-progs exfatprogs ntfsprogs f2fs-tools udftools erofs-utils gfs2-utils genisoimage
dracut-network dracut-live nfs-ganesha nfs-ganesha-vfs"

# Each of $1 is needed, each of $2 is good to have.
install_debian() {
    missing=$(absent_debian "$1")
    extra=$(absent_debian "$2")
    [ -n "$missing$extra" ] || { say "all host packages are installed"; return 0; }
    say "installing" $missing $extra
    # Another apt may be at work on a machine that has just booted: wait for it instead of failing.
    apt() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -q "$@"; }
    apt update || say "apt-get update failed; going on with the package lists that are there"
    # No daemon is to be started on this machine: tests start their own, in namespaces of their own (policy-rc.d, as
    # Debian's invoke-rc.d documents it).
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
        $as_root chmod 755 $policy
        trap '$as_root rm -f $policy' EXIT
    fi
    # shellcheck disable=SC2086 # the lists are meant to be split
    apt install -y --no-install-recommends $missing $extra && return 0
    # shellcheck disable=SC2086
    [ -z "$missing" ] || apt install -y --no-install-recommends $missing || die "apt-get could not install" $missing"; see its message above"
    for p in $extra; do
        apt install -y --no-install-recommends "$p" || say "apt-get could not install $p; the tests that want it are skipped and say so"
    done
}

absent_debian() {
    for p in $1; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || printf '%s ' "$p"
    done
}

install_el() {
    missing=
    for p in $1 $2; do
        rpm -q --quiet "$p" || missing="$missing $p"
    done
    [ -n "$missing" ] || { say "all host packages are installed"; return 0; }
    say "installing$missing"
    # syslinux-extlinux is gone from EL 10, createrepo_c and mtools are in AppStream and EPEL: take what there is, then
    # say what is lacking for which job.
    for p in $missing; do
        $as_root dnf -q -y --setopt=install_weak_deps=False install "$p" || say "dnf has no package $p; what needs it will say so"
    done
}

if [ "${1:-}" != test ]; then
    debian_test= el_test=
fi

[ -r /etc/os-release ] || die "there is no /etc/os-release: this is neither Debian 12 or later nor EL 9 or later"
. /etc/os-release
major=${VERSION_ID%%.*}
case " $ID ${ID_LIKE:-} " in
*" debian "*)
    [ "$ID" != debian ] || [ "${major:-99}" -ge 12 ] || die "Debian ${VERSION_ID} is too old; Debian 12 or later is needed"
    install_debian "$debian" "$debian_test" ;;
*" rhel "* | *" centos "* | *" fedora "*)
    [ "$ID" = fedora ] || [ "${major:-0}" -ge 9 ] || die "${PRETTY_NAME:-EL $VERSION_ID} is too old; EL 9 or later is needed"
    install_el "$el" "$el_test" ;;
*) die "${PRETTY_NAME:-$ID} is neither Debian 12 or later nor EL 9 or later; install by hand what docs/build.md lists" ;;
esac

command -v go >/dev/null || die "there is no go command; install Go 1.26 or later (https://go.dev/dl/) and put it in PATH"
