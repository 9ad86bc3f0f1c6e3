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
		if err := kmodule.Probe(name, ""); err != nil {
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
