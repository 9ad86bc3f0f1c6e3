//go:build integration

package netconf

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// el7Packages are those of CentOS 7 that its NetworkManager, D-Bus and network scripts need. The first has the links from
// /bin and /sbin that others go through.
const el7Packages = `filesystem audit-libs bash bind-libs bzip2-libs chkconfig coreutils cyrus-sasl-lib dbus dbus-glib dbus-libs dhclient dhcp-common dhcp-libs elfutils-libelf elfutils-libs expat
findutils gawk glib2 glibc glibc-common gmp gnutls grep hostname initscripts iproute iputils jansson keyutils-libs krb5-libs libacl libattr libblkid libcap libcap-ng
libcom_err libcurl libdb libffi libgcc libgcrypt libgpg-error libgudev1 libidn libmnl libmount libndp libnl3 libselinux libssh2 libstdc++ libtasn1 libuuid lz4 ncurses-libs net-tools
nettle nspr nss nss-softokn nss-softokn-freebl nss-util openldap openssl-libs p11-kit pcre polkit polkit-libs popt procps-ng readline sed sqlite systemd systemd-libs trousers
util-linux xz-libs zlib NetworkManager NetworkManager-libnm`

// el7Root unpacks real packages into a directory.
func el7Root(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("IMGBUILD_EL7")
	if dir == "" {
		t.Skip("IMGBUILD_EL7 names no directory with real CentOS 7 packages")
	}
	for _, tool := range []string{"rpm2cpio", "cpio"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	root := t.TempDir()
	for _, name := range strings.Fields(el7Packages) {
		found, err := filepath.Glob(filepath.Join(dir, "*", "Packages", name+"-[0-9]*.rpm"))
		if err != nil || len(found) == 0 {
			continue // a library that this release has in another package
		}
		unpack, write := exec.Command("rpm2cpio", found[0]), exec.Command("cpio", "--extract", "--make-directories", "--unconditional", "--quiet")
		write.Dir = root
		if write.Stdin, err = unpack.StdoutPipe(); err != nil {
			t.Fatal(err)
		}
		if err := write.Start(); err != nil {
			t.Fatal(err)
		}
		if err := unpack.Run(); err != nil {
			t.Fatalf("%s: %v", found[0], err)
		}
		// Device nodes and files with capabilities are none of what is tested.
		_ = write.Wait()
	}
	// What scriptlets and the first boot make.
	run := filepath.Join(root, "var/run")
	if err := errors.Join(os.WriteFile(filepath.Join(root, "etc/resolv.conf"), nil, 0o644), os.RemoveAll(run), os.Symlink("../run", run)); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"usr/sbin/NetworkManager", "usr/bin/dbus-daemon", "etc/sysconfig/network-scripts/ifup-eth"} {
		if _, err := os.Stat(filepath.Join(root, program)); err != nil {
			t.Skipf("the packages in %s are not enough: %v", dir, err)
		}
	}
	return root
}

// rename does what EL7's udev does when the cards appear: it asks the real rename_device for the name of each.
func (n *netns) rename(root string, files []File) {
	n.t.Helper()
	s := system{Root: root, Files: files}
	if err := s.write(); err != nil {
		n.t.Fatal(err)
	}
	for _, c := range cards {
		// It reads the card's address from /sys, so that this must be the namespace's.
		cmd := n.command(n.t.Context(), "unshare", "--mount", self(n.t), c.Name, root)
		cmd.Env = append(os.Environ(), "NETCONF_ROLE=rename")
		out, err := cmd.CombinedOutput()
		if err != nil {
			n.t.Fatalf("rename_device %s: %v: %s", c.Name, err, out)
		}
		if name := strings.TrimSpace(string(out)); name != "" && name != c.Name {
			n.ip("link set "+c.Name+" down", "link set "+c.Name+" name "+name)
		}
	}
}

