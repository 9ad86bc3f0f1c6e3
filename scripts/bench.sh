#!/bin/sh
# Prints what imgbuild takes, beside the tool that people would use instead, measured in the same run: building against
# dnf and mksquashfs by hand, unpacking against unsquashfs, the sizes of the initramfs, imgserve in a boot storm against
# dnsmasq and nginx, machines that install at the same time against what their cables can do, a machine that runs the image from memory against
# dracut's live start, and the medium against xorriso, dd and cmp. Needs root, make setup-test and
# make build. BENCH_COUNT= repeats each but the storm and the swarms (default 1); BENCH_MACHINES= is how many machines start
# (default 1000,10000), BENCH_SWARM= how many install at the same time (default 1,4,8,16,32).
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}
count=${BENCH_COUNT:-1}

[ "$(id -u)" = 0 ] || { echo "bench: building and unpacking images needs root; run make bench, which asks sudo" >&2; exit 1; }
[ -x build/imgbuild ] || { echo "bench: there is no build/imgbuild; run make bench, which builds it" >&2; exit 1; }

say() { printf '\nbench: %s\n' "$*"; }
run() { "$go" test -tags integration -run '^$' -benchtime 1x -count "$count" -timeout 60m -bench "$@"; }

say "transparent huge pages: $(cat /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null || echo none) (CentOS: always; without them fetched bytes cost more page faults)"
say "$(nproc) CPUs, $(awk '/MemTotal/ {printf "%.0f GiB of memory", $2/1048576}' /proc/meminfo), load $(cut -d' ' -f1 /proc/loadavg); a busy machine makes all of it slower"

say "a cold build of the profile demo, stage by stage; then dnf --installroot and mksquashfs by hand, with the same packages and level"
run BuildAgainst ./builder

say "the release that is unpacked next"
build/imgbuild demo --out build/bench
IMGBUILD_BENCH_SQUASHFS=$PWD/build/bench/demo/1/rootfs.squashfs
export IMGBUILD_BENCH_SQUASHFS

for dir in /dev/shm /var/tmp; do
    say "unpacking it to $dir ($(stat -f -c %T "$dir")) with the installer's unpacker, with unsquashfs, and while it is fetched"
    work=$(mktemp -d "$dir/imgbuild-bench.XXXXXX")
    # shellcheck disable=SC2064 # the directory of now is meant
    trap "rm -rf '$work'" EXIT
    IMGBUILD_BENCH_DIR=$work run 'Unpack(Against|While)' -benchtime 10x ./installer/unpack
    rm -rf "$work"
done

say "the initramfs with the installer, of a distribution's kernel with all its drivers"
run InitramfsWith ./initramfs

say "a boot storm: imgserve with SQLite, then dnsmasq and nginx for the parts that they can do"
build/testvm storm --release build/bench/demo/1 --machines "${BENCH_MACHINES:-1000,10000}"

say "one machine fetches, checks and unpacks that release over HTTP, beside curl that only writes it to a file"
build/testvm swarm --transport '' --image "$IMGBUILD_BENCH_SQUASHFS"

say "machines that install at the same time, each behind a cable of its own: the last one's time beside the least that the cables allow"
build/testvm swarm --machines "${BENCH_SWARM:-1,4,8,16,32}" --transport http,relay,torrent

say "the same, with something that goes wrong: what it costs"
build/testvm swarm --transport '' --faults 10 --size 128MiB

say "the release runs from memory: from the kernel's start to the login, beside dracut's live start of the same root file system"
build/testvm live-bench --release build/bench/demo/1 --count "$count"

IMGBUILD_BENCH_RELEASE=$PWD/build/bench/demo/1
IMGBUILD_BENCH_ISO=$IMGBUILD_BENCH_RELEASE/live.iso
export IMGBUILD_BENCH_RELEASE IMGBUILD_BENCH_ISO
for dir in /dev/shm /var/tmp; do
    say "its medium, written to $dir ($(stat -f -c %T "$dir")), beside xorriso alone with the same files and dd with as many bytes"
    IMGBUILD_BENCH_DIR=$dir run MediumAgainst -benchtime 5x ./builder/iso
done

say "the medium on a loop device, written and read back by imgbuild write, beside dd and cmp"
IMGBUILD_BENCH_DIR=/var/tmp run WriteAgainst -benchtime 5x ./builder/stick
