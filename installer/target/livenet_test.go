package target

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgbuild/image"
)

func TestALinkIsKept(t *testing.T) {
	root, dir := installed(t, nil)
	link := Link{
		Name: "eth0", Index: 2, MAC: net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0xa}, Addr: netip.MustParsePrefix("10.0.0.5/24"),
		Router: netip.MustParseAddr("10.0.0.1"), DNS: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")},
	}
	const keyfile = "etc/NetworkManager/system-connections/imgbuild-root.nmconnection"
	read := func(path string) string {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	t.Run("with a connection of the system", func(t *testing.T) {
		run := t.TempDir()
		link := link
		link.Connection = "11111111-2222-3333-4444-555555555555"
		if err := KeepLink(root, run, image.Ifcfg, link); err != nil {
			t.Fatal(err)
		}
		if got := read(filepath.Join(run, "devices/2")); got != "[device]\nmanaged=1\nconnection-uuid="+link.Connection+"\n" {
			t.Errorf("got %q", got)
		}
		if _, err := os.Stat(filepath.Join(dir, keyfile)); err == nil {
			t.Error("it has two connections")
		}
	})
	t.Run("with a connection that is made", func(t *testing.T) {
		run := t.TempDir()
		if err := KeepLink(root, run, image.NMKeyfile, link); err != nil {
			t.Fatal(err)
		}
		if got := read(filepath.Join(run, "devices/2")); !strings.Contains(got, "connection-uuid="+rootConnection+"\n") {
			t.Errorf("got %q", got)
		}
		got := read(filepath.Join(dir, keyfile))
		for _, want := range []string{"uuid=" + rootConnection + "\n", "mac-address=52:54:00:00:00:0A\n", "method=auto\naddress1=10.0.0.5/24\ngateway=10.0.0.1\ndns=10.0.0.2;10.0.0.3;\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is missing in:\n%s", want, got)
			}
		}
		if st, err := os.Stat(filepath.Join(dir, keyfile)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("NetworkManager passes over it: %v", err)
		}
		if got := read(filepath.Join(dir, "etc/NetworkManager/conf.d/99-imgbuild-root.conf")); !strings.Contains(got, "match-device=mac:52:54:00:00:00:0a\nkeep-configuration=no\n") {
			t.Errorf("got %s", got)
		}
	})
	if err := KeepLink(root, t.TempDir(), image.Networkd, link); err == nil || !strings.Contains(err.Error(), "needs NetworkManager") {
		t.Errorf("networkd: %v", err)
	}
}
