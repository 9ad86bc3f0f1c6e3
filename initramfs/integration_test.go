//go:build integration

package initramfs

import (
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/initramfs/installerbin"
)

// extract unpacks a release's initramfs with GNU cpio, as another implementation than ours, and returns the directory.
func extract(t *testing.T, image, compression string) string {
	t.Helper()
	requireProgram(t, "cpio", "zstd", "xz")
	dir := t.TempDir()
	plain := filepath.Join(dir, "image.cpio")
	switch compression {
	case Zstd:
		run(t, "", "zstd", "-q", "-d", image, "-o", plain)
	case XZ:
		run(t, "", "sh", "-c", `xz -dc "$1" >"$2"`, "sh", image, plain)
	default:
		run(t, "", "sh", "-c", `gzip -dc "$1" >"$2"`, "sh", image, plain)
	}
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, tree, "cpio", "--extract", "--quiet", "--make-directories", "--preserve-modification-time", "--no-absolute-filenames", "--file", plain)
	return tree
}

func digest(t *testing.T, path string) [32]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

func TestRealKernel(t *testing.T) {
	for _, test := range []struct {
		name, class string
		limit       int64    // bytes
		tools       []string // beside those of a layout without volumes
		modules     []string
	}{
		{"server", "server", 32 << 20, nil, []string{"mlx5_core", "bnxt_en", "ice", "i40e", "qede", "tg3", "megaraid_sas", "mpt3sas", "hpsa", "smartpqi", "nvme", "vmd", "lpfc", "qla2xxx", "xfs", "ipmi_si", "raid456"}},
		{"virtual", "virtual", 12 << 20, nil, []string{"virtio_net", "virtio_blk", "virtio_scsi", "virtio_pci", "vmxnet3", "hv_netvsc", "xen_blkfront", "nvme", "ahci", "xfs", "ext4", "vfat", "squashfs", "bonding", "8021q"}},
		{"virtual with the tools for every layout", "virtual", 16 << 20, []string{"lvm", "mdadm", "grub-mkimage"}, []string{"dm_thin_pool", "raid1", "raid456"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := realOptions(t, test.class)
			for _, name := range test.tools {
				path, err := exec.LookPath(name)
				if err != nil {
					t.Skipf("needs %s, which is not installed", name)
				}
				o.Tools = append(o.Tools, Tool{Name: name, Candidates: []string{path}, FallbackToHost: true})
				o.ExtraModules = []string{"raid456"}
			}
			if installer, err := installerbin.Get("x86_64", test.class == "server"); err == nil {
				o.Installer = installer
			}
			start := time.Now()
			image, report := buildTo(t, o)
			t.Logf("%s: %d modules, %.1f MiB raw, %.2f MiB as %s in %.1f s (limit %d MiB); installer %.1f MiB; by section %v; not in this kernel: %v",
				test.name, len(report.Modules), mib(report.Raw), mib(report.Packed), report.Compression, time.Since(start).Seconds(), test.limit>>20,
				mib(int64(len(o.Installer))), report.BySection, report.MissingModules)
			if report.Packed > test.limit {
				t.Errorf("%d bytes are more than the limit of %d", report.Packed, test.limit)
			}
			for _, name := range test.modules {
				if !slices.Contains(report.Modules, name) {
					t.Errorf("%s is missing", name)
				}
			}
			if again, _ := buildTo(t, o); digest(t, again) != digest(t, image) {
				t.Error("two builds of the same differ")
			}
			tree := extract(t, image, report.Compression)
			checkModules(t, tree, o.KernelRelease)
			checkTools(t, tree)
		})
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// checkModules compares our indexes with depmod's of the extracted image, and lets modprobe resolve every module.
func checkModules(t *testing.T, tree, release string) {
	t.Helper()
	dir := filepath.Join(tree, "usr/lib/modules", release)
	ours := map[string][]string{}
	for _, name := range []string{"modules.dep", "modules.alias"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		ours[name] = indexLines(name, data)
	}
	for line := range strings.Lines(run(t, "", "depmod", "-b", tree, release)) {
		if !strings.Contains(line, "modules.builtin.modinfo") { // which nothing in the initramfs reads
			t.Errorf("depmod: %s", line)
		}
	}
	for name, want := range ours {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := indexLines(name, data); !slices.Equal(got, want) {
			t.Errorf("%s: %d lines of ours, %d of depmod's; only ours %q, only depmod's %q", name, len(want), len(got), firstDifference(want, got), firstDifference(got, want))
		}
	}
	var names []string
	for _, file := range strings.Fields(run(t, "", "find", dir, "-name", "*.ko", "-printf", "%f\n")) {
		names = append(names, moduleName(file))
	}
	if out := run(t, "", append([]string{"modprobe", "--dry-run", "--show-depends", "--all", "--set-version", release, "--dirname", tree}, names...)...); out == "" {
		t.Error("modprobe resolved nothing")
	}
}

// indexLines is an index as sorted lines without comments; the order of needs that do not need each other is free.
func indexLines(name string, data []byte) []string {
	found := lines(data)
	if name == "modules.dep" {
		for i, line := range found {
			module, needs, _ := strings.Cut(line, ":")
			sorted := strings.Fields(needs)
			slices.Sort(sorted)
			found[i] = module + ": " + strings.Join(sorted, " ")
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func firstDifference(a, b []string) string {
	for _, line := range a {
		if !slices.Contains(b, line) {
			return line
		}
	}
	return ""
}

// checkTools runs every tool inside the extracted image, which proves that loader and libraries are whole.
func checkTools(t *testing.T, tree string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	disk := filepath.Join(tree, "disk.img")
	for _, tool := range testTools() {
		argv := map[string][]string{
			"mkfs.xfs": {"-f", "/disk.img"}, "mkfs.ext4": {"-q", "-F", "/disk.img"}, "mkfs.vfat": {"/disk.img"}, "mkswap": {"/disk.img"}, "extlinux": {"--version"},
		}[tool.Name]
		if err := os.WriteFile(disk, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(disk, 320<<20); err != nil {
			t.Fatal(err)
		}
		run(t, "", append([]string{"chroot", tree, merged(tool.Candidates[0])}, argv...)...)
	}
}

func TestRealCompressions(t *testing.T) {
	o := realOptions(t, "virtual")
	for _, test := range []struct {
		compression string
		small       bool
	}{{Gzip, false}, {XZ, false}, {Zstd, true}} {
		t.Run(test.compression, func(t *testing.T) {
			if program := HostProgram(test.compression, test.small); program != "" {
				requireProgram(t, program)
			}
			o.Compression, o.Small = test.compression, test.small
			start := time.Now()
			image, report := buildTo(t, o)
			t.Logf("virtual class as %s (small: %v): %.2f MiB in %.1f s", test.compression, test.small, mib(report.Packed), time.Since(start).Seconds())
			if _, err := os.Stat(filepath.Join(extract(t, image, report.Compression), "init")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRealToolsThatCannotWork(t *testing.T) {
	o := realOptions(t, "virtual")
	libc := filepath.Join(o.Root, run(t, "", "sh", "-c", "ldd /usr/sbin/mkfs.xfs | sed -n 's/.*libc.so.6 => \\([^ ]*\\).*/\\1/p' | tr -d '\\n'"))
	o.Tools = testTools()[:1]
	o.Tools[0].FallbackToHost = true
	if _, err := Build(t.Context(), o, io.Discard); err != nil {
		t.Errorf("the image's own tool: %v", err)
	}
	// A C library of the same name that defines older versions only stands for an image older than the host.
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("this part needs a C compiler to make an old C library")
	}
	script := filepath.Join(t.TempDir(), "versions")
	if err := os.WriteFile(script, []byte("GLIBC_2.2.5 { global: *; };\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(t.TempDir(), "old.c")
	if err := os.WriteFile(source, []byte("int old(void) { return 0; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "", compiler, "-shared", "-nostdlib", "-fPIC", "-Wl,-soname,libc.so.6", "-Wl,--version-script="+script, "-o", libc, source)
	if _, err := Build(t.Context(), o, io.Discard); err == nil || !strings.Contains(err.Error(), "is older: install the tool's own package in the image") {
		t.Errorf("a C library that is too old: %v", err)
	}
	if err := os.Remove(libc); err != nil {
		t.Fatal(err)
	}
	o.Tools[0].FallbackToHost = false
	if _, err := Build(t.Context(), o, io.Discard); err == nil || !strings.Contains(err.Error(), "needs the library libc.so.6, which is not in") {
		t.Errorf("no C library: %v", err)
	}
}

// TestHostToolsServeAnImageWithoutThem takes every tool from the host because the image has none.
func TestHostToolsServeAnImageWithoutThem(t *testing.T) {
	o := realOptions(t, "virtual")
	for i := range o.Tools {
		o.Tools[i].FallbackToHost = true
		if err := os.Remove(filepath.Join(o.Root, o.Tools[i].Candidates[0])); err != nil {
			t.Fatal(err)
		}
	}
	image, report := buildTo(t, o)
	checkTools(t, extract(t, image, report.Compression))
}
