//go:build integration

package testvm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"
)

func testHost(t *testing.T, need Need) *Host {
	t.Helper()
	h, err := NewHost(t.Context(), need)
	if errors.Is(err, ErrRoot) || errors.Is(err, ErrTool) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("accelerator %s: %s", h.Accel, h.AccelReason)
	return h
}

func testNetwork(t *testing.T, h *Host, c NetworkConfig) *Network {
	t.Helper()
	c.Log = func(l string) { t.Log(l) }
	n, err := h.NewNetwork(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// A machine with an empty disk and a network card asks for iPXE's script and runs it, and is gone after Close.
func TestMachineBootsFromTheNetworkIntoIPXE(t *testing.T) {
	for _, fw := range []Firmware{BIOS, UEFI} {
		t.Run(string(fw), func(t *testing.T) {
			h := testHost(t, NeedDnsmasq|NeedUEFI|NeedIPXEEFI)
			n := testNetwork(t, h, NetworkConfig{})
			n.Web().Put("boot.ipxe", []byte("#!ipxe\necho serial ${serial} mac ${mac} end\nprompt\n"))
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			transcript := filepath.Join(t.TempDir(), "console.log")
			m, err := n.Start(ctx, Config{Name: "pxe", Firmware: fw, MemoryMiB: 512, CPUs: 1, NICs: []NIC{{}},
				SMBIOS: SMBIOS{Serial: "TV,0001"}, Boot: Boot{Kind: BootNetwork}}, ConsoleConfig{Transcript: transcript})
			if err != nil {
				t.Fatal(err)
			}
			r, err := n.Web().AwaitRequest(ctx, "boot.ipxe")
			if err != nil {
				t.Fatalf("%v\n%s", err, m.Console().Text())
			}
			if ok, _ := regexp.MatchString(`^iPXE/`, r.Agent); !ok || r.Status != 200 {
				t.Errorf("the script was asked for by %q and answered with %d", r.Agent, r.Status)
			}
			got, err := m.Console().Expect(ctx, regexp.MustCompile(`serial (\S+) mac (\S+) end`))
			if err != nil {
				t.Fatal(err)
			}
			mac := m.Config().NICs[0].MAC
			if got.Groups[1] != "TV,0001" || got.Groups[2] != mac {
				t.Errorf("iPXE says serial %q, MAC %q", got.Groups[1], got.Groups[2])
			}
			leases, err := n.Leases()
			if err != nil || !slices.ContainsFunc(leases, func(l Lease) bool { return l.MAC == mac }) {
				t.Errorf("leases %v, %v", leases, err)
			}
			begin := time.Now()
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if d := time.Since(begin); d > quitTimeout {
				t.Errorf("it took %v to end", d)
			}
			if exit, err := m.Wait(ctx); err != nil || exit.Reason != "host-qmp-quit" {
				t.Errorf("ended with %+v, %v", exit, err)
			}
			if b, err := os.ReadFile(transcript); err != nil || len(b) == 0 {
				t.Errorf("transcript: %d bytes, %v", len(b), err)
			}
		})
	}
}