// clean removes what the last network wrote.
func clean(t *testing.T, root string) {
	t.Helper()
	for _, glob := range []string{"etc/sysconfig/network-scripts/ifcfg-[^l]*", "etc/sysconfig/network-scripts/ifcfg-l[^o]*", "etc/sysconfig/network-scripts/route*", "etc/NetworkManager/conf.d/*"} {
		found, _ := filepath.Glob(filepath.Join(root, glob))
		for _, f := range found {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestTheNetworkManagerOfEL7UnderstandsTheIfcfgFiles(t *testing.T) {
	newLab(t, 0) // skips where there are no namespaces
	root := el7Root(t)
	for name, n := range networks(t) {
		t.Run(name, func(t *testing.T) {
			clean(t, root)
			files, err := Files(n, "web1.example.org", cards, forms["el7"])
			if err != nil {
				t.Fatal(err)
			}
			l, err := newLayout(n, cards, "S1")
			if err != nil {
				t.Fatal(err)
			}
			machine, peer := newMachine(t)
			machine.rename(root, files)
			m := system{Root: root, Files: files, Hostname: "web1.example.org"}.start(t, machine, peer)
			golden(t, "testdata/"+name+".nm7", m.understood(l))
			switch name {
			case "static":
				m.has("lan0", "mtu 9000", "inet 192.0.2.5/24", "inet 192.0.2.6/24", "inet6 2001:db8::5/64", "default via 192.0.2.1", "10.0.0.0/8 via 192.0.2.254", "metric 50", "default via fe80::1", "2001:db8:1::/48 via 2001:db8::fe")
				m.down("eth1", "eth2", "eth3")
			case "several":
				m.has("eth3", "inet 198.51.100.5/24", "default via 198.51.100.1", "inet6 2001:db8:2::5/64", "default via 2001:db8:2::1")
			case "vlan":
				m.has("lan0", ",UP")
			}
			if got := strings.TrimSpace(m.run("hostname")); got != "web1.example.org" {
				t.Errorf("the host name is %s", got)
			}
		})
	}
}

func TestTheNetworkScriptsOfEL7BringTheLinksUp(t *testing.T) {
	newLab(t, 0)
	root := el7Root(t)
	for _, c := range []struct {
		network string
		up      []string
		has     map[string][]string
	}{
		{"static", []string{"lan0"}, map[string][]string{"lan0": {"mtu 9000", "inet 192.0.2.5/24", "inet 192.0.2.6/24", "inet6 2001:db8::5/64", "inet6 2001:db8::6/64", "default via 192.0.2.1",
			"10.0.0.0/8 via 192.0.2.254", "metric 50", "172.16.0.0/12 via 192.0.2.254", "default via fe80::1", "2001:db8:1::/48 via 2001:db8::fe"}}},
		{"several", []string{"front", "spare", "storage"}, map[string][]string{"eth3": {"inet 198.51.100.5/24", "default via 198.51.100.1", "inet6 2001:db8:2::5/64", "default via 2001:db8:2::1"},
			"eth2": {",UP"}, "eth1": {"mtu 9000", "inet6 2001:db8:3::5/64"}}},
	} {
		t.Run(c.network, func(t *testing.T) {
			clean(t, root)
			n := networks(t)[c.network]
			files, err := Files(n, "web1.example.org", cards, forms["el7"])
			if err != nil {
				t.Fatal(err)
			}
			machine, peer := newMachine(t)
			for i, card := range cards {
				// The scripts find a card in what ip says of all links, which for one end of a cable is name@number. A bridge is
				// called by its name alone, as a real card is.
				machine.ip(fmt.Sprintf("link set %s name cable%d address 52:54:00:00:03:%02x up", card.Name, i, i), fmt.Sprintf("link add %s address %s mtu 9000 type bridge stp_state 0 forward_delay 0", card.Name, mac(&card)),
					fmt.Sprintf("link set cable%d mtu 9000 master %s", i, card.Name))
			}
			machine.rename(root, files)
			m := system{Root: root, Files: files, Hostname: "web1.example.org", Plain: true}.start(t, machine, peer)
			for _, link := range c.up {
				if out := m.run("bash", "/etc/sysconfig/network-scripts/ifup", "ifcfg-"+link); out != "" {
					t.Log(out)
				}
			}
			for link, texts := range c.has {
				m.has(link, texts...)
			}
			if c.network == "static" {
				m.down("eth1", "eth2", "eth3")
				if resolv := m.run("cat", "/etc/resolv.conf"); !strings.Contains(resolv, "search example.org lab.example.org") || !strings.Contains(resolv, "nameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver 192.0.2.54\n") {
					t.Error(resolv)
				}
			}
			if accept := m.run("cat", "/proc/sys/net/ipv6/conf/"+map[string]string{"static": "lan0", "several": "eth3"}[c.network]+"/accept_ra"); accept != "0\n" {
				t.Errorf("accept_ra is %s", accept)
			}
		})
	}
}
