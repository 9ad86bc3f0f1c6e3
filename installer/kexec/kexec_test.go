package kexec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgbuild/installer/hw"
)

func TestWhyAMachineStartsNoOtherKernelIsSaid(t *testing.T) {
	for _, c := range []struct {
		name, sysctl string
		sysctlErr    error
		try          error
		says         string // empty: it can
	}{
		{name: "a usual kernel", sysctl: "0\n", try: unix.EBADF},
		{name: "a kernel without the sysctl", sysctlErr: fs.ErrNotExist, try: unix.EBADF},
		{name: "switched off", sysctl: "1\n", try: unix.EBADF, says: "kernel.kexec_load_disabled is set"},
		{name: "no CONFIG_KEXEC_FILE", sysctlErr: fs.ErrNotExist, try: unix.ENOSYS, says: "the running kernel has no CONFIG_KEXEC_FILE"},
		{name: "locked down", sysctl: "0\n", try: unix.EPERM, says: "locked down (Secure Boot)"},
		{name: "no answer", sysctlErr: fs.ErrPermission, try: unix.EBADF, says: "permission"},
	} {
		err := supported(func(string) ([]byte, error) { return []byte(c.sysctl), c.sysctlErr }, func() error { return c.try })
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestTheRunningKernelIsAsked loads nothing: there is no kernel in the file.
func TestTheRunningKernelIsAsked(t *testing.T) {
	if Loaded() {
		t.Skip("this machine has a kernel loaded")
	}
	can := Supported()
	t.Log(can)
	f, err := memory("kernel", 100, strings.NewReader("no kernel"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Load(f, f, "root=/dev/null"); err == nil || !strings.HasPrefix(err.Error(), "load the next kernel: ") {
		t.Errorf("got %v", err)
	}
	if Loaded() {
		t.Error("something was loaded")
	}
	if err := Exec(); err == nil || err.Error() != "start the next kernel: none is loaded" {
		t.Errorf("got %v", err)
	}
}

func TestWhatTheKernelAnswersIsExplained(t *testing.T) {
	for err, says := range map[error]string{unix.EKEYREJECTED: "signature", unix.ENOKEY: "signature", unix.ENOEXEC: "no kernel", unix.EINVAL: "too long", unix.ENOMEM: "too little memory", unix.EIO: ""} {
		if got := reason(fmt.Errorf("x: %w", err)); !strings.Contains(got, says) || (got == "") != (says == "") {
			t.Errorf("%v: %q", err, got)
		}
	}
}

func TestModelsAreDenied(t *testing.T) {
	m := hw.Machine{Vendor: "Dell Inc.", Product: "PowerEdge R640"}
	for list, want := range map[string]bool{
		"": false, "Dell Inc. PowerEdge R640": true, "dell inc. poweredge r6?0*": true, "*R640": true, "*": true, "HPE*": false, "PowerEdge R640": false,
		"HPE*|*PowerEdge*": true, "[": false, "[|*R640": true,
	} {
		if err := Allowed(strings.Split(list, "|"), m); (err != nil) != want {
			t.Errorf("%q: %v", list, err)
		}
	}
	if Allowed([]string{"ibm system x3650 m4 -*"}, hw.Machine{Vendor: "IBM", Product: "System x3650 M4 -a/b-"}) == nil {
		t.Error("a slash ends a glob")
	}
	if err := Allowed([]string{"HPE*", "*r640"}, m); err == nil || !strings.Contains(err.Error(), `"*r640"`) || !strings.Contains(err.Error(), "Dell Inc. PowerEdge R640") {
		t.Errorf("it does not say why: %v", err)
	}
	if Allowed(nil, m) != nil {
		t.Error("nobody denied it")
	}
}

func TestFilesInMemoryHaveALimit(t *testing.T) {
	f, err := memory("initrd", 10, strings.NewReader("micro"), strings.NewReader("code!"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f); err != nil || string(b) != "microcode!" {
		t.Errorf("%q, %v", b, err)
	}
	f.Close()
	for _, text := range []string{"", "more than ten bytes"} {
		if f, err := memory("initrd", 10, strings.NewReader(text)); err == nil {
			f.Close()
			t.Errorf("%q was taken", text)
		}
	}
	if _, err := memory("initrd", 10, broken{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, os.ErrClosed }
