package initramfs

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
)

func TestBuild(t *testing.T) {
	o := smallOptions(rootWith(t, kernelFiles()))
	o.SourceDate = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	o.Firmware = []string{"intel/ice/ddp/ice*.pkg", "special.bin"}
	o.Tools = []Tool{{Name: "mkfs.ext4", Candidates: []string{"/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4"}}}
	o.Files = []File{{Name: "/usr/share/syslinux/gptmbr.bin", Candidates: []string{"/usr/lib/SYSLINUX/gptmbr.bin", "/usr/share/syslinux/gptmbr.bin"}}}
	var out bytes.Buffer
	report, err := Build(t.Context(), o, &out)
	if err != nil {
		t.Fatal(err)
	}
	names, records := unpackArchive(t, out.Bytes())

	t.Run("entries are sorted, owned by root, dated and numbered", func(t *testing.T) {
		if !slices.IsSorted(names) {
			t.Errorf("not sorted: %v", names)
		}
		for i, name := range names {
			r := records[name]
			if r.UID != 0 || r.GID != 0 || int64(r.MTime) != o.SourceDate.Unix() || r.Ino != uint64(i+1) {
				t.Errorf("%s: owner %d:%d, time %d, inode %d", name, r.UID, r.GID, r.MTime, r.Ino)
			}
			if dir := parent(name); dir != "" && records[dir].Mode&cpio.S_IFMT != cpio.S_IFDIR {
				t.Errorf("%s has no directory", name)
			}
		}
	})
	t.Run("the nodes and links that PID 1 starts with are there", func(t *testing.T) {
		console := records["dev/console"]
		if console.Mode != cpio.S_IFCHR|0o600 || console.Rmajor != 5 || console.Rminor != 1 {
			t.Errorf("dev/console: %+v", console.Info)
		}
		if init := records["init"]; init.Mode != cpio.S_IFREG|0o755 || content(t, records, "init") != string(staticProgram()) {
			t.Errorf("init: %+v", init.Info)
		}
		for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
			if got := content(t, records, name); got != "usr/"+name {
				t.Errorf("%s leads to %q", name, got)
			}
		}
		if records["tmp"].Mode != cpio.S_IFDIR|0o1777 {
			t.Errorf("tmp has mode %o", records["tmp"].Mode)
		}
	})
	t.Run("modules are stored unpacked", func(t *testing.T) {
		for name, want := range map[string][]byte{
			"kernel/fs/ext4/ext4.ko":           kernelFiles()[modulesDir+"kernel/fs/ext4/ext4.ko.xz"],
			"kernel/fs/mbcache.ko":             kernelFiles()[modulesDir+"kernel/fs/mbcache.ko.zst"],
			"kernel/drivers/net/virtio_net.ko": kernelFiles()[modulesDir+"kernel/drivers/net/virtio_net.ko.gz"],
			"updates/megaraid_sas.ko":          kernelFiles()[modulesDir+"updates/megaraid_sas.ko"],
		} {
			if content(t, records, modulesDir+name) != string(want) {
				t.Errorf("%s differs from the image's", name)
			}
		}
	})
	t.Run("files lie where the installer looks", func(t *testing.T) {
		for name, want := range map[string]string{
			"etc/imgbuild/release.pub":                     "key\n",
			"etc/ssl/certs/imgbuild.crt":                   "own CA\n",
			"etc/ssl/certs/ca-certificates.crt":            "certificates\n",
			"etc/passwd":                                   "root:x:0:0:root:/root:/bin/sh\n",
			"etc/mke2fs.conf":                              "[defaults]\n",
			"usr/share/syslinux/gptmbr.bin":                "boot code",
			"usr/lib/firmware/bnx2/bnx2-mips-09-6.2.1b.fw": "firmware of a network card",
			"usr/lib/firmware/intel/ice/ddp/ice-1.3.pkg":   "package of a network card",
			"usr/lib/firmware/intel/ice/ddp/ice.pkg":       "ice-1.3.pkg",
			"usr/lib/firmware/special.bin":                 "special",
		} {
			if got := content(t, records, name); got != want {
				t.Errorf("%s holds %q, want %q", name, got, want)
			}
		}
	})
	t.Run("the report says what went in", func(t *testing.T) {
		if want := []string{"bnx2/bnx2-mips-09-6.2.1b.fw", "intel/ice/ddp/ice-1.3.pkg", "intel/ice/ddp/ice.pkg", "special.bin"}; !slices.Equal(report.Firmware, want) {
			t.Errorf("firmware %v", report.Firmware)
		}
		if !slices.Equal(report.MissingFirmware, []string{"bnx2/gone.fw"}) {
			t.Errorf("missing firmware %v", report.MissingFirmware)
		}
		if !slices.Equal(report.Tools, []string{"/usr/sbin/mkfs.ext4"}) {
			t.Errorf("tools %v", report.Tools)
		}
		if report.CABundle != "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem" {
			t.Errorf("certificates %q", report.CABundle)
		}
		if slices.Contains(report.MissingModules, "squashfs") || !slices.Contains(report.MissingModules, "xfs") {
			t.Errorf("missing modules %v: squashfs is built in, xfs is not there", report.MissingModules)
		}
		var sum int64
		for size := range maps.Values(report.BySection) {
			sum += size
		}
		if trailer := report.Raw - sum; report.Packed != int64(out.Len()) || trailer < 110 || trailer > 128 {
			t.Errorf("packed %d of %d, raw %d of which sections %d", report.Packed, out.Len(), report.Raw, sum)
		}
	})
}

