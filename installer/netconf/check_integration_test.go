//go:build integration

package netconf

import (
	"strings"
	"testing"
)

const front = `
ethernets:
  - name: front
    match: {order: 1}
    addresses: [192.0.2.5/24, 192.0.2.6/24, "2001:db8::5/64"]
    gateway4: 192.0.2.1
    gateway6: "2001:db8::1"
    routes: [{to: 10.1.0.0/16, via: 192.0.2.254}, {to: "2001:db8:1::/48", via: "2001:db8::fe"}]
`

// router gives peer0 what the network above expects of the other end.
func (l *lab) router() {
	l.t.Helper()
	l.peer.ip("addr add 192.0.2.1/24 dev peer0", "addr add 192.0.2.254/24 dev peer0", "-6 addr add 2001:db8::1/64 dev peer0 nodad", "-6 addr add 2001:db8::fe/64 dev peer0 nodad",
		"addr add 203.0.113.1/32 dev lo")
}

func (l *lab) want(got result, failed bool, texts ...string) {
	l.t.Helper()
	var all []string
	for _, f := range got.Findings {
		all = append(all, f.Text)
	}
	said := strings.Join(all, "\n")
	if !failed && (got.Err != "" || len(got.Findings.Failed()) > 0) {
		l.t.Errorf("error: %s", got.Err)
	}
	if failed {
		if !got.Failure {
			l.t.Errorf("not a failure of the network: %q", got.Err)
		}
		said = strings.Join(got.Findings.Failed(), "\n")
		if n := len(got.Findings.Failed()); n != len(texts) {
			l.t.Errorf("%d faults and not %d", n, len(texts))
		}
		for _, f := range got.Findings.Failed() {
			if !strings.Contains(got.Err, f) {
				l.t.Errorf("the error %q does not say %q", got.Err, f)
			}
		}
	}
	for _, want := range texts {
		if !strings.Contains(said, want) {
			l.t.Errorf("nothing says %q:\n%s", want, said)
		}
	}
}

func TestAGoodNetworkIsFoundGoodAndTheInstallersOwnIsGivenBack(t *testing.T) {
	l := newLab(t, 2)
	l.router()
	l.peer.serve()
	// 203.0.113.1 is reached through the host's gateway only: the installer's own is another.
	got := l.check(front+"  - {name: back, match: {order: 2}, addresses: [198.51.100.5/24], mtu: 1400}\n", func(r *request) {
		r.Server, r.Echo = "http://203.0.113.1/healthz", "10.9.0.1:7"
	})
	l.want(got, false, "front (eth0, 52:54:00:00:01:00): link is up", "back (eth1, 52:54:00:00:01:01): link is up", "gateway 192.0.2.1 answers, at 52:54:00:00:02:00",
		"next hop 192.0.2.254 of the route to 10.1.0.0/16 answers", "gateway 2001:db8::1 answers", "next hop 2001:db8::fe of the route to 2001:db8:1::/48 answers", "the server is reached")
	if got.Echo != "still here\n" {
		t.Errorf("a connection that was open did not survive: %q", got.Echo)
	}
}

func TestAnAddressThatAnotherMachineHasIsFound(t *testing.T) {
	l := newLab(t, 1)
	l.router()
	l.peer.ip("addr add 192.0.2.6/24 dev peer0", "-6 addr add 2001:db8::5/64 dev peer0 nodad")
	l.want(l.check(front), true, "the address 192.0.2.6 is in use by 52:54:00:00:02:00", "the address 2001:db8::5 is in use by another machine")
}

func TestAGatewayThatIsSilentIsFound(t *testing.T) {
	l := newLab(t, 1)
	l.peer.ip("addr add 192.0.2.254/24 dev peer0", "-6 addr add 2001:db8::fe/64 dev peer0 nodad")
	l.want(l.check(front), true, "gateway 192.0.2.1 does not answer 4 ARP requests in 4 s", "gateway 2001:db8::1 does not answer 4 neighbour solicitations in 4 s")
}

func TestAMissingCarrierIsFound(t *testing.T) {
	l := newLab(t, 2)
	l.router()
	l.settle() // what is tentative without a carrier stays so
	l.peer.ip("link set peer1 down")
	l.unplugged = "eth1"
	l.want(l.check(front+
		"  - {name: back, match: {order: 2}, addresses: [198.51.100.5/24], routes: [{to: 10.3.0.0/16, via: 198.51.100.1}]}\n"), true,
		"back (eth1, 52:54:00:00:01:01): no carrier after 4 s: is its cable plugged in and the switch's port enabled?")
}

