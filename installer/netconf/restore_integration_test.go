//go:build integration

package netconf

import (
	"strings"
	"testing"
	"time"
)

// learned waits until the machine has made an address of an advertisement.
func (l *lab) learned(link, address string) {
	l.t.Helper()
	for range 200 {
		var links []struct {
			Addrs []struct {
				Local string `json:"local"`
			} `json:"addr_info"`
		}
		l.read("-j -6 addr show dev "+link+" dynamic", &links)
		for _, k := range links {
			for _, a := range k.Addrs {
				if a.Local == address {
					return
				}
			}
		}
		time.Sleep(100 * time.Millisecond) // ip monitor would miss what is over before it listens
	}
	l.t.Fatalf("%s has not learned %s", link, address)
}

// has tests what there is of the machine's network: a line that has all of these, or none.
func (l *lab) has(want bool, texts ...string) {
	l.t.Helper()
	state, found := l.state(), false
	for line := range strings.Lines(state) {
		all := true
		for _, text := range texts {
			all = all && strings.Contains(line, text)
		}
		found = found || all
	}
	if found != want {
		l.t.Errorf("%q is there: %v, in\n%s", texts, found, state)
	}
}

func TestWhatTheKernelRefusesAtFirstIsGivenBack(t *testing.T) {
	l := newLab(t, 1)
	l.router()
	// No route may have a source address that is still tentative.
	l.machine.ip("-6 addr add fd09::60/64 dev eth0")
	l.settle()
	l.machine.ip("-6 route add fd78::/64 via fd09::1 dev eth0 src fd09::60")
	l.want(l.check(front), false)
}

func TestTwoRoutesWithOneMetricAreGivenBack(t *testing.T) {
	l := newLab(t, 2)
	l.router()
	l.machine.ip("route append default via 10.9.0.2 dev eth0 proto 16 src 10.9.0.50", "-6 route add fd79::/64 dev eth0 metric 5", "-6 route append fd79::/64 dev eth1 metric 5")
	l.want(l.check(front), false)
}

func TestWhatEndsMeanwhileIsNotGivenBack(t *testing.T) {
	l := newLab(t, 1)
	l.settle()
	l.machine.ip("-6 addr add fd09::61/64 dev eth0 nodad valid_lft 6 preferred_lft 2", "-6 addr add fd09::62/64 dev eth0 nodad valid_lft 3000 preferred_lft 2",
		"-6 route add fd78::/64 via fd09::1 dev eth0 expires 6")
	got := l.run(front, func(r *request) { r.Waits[2] = 2 * time.Second }) // for each of four next hops
	if !got.Failure || strings.Contains(got.Err, "go back") {
		t.Errorf("%+v", got)
	}
	l.has(false, "fd09::61")
	l.has(false, "fd78::/64")
	l.has(true, `"local":"fd09::62"`)
	l.has(true, `"dst":"default"`, `"gateway":"fd09::1"`)
}

func TestWhatASilentRouterHadAdvertisedIsGivenBack(t *testing.T) {
	l := newLab(t, 2)
	l.router()
	l.machine.ip("-6 route del default dev eth0")
	l.peer.ip("addr add 10.7.0.1/24 dev peer1", "-6 addr add fd07::1/64 dev peer1 nodad")
	l.peer.set("ipv6/conf/peer1/forwarding", "1")
	l.peer.dnsmasq("peer1", "--dhcp-range=10.7.0.50,10.7.0.60,255.255.255.0,2m", "--dhcp-range=fd07::,ra-only,1h", "--enable-ra")
	l.learned("eth1", "fd07::5054:ff:fe00:101")
	l.settle()
	l.peer.set("ipv6/conf/peer1/disable_ipv6", "1")
	got := l.run(front)
	l.want(got, false)
	l.settle()
	l.has(true, `"local":"fd07::5054:ff:fe00:101"`, `"dynamic":true`)
	l.has(true, `"dst":"default"`, `"gateway":"fe80::5054:ff:fe00:201"`, `"protocol":"ra"`, `"expires"`)
}
