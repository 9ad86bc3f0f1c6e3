//go:build integration

package netconf

// Where this machine's kernel makes no bonds these tests run elsewhere: go test -c -tags integration makes one static program;
// with -test.run 'LACP|Bond|Team' it needs root, ip, nsenter and the modules veth, bonding and 8021q.

import (
	"strings"
	"testing"
	"time"
)

// newBondLab is a lab whose kernel makes bonds and VLANs.
func newBondLab(t *testing.T, ports int, kinds ...string) *lab {
	t.Helper()
	l := newLab(t, ports)
	for _, kind := range kinds {
		args := []string{"ip", "link", "add", "try0", "type", kind}
		if kind == "vlan" {
			args = []string{"ip", "link", "add", "link", "peer0", "name", "try0", "type", kind, "id", "4000"}
		}
		if out, err := l.peer.command(t.Context(), args...).CombinedOutput(); err != nil {
			t.Skipf("this kernel makes no %s: %s", kind, strings.TrimSpace(string(out)))
		}
		l.peer.ip("link del try0")
	}
	return l
}

// aggregate makes a bond of the peer's ports, as a switch would with its.
func (l *lab) aggregate(name, options string, ports ...string) {
	l.t.Helper()
	l.peer.ip("link add " + name + " type bond " + options)
	for _, p := range ports {
		l.peer.ip("link set "+p+" down", "link set "+p+" master "+name)
	}
	l.peer.ip("link set " + name + " up")
}

const lacp = `
ethernets:
  - {name: lan0, match: {order: 1}}
  - {name: lan1, match: {order: 2}}
bonds:
  - {name: bond0, members: [lan0, lan1], mode: 802.3ad, lacp_rate: fast, hash_policy: layer3+4, mtu: 1450, addresses: [192.0.2.5/24], gateway4: 192.0.2.1}
`

func TestAnLACPBondAndItsVLANsAreTried(t *testing.T) {
	l := newBondLab(t, 2, "bond", "vlan")
	l.aggregate("lag", "mode 802.3ad miimon 100 lacp_rate fast", "peer0", "peer1")
	l.peer.ip("addr add 192.0.2.1/24 dev lag", "link add link lag name lag.7 type vlan id 7", "link set lag.7 up", "addr add 198.51.100.1/24 dev lag.7")
	got := l.check(lacp + "vlans: [{name: bond0.7, id: 7, link: bond0, mtu: 1400, addresses: [198.51.100.5/24], routes: [{to: 10.3.0.0/16, via: 198.51.100.1}]}]\n")
	l.want(got, false, "lan0 (eth0, 52:54:00:00:01:00): link is up", "bond0: LACP partner is 52:54:00:00:02:00, on 2 ports", "bond0: gateway 192.0.2.1 answers", "bond0.7: next hop 198.51.100.1 of the route to 10.3.0.0/16 answers")

	l.peer.ip("addr add 192.0.2.5/24 dev lag", "link set lag.7 down")
	got = l.check(lacp + "vlans: [{name: bond0.7, id: 7, link: bond0, addresses: [198.51.100.5/24], routes: [{to: 10.3.0.0/16, via: 198.51.100.1}]}]\n")
	l.want(got, true, "bond0: the address 192.0.2.5 is in use by 52:54:00:00:02:00", "bond0.7: next hop 198.51.100.1 of the route to 10.3.0.0/16 does not answer")
}

func TestALACPPartnerThatIsNoneIsFound(t *testing.T) {
	l := newBondLab(t, 2, "bond")
	l.aggregate("lag", "mode 802.3ad miimon 100 lacp_rate fast", "peer0")
	l.peer.ip("addr add 192.0.2.1/24 dev lag")
	l.want(l.check(lacp), true, "bond0: port lan1 (eth1, 52:54:00:00:01:01): no LACP partner")
	l.aggregate("lag2", "mode 802.3ad miimon 100 lacp_rate fast", "peer1")
	got := l.check(lacp, func(r *request) { r.Waits[1] = 8 * time.Second })
	if !got.Failure || !strings.Contains(got.Err, "it is plugged into another switch, or these are not one group") {
		t.Errorf("%+v", got)
	}
	l.peer.ip("link set peer1 down")
	l.unplugged = "eth1"
	// A port that leaves a bond gets a new link-local address, which stays tentative without a carrier: so it has to begin.
	l.machine.ip("link set eth1 down", "link set eth1 up")
	got = l.check(lacp)
	l.want(got, true, "lan1 (eth1, 52:54:00:00:01:01): no carrier after 4 s")
}

func TestAnActiveBackupBondIsTried(t *testing.T) {
	l := newBondLab(t, 2, "bond")
	l.peer.ip("link add br0 type bridge stp_state 0 forward_delay 0", "link set peer0 master br0", "link set peer1 master br0", "link set br0 up", "addr add 192.0.2.1/24 dev br0")
	got := l.check(strings.Replace(lacp, "802.3ad, lacp_rate: fast, hash_policy: layer3+4", "active-backup, primary: lan1, primary_reselect: always, updelay: 100", 1))
	l.want(got, false, "bond0: gateway 192.0.2.1 answers")
	got = l.check(strings.Replace(lacp, "802.3ad, lacp_rate: fast, hash_policy: layer3+4", "active-backup, arp_interval: 200, arp_targets: [192.0.2.1], arp_validate: all, fail_over_mac: active", 1))
	l.want(got, false, "bond0: gateway 192.0.2.1 answers")
}

func TestATeamIsTriedAsTheBondThatDoesTheSame(t *testing.T) {
	l := newBondLab(t, 2, "bond")
	l.aggregate("lag", "mode 802.3ad miimon 100 lacp_rate fast", "peer0", "peer1")
	l.peer.ip("addr add 192.0.2.1/24 dev lag")
	got := l.check(strings.NewReplacer("bonds:", "teams:", "bond0", "team0", "mode: 802.3ad", "runner: lacp", ", hash_policy: layer3+4", "").Replace(lacp))
	l.want(got, false, "team0: LACP partner is 52:54:00:00:02:00, on 2 ports")
}

func TestAKernelWithoutBondsOrVLANsIsSaidSo(t *testing.T) {
	l := newLab(t, 2)
	for kind, want := range map[string]string{"bond": "add the module bonding to the image's initramfs", "vlan": "add the module 8021q to the image's initramfs"} {
		network := lacp
		args := []string{"ip", "link", "add", "try0", "type", "bond"}
		if kind == "vlan" {
			network = "ethernets: [{name: a, match: {order: 1}}]\nvlans: [{name: a.7, id: 7, link: a, dhcp4: true}]"
			args = []string{"ip", "link", "add", "link", "peer0", "name", "try0", "type", "vlan", "id", "7"}
		}
		if l.peer.command(t.Context(), args...).Run() == nil {
			l.peer.ip("link del try0")
			t.Logf("this kernel makes a %s", kind)
			continue
		}
		if got := l.check(network); got.Failure || !strings.Contains(got.Err, want) {
			t.Errorf("%+v", got)
		}
	}
}