func TestBuildIsDeterministic(t *testing.T) {
	root := rootWith(t, kernelFiles())
	for _, compression := range []string{Gzip, Zstd} {
		o := smallOptions(root)
		o.Compression = compression
		var first, second bytes.Buffer
		for _, out := range []*bytes.Buffer{&first, &second} {
			if _, err := Build(t.Context(), o, out); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("%s: two builds of the same differ", compression)
		}
	}
}

func TestBuildErrors(t *testing.T) {
	root := rootWith(t, kernelFiles())
	dynamic := elfWith(elf.ET_REL, "", nil)
	for _, test := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"an image root that is not there", func(o *Options) { o.Root = root + "/absent" }, "open the root directory"},
		{"no installer", func(o *Options) { o.Installer = nil }, "build the installer first"},
		{"an installer that is no program", func(o *Options) { o.Installer = dynamic }, "no program but ET_REL"},
		{"an installer that is a script", func(o *Options) { o.Installer = []byte("#!/bin/sh") }, "no ELF program"},
		{"no public key", func(o *Options) { o.PublicKey = []byte(" \n") }, "no public key"},
		{"a kernel release that is a path", func(o *Options) { o.KernelRelease = "../x" }, "is not a name of a directory"},
		{"a kernel that is not installed", func(o *Options) { o.KernelRelease = "6.0" }, "find the modules of kernel 6.0"},
		{"a misspelt class", func(o *Options) { o.Network = []string{"sever"} }, `no network class "sever"; there are: virtual, server`},
		{"an extra module that nobody has", func(o *Options) { o.ExtraModules = []string{"nvidia"} }, `extra module "nvidia" is neither`},
		{"an extra module with a broken pattern", func(o *Options) { o.ExtraModules = []string{"x["} }, "syntax error in pattern"},
		{"firmware that nobody has", func(o *Options) { o.Firmware = []string{"radeon/*.bin"} }, `matches "radeon/*.bin"`},
		{"firmware outside its directory", func(o *Options) { o.Firmware = []string{"../../etc/shadow"} }, "not a path below /lib/firmware"},
		{"a tool that nobody has", func(o *Options) {
			o.Tools = []Tool{{Name: "mdadm", Candidates: []string{"/sbin/mdadm", "/usr/sbin/mdadm"}}}
		}, "put the tool mdadm into the initramfs: none of /sbin/mdadm, /usr/sbin/mdadm is in the image"},
		{"a tool that is a script", func(o *Options) { o.Tools = []Tool{{Name: "dracut", Candidates: []string{"/usr/sbin/dracut"}}} }, "a script cannot be a tool"},
		{"a file that nobody has", func(o *Options) { o.Files = []File{{Name: "/x", Candidates: []string{"/y"}}} }, "put /x into the initramfs: none of /y"},
		{"a file in the place of the installer", func(o *Options) {
			o.Files = []File{{Name: "/init", Candidates: []string{"/etc/mke2fs.conf"}}}
		}, "that name is taken by the installer"},
		{"a file below a file", func(o *Options) { o.Files = []File{{Name: "/init/x", Candidates: []string{"/etc/mke2fs.conf"}}} }, "/init is not a directory"},
		{"an unknown compression", func(o *Options) { o.Compression = "rar" }, `unknown compression "rar"; there are: zstd, xz, gzip`},
		{"a date before 1970", func(o *Options) { o.SourceDate = time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC) }, "1970 to 2106"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := smallOptions(root)
			test.change(&o)
			var out bytes.Buffer
			_, err := Build(t.Context(), o, &out)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want an error with %q", err, test.want)
			}
			if out.Len() > 0 {
				t.Errorf("%d bytes were written all the same", out.Len())
			}
		})
	}
}

func TestBuildStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the operator pressed Ctrl-C")
	cancel(why)
	if _, err := Build(ctx, smallOptions(rootWith(t, kernelFiles())), io.Discard); !errors.Is(err, why) {
		t.Fatalf("got %v", err)
	}
}

func TestBuildReportsAFullDisk(t *testing.T) {
	full := errors.New("no space left on device")
	_, err := Build(t.Context(), smallOptions(rootWith(t, kernelFiles())), failing{full})
	if !errors.Is(err, full) {
		t.Fatalf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestCompressionFollowsTheKernelsConfiguration(t *testing.T) {
	for _, test := range []struct {
		name, path, config, want string
	}{
		{"zstd when the kernel has it", "boot/config-" + testRelease, "CONFIG_RD_XZ=y\nCONFIG_RD_ZSTD=y\n", Zstd},
		{"xz before gzip", modulesDir + "config", "CONFIG_RD_GZIP=y\nCONFIG_RD_XZ=y\n# CONFIG_RD_ZSTD is not set\n", XZ},
		{"gzip when there is nothing better", modulesDir + "config", "CONFIG_RD_GZIP=y\n", Gzip},
		{"gzip when nobody knows", "etc/nothing", "", Gzip},
	} {
		t.Run(test.name, func(t *testing.T) {
			root, err := openTree(rootWith(t, map[string][]byte{test.path: []byte(test.config)}))
			if err != nil {
				t.Fatal(err)
			}
			defer root.close()
			if got, err := chooseCompression(root, testRelease); err != nil || got != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestHostCompressorTellsWhatTheProgramSaid(t *testing.T) {
	w, err := startHost(t.Context(), []string{"sh", "-c", "echo out of memory >&2; exit 3"}, io.Discard)
	if err != nil {
		t.Skipf("no sh on this host: %v", err)
	}
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "exit status 3: out of memory") {
		t.Errorf("got %v", err)
	}
	if _, err := startHost(t.Context(), []string{"/absent/xz"}, io.Discard); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent program gives %v", err)
	}
}
