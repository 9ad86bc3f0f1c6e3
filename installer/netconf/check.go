package netconf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"imgbuild/image/plan"
	"imgbuild/installer/netup"
	"imgbuild/installer/report"
)

// CheckOptions say how a host's network is tried. A zero duration takes the default in its comment: long enough for a
// switch that learns before it forwards (IEEE 802.1D, twice 15 s).
type CheckOptions struct {
	Report report.Reporter // required; hears each finding as it is made
	// Reach tries the way back to the server; nil tries none.
	Reach Reach

	CarrierWait time.Duration // 20 s
	LACPWait    time.Duration // 40 s
	AnswerWait  time.Duration // for gateways, routers and DHCP servers, each; 40 s
	ReachWait   time.Duration // 20 s
}

// Finding is one thing that was seen, in one sentence that names the link.
type Finding struct {
	Link string // the plan's name
	OK   bool
	Text string
}

// Findings are in the order of the plan's links, what is seen first on a link first.
type Findings []Finding

// Failed are the texts of what is wrong.
func (f Findings) Failed() []string {
	var list []string
	for _, x := range f {
		if !x.OK {
			list = append(list, x.Text)
		}
	}
	return list
}

// Failure is the error of a network that does not work, as opposed to one that could not be tried.
type Failure struct{ Findings Findings }

func (e *Failure) Error() string {
	return "try the host's own network: " + strings.Join(e.Findings.Failed(), "; ")
}

// Check brings the host's own network up, tries it and goes back to the installer's network: every address, route and
// setting is as it was before, whatever was found, and also when ctx ends. What does not work is a *Failure; any other
// error is a fault of this machine. Nothing that the installer sends passes meanwhile, which may be a minute; connections
// that are open survive it if their other ends wait so long.
//
// The modules bonding and 8021q must be there for networks that need them; see Modules.
func Check(ctx context.Context, n *plan.Network, nics []plan.NIC, o CheckOptions) (Findings, error) {
	l, findings, err := up(ctx, n, nics, o)
	if err != nil {
		return findings, err
	}
	return findings, l.restore(ctx)
}

// Modules are the kernel modules that a network needs besides its cards' drivers.
func Modules(n *plan.Network) []string {
	var list []string
	if len(n.Bonds)+len(n.Teams) > 0 {
		list = append(list, "bonding") // a team is tried as the bond that does the same
	}
	if len(n.VLANs) > 0 {
		list = append(list, "8021q")
	}
	return list
}

// trial is a host's network that is up in the initramfs.
type trial struct {
	o       CheckOptions
	layout  *layout
	before  *state
	made    []string // links, in the order in which they were made
	leases  []*netup.Network
	scratch string         // directory
	dead    map[*link]bool // has no carrier, or nothing below that has one

	mu      sync.Mutex
	found   map[*link]Findings
	general Findings
}

// up is Check without the way back to the installer's network. After an error it has been restored.
func up(ctx context.Context, n *plan.Network, nics []plan.NIC, o CheckOptions) (*trial, Findings, error) {
	def := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.CarrierWait, 20*time.Second)
	def(&o.LACPWait, 40*time.Second)
	def(&o.AnswerWait, 40*time.Second)
	def(&o.ReachWait, 20*time.Second)
	if err := n.Validate(); err != nil {
		return nil, nil, err
	}
	bonded := *n
	bonded.Teams = nil
	for _, t := range n.Teams {
		b := TeamBond(t)
		b.IP = t.IP
		bonded.Bonds = append(slices.Clone(bonded.Bonds), b)
	}
	plain, err := newLayout(&bonded, nics, "")
	if err != nil {
		return nil, nil, err
	}
	l := &trial{o: o, layout: plain, dead: map[*link]bool{}, found: map[*link]Findings{}}
	if l.scratch, err = os.MkdirTemp("", "netconf"); err != nil {
		return nil, nil, fmt.Errorf("try the host's own network: %w", err)
	}
	if err = l.prepare(); err == nil {
		if l.before, err = capture(); err == nil {
			err = l.try(ctx)
		}
	}
	if err == nil {
		if found := l.findings(); len(found.Failed()) > 0 {
			err = &Failure{found}
		} else {
			return l, found, nil
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("try the host's own network: %w", cause)
	}
	return nil, l.findings(), errors.Join(err, l.restore(ctx))
}

// restore goes back to the installer's network as it was before up. It does so even when ctx has ended.
func (l *trial) restore(ctx context.Context) error {
	defer os.RemoveAll(l.scratch)
	if l.before == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.o.CarrierWait+time.Minute) // twice refusedWait, and solicitations
	defer cancel()
	for _, n := range l.leases {
		n.Close()
	}
	var errs []error
	for _, name := range slices.Backward(l.made) {
		if err := unmake(name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, l.before.restore(ctx, l.o.CarrierWait))...)
}

// servers are the DNS servers that the host's network has.
func (l *trial) servers() []netip.Addr {
	if len(l.layout.dns) > 0 {
		return l.layout.dns
	}
	var list []netip.Addr
	for _, n := range l.leases {
		list = append(list, n.DNS...)
	}
	return list
}

// try brings all up and looks at it. What is wrong with the network is a finding and no error.
func (l *trial) try(ctx context.Context) error {
	if err := l.before.clear(); err != nil {
		return err
	}
	if err := l.build(); err != nil {
		return err
	}
	l.checkCarriers(ctx)
	l.checkLACP(ctx)
	l.checkStacked(ctx)
	if err := l.lease(ctx); err != nil {
		return err
	}
	if err := l.configure(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if l.o.Reach != nil && len(l.findings().Failed()) == 0 {
		l.checkReach(ctx)
	}
	return nil
}

// seen takes down a finding on a link.
func (l *trial) seen(k *link, ok bool, format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	name := ""
	if k != nil {
		name = k.name
		text = l.title(k) + ": " + text
	}
	f := Finding{name, ok, text}
	l.mu.Lock()
	defer l.mu.Unlock()
	if k != nil {
		l.found[k] = append(l.found[k], f)
	} else {
		l.general = append(l.general, f)
	}
	if ok {
		l.o.Report.Info("network check: %s", text)
	} else {
		l.o.Report.Warn("network check: %s", text)
	}
}

// title is a link for people: "lan0 (eth0, 52:54:00:12:34:56)", "bond0".
func (l *trial) title(k *link) string {
	if k.nic == nil {
		return k.name
	}
	if k.nic.Name == k.name {
		return card(k.nic)
	}
	return k.name + " (" + k.nic.Name + ", " + mac(k.nic) + ")"
}

func (l *trial) findings() Findings {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list Findings
	for _, k := range l.layout.links {
		list = append(list, l.found[k]...)
	}
	return append(list, l.general...)
}

// current is the name that a link's interface has in the initramfs.
func (k *link) current() string {
	if k.nic != nil {
		return k.nic.Name
	}
	return k.name
}

func (l *trial) resolvConf(k *link) string {
	return filepath.Join(l.scratch, k.current()+".resolv.conf")
}