func TestAServerThatIsNotReachedIsFound(t *testing.T) {
	l := newLab(t, 1)
	l.router()
	l.want(l.check(front, func(r *request) { r.Server = "http://203.0.113.1/" }), true, "the server is not reached from them: dial tcp 203.0.113.1:80: connect: connection refused")
	// The installer's own route to it does not count.
	l.peer.ip("addr del 203.0.113.1/32 dev lo")
	l.peer.serve()
	got := l.check(front, func(r *request) { r.Server, r.Echo = "http://10.9.0.1/", "10.9.0.1:7" })
	if got.Failure || got.Echo != "still here\n" {
		t.Errorf("10.9.0.1 is the gateway's other address, and reached through it: %+v", got)
	}
}

func TestDHCPAndAdvertisementsAreTried(t *testing.T) {
	l := newLab(t, 2)
	l.router()
	l.peer.ip("addr add 10.7.0.1/24 dev peer1", "-6 addr add fd07::1/64 dev peer1 nodad")
	l.peer.set("ipv6/conf/peer1/forwarding", "1")
	l.peer.dnsmasq("peer1", "--dhcp-range=10.7.0.50,10.7.0.60,255.255.255.0,2m", "--dhcp-range=fd07::,ra-only", "--enable-ra", "--dhcp-option=option:dns-server,10.7.0.1")
	l.learned("eth1", "fd07::5054:ff:fe00:101") // or it would come while all is compared
	got := l.check(front + "  - {name: mgmt, match: {order: 2}, dhcp4: true, accept_ra: true, routes: [{to: 10.6.0.0/16, via: 10.7.0.1}]}\n")
	l.want(got, false, "mgmt (eth1, 52:54:00:00:01:01): DHCP server 10.7.0.1 gives 10.7.0.5", "gives fd07::5054:ff:fe00:101/64", "next hop 10.7.0.1 of the route to 10.6.0.0/16 answers", "gateway 192.0.2.1 answers")
	l.want(l.check("ethernets: [{name: eth1, match: {order: 2}, dhcp4: true, routes: [{to: 10.6.0.0/16, via: 10.5.0.1}]}]"), true,
		"the next hop 10.5.0.1 of the route to 10.6.0.0/16 is not inside the network that DHCP gives")
}

func TestNobodyAnswersDHCPOrAdvertises(t *testing.T) {
	l := newLab(t, 1)
	l.want(l.check("ethernets: [{name: eth0, match: {order: 1}, dhcp4: true, accept_ra: true}]"), true, "eth0 (52:54:00:00:01:00): no DHCP server gives an address:", "no router advertises itself in 4 s")
}

func TestTheInstallersNetworkIsGivenBackWhenItIsStopped(t *testing.T) {
	l := newLab(t, 1)
	got := l.check(front, func(r *request) { r.Cancel = "link is up" })
	if got.Failure || !strings.Contains(got.Err, "the operator stopped it") || len(got.Findings) == 0 {
		t.Errorf("%+v", got)
	}
}

func TestAPortThatWasDownIsDownAgain(t *testing.T) {
	l := newLab(t, 2)
	l.router()
	l.peer.ip("addr add 198.51.100.1/24 dev peer1")
	// The kernel would not take back a route of which one way is down.
	l.machine.ip("route del 10.80.0.0/16", "link set eth1 down")
	l.want(l.check(front+"  - {name: back, match: {order: 2}, mtu: 1400, addresses: [198.51.100.5/24, \"2001:db8:2::5/64\"], routes: [{to: 10.3.0.0/16, via: 198.51.100.1}]}\n"), false,
		"back (eth1, 52:54:00:00:01:01): next hop 198.51.100.1 of the route to 10.3.0.0/16 answers")
}

func TestWhatCannotBeTriedTouchesNothing(t *testing.T) {
	l := newLab(t, 2)
	l.machine.ip("link set eth1 name other", "link set other up")
	got := l.check("ethernets: [{name: a, match: {order: 2}, dhcp4: true}]")
	if got.Failure || !strings.Contains(got.Err, "the card eth1 (52:54:00:00:01:01) is no longer there under this name") {
		t.Errorf("%+v", got)
	}
	l.machine.ip("link add br0 type bridge")
	got = l.check("ethernets: [{name: a, match: {order: 1}}]\nvlans: [{name: br0, id: 5, link: a, dhcp4: true}]")
	if got.Failure || !strings.Contains(got.Err, "there is already an interface called br0") {
		t.Errorf("%+v", got)
	}
}
