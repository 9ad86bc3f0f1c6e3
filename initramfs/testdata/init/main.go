// Command init is the /init of the tests: PID 1 of a machine that boots the initramfs under test and says on the console
// what it found there.
package main

import (
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/kmodule"
	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("TEST-INIT FAILED:", err)
	} else {
		fmt.Println("TEST-INIT OK")
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println(err)
	}
}

func run() error {
	for _, m := range []struct{ kind, at string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	for _, name := range []string{"virtio_pci", "virtio_blk", "virtio_net", "ext4", "xfs"} {
		if err := load(name); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	links, err := filepath.Glob("/sys/class/net/*/device/modalias")
	if err != nil || len(links) == 0 {
		return fmt.Errorf("no network card appeared: %w", err)
	}
	key, err := os.ReadFile("/etc/imgbuild/release.pub")
	if err != nil {
		return err
	}
	for _, argv := range [][]string{{"/sbin/mkfs.ext4", "-V"}, {"/sbin/mkfs.xfs", "-V"}} {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", argv[0], err, out)
		}
		fmt.Println("TEST-INIT", strings.TrimSpace(string(out)))
	}
	// What the real installer links in, so that this binary is about as large.
	_, err = zstd.NewReader(nil)
	fmt.Println("TEST-INIT", len(links), len(key), ed25519.PublicKeySize, http.DefaultTransport != nil, tls.VersionTLS13, err)
	return nil
}

// load loads a module after what it and the modules that it needs wish to have before them; xfs does not start without
// (libcrc32c asks the crypto layer for a checksum that no symbol names).
func load(name string) error {
	need, err := fields("modules.dep")
	if err != nil {
		return err
	}
	wishes, err := fields("modules.softdep")
	if err != nil {
		return err
	}
	aliases, err := fields("modules.alias")
	if err != nil {
		return err
	}
	closure := []string{name}
	for _, line := range need {
		if module(line[0]) == name {
			for _, other := range line[1:] {
				closure = append(closure, module(other))
			}
		}
	}
	for _, line := range wishes {
		if len(line) < 4 || line[2] != "pre:" || !slices.Contains(closure, line[1]) {
			continue
		}
		for _, wish := range line[3:] {
			for _, alias := range aliases {
				if len(alias) == 3 && alias[0] == "alias" && alias[1] == wish {
					if err := kmodule.Probe(alias[2], ""); err != nil {
						fmt.Println("TEST-INIT", alias[2], "is not for this processor:", err)
					}
				}
			}
		}
	}
	return kmodule.Probe(name, "")
}

func module(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(strings.TrimSuffix(path, ":")), ".ko"), "-", "_")
}

// fields are the words of each line of one of the indexes.
func fields(index string) ([][]string, error) {
	var release unix.Utsname
	if err := unix.Uname(&release); err != nil {
		return nil, err
	}
	data, err := os.ReadFile("/lib/modules/" + unix.ByteSliceToString(release.Release[:]) + "/" + index)
	if err != nil {
		return nil, err
	}
	var found [][]string
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) > 0 {
			found = append(found, words)
		}
	}
	return found, nil
}
