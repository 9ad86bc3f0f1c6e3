//go:build integration

package testvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/vishvananda/netlink"
)

// netnsOf returns the network namespaces of the threads of a process.
func netnsOf(t *testing.T, pid string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/" + pid + "/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var ns []string
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && !slices.Contains(ns, to) {
			ns = append(ns, to)
		}
	}
	return ns
}

// eventually waits for something that the kernel does after the call that causes it has returned and that it tells
// nobody about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestNothingIsLeftOfANetworkWithAMachine(t *testing.T) {
	for _, how := range []string{"Close", "the end of its context"} {
		t.Run("after "+how, func(t *testing.T) {
			h := testHost(t, NeedDnsmasq)
			before, temp := netnsOf(t, "self"), tempFiles(t)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			n, err := h.NewNetwork(ctx, NetworkConfig{})
			if err != nil {
				t.Fatal(err)
			}
			m, err := n.Start(ctx, Config{Name: "left", MemoryMiB: 128, CPUs: 1, NICs: []NIC{{}, {Unplugged: true}}}, ConsoleConfig{})
			if err != nil {
				n.Close()
				t.Fatal(err)
			}
			if links := linksIn(t, n.Namespace()); !slices.Equal(links, []string{"br0", "lo", "tap1", "tap2"}) {
				t.Errorf("interfaces %v", links)
			}
			pids := []int{m.PID(), n.dhcp.cmd.Process.Pid}
			if during := netnsOf(t, "self"); len(during) != len(before)+1 {
				t.Errorf("namespaces before %v, during %v", before, during)
			}
			if how == "Close" {
				err = n.Close()
			} else {
				cancel()
				<-m.Ended()
				err = n.Close()
			}
			if err != nil {
				t.Error(err)
			}
			for _, pid := range pids {
				if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("process %d is still there", pid)
				}
			}
			eventually(t, "the namespace is gone", func() bool { return slices.Equal(netnsOf(t, "self"), before) })
			if after := tempFiles(t); !slices.Equal(after, temp) {
				t.Errorf("temporary files before %v, after %v", temp, after)
			}
			if _, err := n.Start(context.Background(), Config{Name: "late"}, ConsoleConfig{}); !errors.Is(err, ErrClosed) {
				t.Errorf("a machine on a closed network: %v", err)
			}
		})
	}
}

func tempFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(os.TempDir(), "testvm-*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func linksIn(t *testing.T, ns *Namespace) []string {
	t.Helper()
	var names []string
	err := ns.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			names = append(names, l.Attrs().Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func TestNamespacesDoNotMeet(t *testing.T) {
	h := testHost(t, NeedDnsmasq)
	dir := t.TempDir()
	one, two := testNetwork(t, h, NetworkConfig{Dir: dir}), testNetwork(t, h, NetworkConfig{Dir: dir})
	one.Web().Put("who", []byte("one"))
	two.Web().Put("who", []byte("two"))
	for want, n := range map[string]*Network{"one": one, "two": two} {
		got := get(t, n, "who")
		if got != want {
			t.Errorf("in the namespace of %s, %s answers", want, got)
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if a.String() == networkPrefix {
			t.Error("the host has the test network's address")
		}
	}
}

// get fetches a URL from inside the network.
func get(t *testing.T, n *Network, name string) string {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, addr string) (c net.Conn, err error) {
		err = n.Namespace().Do(func() error { c, err = net.DialTimeout(network, addr, time.Second); return err })
		return c, err
	}}
	resp, err := (&http.Client{Transport: tr}).Get(n.URL(name))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDHCPTellsEachKindOfFirmwareWhatToLoad asks as a real client does, over a veth into the bridge.
func TestDHCPTellsEachKindOfFirmwareWhatToLoad(t *testing.T) {
	h := testHost(t, NeedDnsmasq|NeedIPXEEFI|NeedIPXEBIOS)
	n := testNetwork(t, h, NetworkConfig{})
	if err := n.Namespace().Do(func() error {
		br, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		la := netlink.NewLinkAttrs()
		la.Name, la.MasterIndex = "port", br.Attrs().Index
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: "client"}); err != nil {
			return err
		}
		for _, name := range []string{"port", "client"} {
			l, err := netlink.LinkByName(name)
			if err == nil {
				err = netlink.LinkSetUp(l)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		arch iana.Arch
		ipxe bool
		file string
	}{
		{"a BIOS card without iPXE", iana.INTEL_X86PC, false, "undionly.kpxe"},
		{"a UEFI", iana.EFI_BC, false, "ipxe.efi"},
		{"a UEFI that says it with another number", iana.EFI_X86_64, false, "ipxe.efi"},
		{"iPXE on BIOS", iana.INTEL_X86PC, true, "http://10.77.0.1/boot.ipxe"},
		{"iPXE on UEFI", iana.EFI_X86_64, true, "http://10.77.0.1/boot.ipxe"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mods := []dhcpv4.Modifier{
				dhcpv4.WithOption(dhcpv4.OptClientArch(tt.arch)),
				dhcpv4.WithRequestedOptions(dhcpv4.OptionBootfileName, dhcpv4.OptionTFTPServerName),
			}
			if tt.ipxe {
				mods = append(mods, dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(175), []byte{0xb1, 0x01, 0x01}))
			}
			var offer *dhcpv4.DHCPv4
			if err := n.Namespace().Do(func() error {
				c, err := nclient4.New("client", nclient4.WithTimeout(5*time.Second))
				if err != nil {
					return err
				}
				defer c.Close()
				offer, err = c.DiscoverOffer(t.Context(), mods...)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			file := offer.BootFileName
			if file == "" {
				file = offer.BootFileNameOption()
			}
			if file != tt.file || !net.IPv4(10, 77, 0, 1).Equal(offer.ServerIPAddr) {
				t.Errorf("boot file %q from %v", file, offer.ServerIPAddr)
			}
		})
	}
}

func TestAQEMUThatCannotStartSaysWhy(t *testing.T) {
	h := testHost(t, NeedDnsmasq)
	n := testNetwork(t, h, NetworkConfig{})
	_, err := n.Start(t.Context(), Config{Name: "broken", Disks: []Disk{{Path: "/nonexistent.img"}}}, ConsoleConfig{})
	if err == nil || !strings.Contains(err.Error(), "/nonexistent.img") || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("got %v", err)
	}
}
