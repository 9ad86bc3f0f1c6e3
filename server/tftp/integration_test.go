//go:build integration

package tftp

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestRealClientsGetWholeFiles(t *testing.T) {
	p, data := loader(t, 1_234_567)
	s, addr, log := start(t, map[string]string{"undionly.kpxe": p}, nil)
	_, port, _ := net.SplitHostPort(addr)
	for name, argv := range map[string][]string{ // OUT is the file that it writes
		"curl":                          {"curl", "-sS", "-o", "OUT", "tftp://127.0.0.1:" + port + "/undionly.kpxe"},
		"curl, no options":              {"curl", "-sS", "--tftp-no-options", "-o", "OUT", "tftp://127.0.0.1:" + port + "/undionly.kpxe"},
		"curl, blocks of 8 bytes":       {"curl", "-sS", "--tftp-blksize", "8", "-o", "OUT", "tftp://127.0.0.1:" + port + "/undionly.kpxe"},
		"curl, blocks of 65464 bytes":   {"curl", "-sS", "--tftp-blksize", "65464", "-o", "OUT", "tftp://127.0.0.1:" + port + "/undionly.kpxe"},
		"tftp-hpa, octet":               {"tftp", "-m", "binary", "127.0.0.1", port, "-c", "get", "undionly.kpxe", "OUT"},
		"tftp-hpa, netascii":            {"tftp", "-m", "ascii", "127.0.0.1", port, "-c", "get", "undionly.kpxe", "OUT"},
		"busybox":                       {"busybox", "tftp", "-g", "-r", "undionly.kpxe", "-l", "OUT", "127.0.0.1", port},
		"busybox, blocks of 1468 bytes": {"busybox", "tftp", "-b", "1468", "-g", "-r", "undionly.kpxe", "-l", "OUT", "127.0.0.1", port},
		"atftp":                         {"atftp", "-g", "-r", "undionly.kpxe", "-l", "OUT", "127.0.0.1", port},
		"atftp, a window of 8":          {"atftp", "--option", "windowsize 8", "--option", "blksize 1428", "--option", "tsize 0", "-g", "-r", "undionly.kpxe", "-l", "OUT", "127.0.0.1", port},
		"atftp, a window of 64":         {"atftp", "--option", "windowsize 64", "-g", "-r", "undionly.kpxe", "-l", "OUT", "127.0.0.1", port},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(argv[0]); err != nil {
				t.Skipf("%s is not installed", argv[0])
			}
			out := filepath.Join(t.TempDir(), "out")
			argv := strings.Split(strings.ReplaceAll(strings.Join(argv, "\n"), "OUT", out), "\n")
			if said, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s\n%s", err, said, log)
			}
			got, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, data) {
				t.Errorf("%d bytes arrived, not the %d that were sent", len(got), len(data))
			}
		})
	}
	if n := s.Counters(); n.TimedOut != 0 || n.Completed == 0 {
		t.Errorf("counters: %+v", n)
	}
	for _, want := range []string{"window=8", "window=64"} {
		if _, err := exec.LookPath("atftp"); err == nil && !strings.Contains(log.String(), want) {
			t.Errorf("no transfer had a %s:\n%s", want, log)
		}
	}
}

func TestRealClientsAreToldThatThereIsNoFile(t *testing.T) {
	p, _ := loader(t, 10)
	_, addr, _ := start(t, map[string]string{"undionly.kpxe": p}, nil)
	_, port, _ := net.SplitHostPort(addr)
	for _, name := range []string{"etc/passwd", "../../../../etc/passwd", "pxelinux.cfg/default"} {
		out, err := exec.CommandContext(t.Context(), "curl", "-sS", "--path-as-is", "tftp://127.0.0.1:"+port+"/"+name).CombinedOutput()
		if err == nil || strings.Contains(string(out), "root:") {
			t.Errorf("%s: %s", name, out)
		}
	}
}
