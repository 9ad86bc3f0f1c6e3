package netconf

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// bondStatus is what the bonding driver says of a bond in 802.3ad mode (/proc/net/bonding).
type bondStatus struct {
	aggregator string // the active one's ID
	partner    string // its partner's MAC address
	ports      map[string]portStatus
}

type portStatus struct {
	up         bool
	aggregator string
	details    bool   // kernels before 4.0 do not say what follows
	partner    string // system MAC address
	state      int    // the partner port's, as in IEEE 802.1AX, section 6.4.2.3
}

const noPartner = "00:00:00:00:00:00"

// parseBonding reads a file of /proc/net/bonding.
func parseBonding(text string) bondStatus {
	b := bondStatus{ports: map[string]portStatus{}}
	port, partnerPDU := "", false
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		p := b.ports[port]
		switch strings.ToLower(key) {
		case "slave interface":
			port, partnerPDU = value, false
			p = portStatus{}
		case "aggregator id":
			if port == "" {
				b.aggregator = value
			}
			p.aggregator = value
		case "partner mac address":
			if port == "" {
				b.partner = value
			}
		case "mii status":
			p.up = value == "up"
		case "details actor lacp pdu":
			partnerPDU = false
		case "details partner lacp pdu":
			partnerPDU, p.details = true, true
		case "system mac address":
			if partnerPDU {
				p.partner = value
			}
		case "port state":
			if partnerPDU {
				p.state, _ = strconv.Atoi(value) // 0, which is nothing, for what is no number
			}
		}
		if port != "" {
			b.ports[port] = p
		}
	}
	return b
}

// fault says what is wrong with a port; "" if it carries traffic.
func (b bondStatus) fault(name string) string {
	const inSync, collecting, distributing = 0x08, 0x10, 0x20
	p, ok := b.ports[name]
	switch {
	case !ok:
		return "the bond does not have the port"
	case !p.up:
		return "the bond says that the port is down"
	case p.details && p.partner == noPartner, !p.details && b.partner == noPartner:
		return "no LACP partner: the switch's port is not in a link aggregation group that uses LACP, or is passive on both ends"
	case p.details && b.partner != noPartner && p.partner != b.partner:
		return fmt.Sprintf("its LACP partner is %s and the other ports' is %s: it is plugged into another switch, or these are not one group", p.partner, b.partner)
	case p.aggregator != b.aggregator:
		return fmt.Sprintf("the switch has it in another link aggregation group than the other ports (aggregator %s and not %s)", p.aggregator, b.aggregator)
	case p.details && p.state&(inSync|collecting|distributing) != inSync|collecting|distributing:
		return fmt.Sprintf("its LACP partner %s does not use the port (its state is %#x): is the port one of the group on the switch?", p.partner, p.state)
	}
	return ""
}

// checkLACP waits until the partners of all ports in LACP bonds have taken them.
func (l *trial) checkLACP(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.o.LACPWait)
	defer cancel()
	for _, k := range l.layout.links {
		if k.bond == nil || k.bond.Mode != "802.3ad" || l.dead[k] {
			continue
		}
		tick := time.NewTicker(250 * time.Millisecond) // the driver tells nobody when LACP has agreed
		status, faults := bondStatus{}, map[*link]string{}
		for begun := true; begun || len(faults) > 0 && ctx.Err() == nil; begun = false {
			if !begun {
				select {
				case <-ctx.Done():
				case <-tick.C:
				}
			}
			faults = map[*link]string{}
			text, err := os.ReadFile(filepath.Join("/proc/net/bonding", k.name))
			status = parseBonding(string(text))
			for _, m := range l.layout.members(k) {
				if l.dead[m] {
					continue
				}
				if err != nil {
					faults[m] = err.Error()
				} else if f := status.fault(m.current()); f != "" {
					faults[m] = f
				}
			}
		}
		tick.Stop()
		good := 0
		for _, m := range l.layout.members(k) {
			if faults[m] != "" {
				l.seen(k, false, "port %s: %s", l.title(m), faults[m])
			} else if !l.dead[m] {
				good++
			}
		}
		if good > 0 {
			l.seen(k, true, "LACP partner is %s, on %d ports", status.partner, good)
		}
		l.dead[k] = good == 0
		for _, v := range l.layout.links {
			if v.below == k {
				l.dead[v] = l.dead[k]
			}
		}
	}
}
