package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"imgbuild/image/identity"
	"imgbuild/image/plan"
	"imgbuild/installer"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/control"
	"imgbuild/installer/disk"
	"imgbuild/installer/firstboot"
	"imgbuild/installer/hw"
	"imgbuild/installer/inventory"
	"imgbuild/installer/kexec"
	"imgbuild/installer/lldp"
	"imgbuild/installer/netconf"
	"imgbuild/installer/target"
)

// Limits of what waits for a server that may be away.
const (
	stopLimit = 5 * time.Second  // to ask whether the order still stands, before the first write
	doneLimit = 60 * time.Second // to tell that the disk boots
	failLimit = 15 * time.Second // to tell that it does not; the first process gives a stopped worker 20 s
	bmcLimit  = 20 * time.Second
)

// How long parts of the host's own network may take while it is tried; no report passes meanwhile, and a machine that is
// silent for plan.LostSeconds is lost. A switch learns for up to 30 s before it forwards (IEEE 802.1D), and LACP's slow
// rate is a packet in 30 s.
const (
	carrierWait = 15 * time.Second
	lacpWait    = 35 * time.Second
	answerWait  = 35 * time.Second
)

// served is a run whose plan comes from a server.
type served struct {
	*worker
	client *control.Client
	events *control.Events

	neighbours *lldp.Listener // nil where nothing can be heard
	listening  time.Time
	bmc        *plan.BMC
	bmcKnown   chan struct{} // closed when bmc is known, or given up
}

// serve begins what takes its time: listening to switches and asking the management controller.
func (w *worker) serve(ctx context.Context, events *control.Events) *served {
	s := &served{worker: w, events: events, listening: time.Now(), bmcKnown: make(chan struct{})}
	s.client = control.New(control.Options{Server: w.args.Server, Key: w.args.ServerKey, Boot: w.args.Boot, Report: w.say})
	var err error
	s.neighbours, err = lldp.Listen(func(link string, n plan.Neighbour) {
		w.say.Info("%s is at port %s of %s", link, portName(n), switchName(n))
	})
	if err != nil {
		w.log.Debug("lldp", "error", err)
	}
	if !w.machine.BMC {
		close(s.bmcKnown)
		return s
	}
	go func() { // ends within bmcLimit
		defer close(s.bmcKnown)
		ctx, cancel := context.WithTimeout(ctx, bmcLimit)
		defer cancel()
		s.askBMC(ctx)
	}()
	return s
}

func portName(n plan.Neighbour) string {
	if n.Description != "" && n.Description != n.Port {
		return n.Port + " (" + n.Description + ")"
	}
	return n.Port
}

func switchName(n plan.Neighbour) string {
	if n.System != "" {
		return n.System
	}
	return n.Chassis
}

func (s *served) close() {
	if s.neighbours != nil {
		s.neighbours.Close()
	}
}

// askBMC is quiet about what goes wrong: an inventory without the controller's address is worth having.
func (s *served) askBMC(ctx context.Context) {
	if s.modules != nil {
		for _, name := range []string{"ipmi_si", "ipmi_devintf"} {
			if err := s.modules.Load(ctx, name); err != nil {
				s.log.Debug("module", "error", err)
			}
		}
	}
	b, err := inventory.BMC(ctx, "/dev/ipmi0")
	if err != nil {
		s.log.Debug("ipmi", "error", err)
	}
	s.bmc = b
}

// inventory is what the machine says of itself now.
func (s *served) inventory(ctx context.Context) plan.Inventory {
	o := inventory.Options{Machine: s.machine, NICs: s.nics(), Installer: s.version, Sys: "/sys", MountInfo: "/proc/self/mountinfo"}
	if s.neighbours != nil {
		o.Neighbours = s.neighbours.Neighbours()
	}
	select {
	case <-s.bmcKnown:
		o.BMC = s.bmc
	default: // it is sent without
	}
	inv, err := inventory.Take(o)
	if err != nil {
		s.say.Warn("%v", err)
	}
	return inv
}

func (s *served) nics() []hw.NIC {
	nics, err := hw.NICs()
	if err != nil {
		s.say.Warn("%v", err)
		return s.machine.NICs
	}
	return nics
}

// heard waits for what switches and the management controller have not said yet.
func (s *served) heard(ctx context.Context) {
	if s.neighbours != nil {
		silent := inventory.Links(s.nics(), s.neighbours.Neighbours())
		if rest := lldp.Interval - time.Since(s.listening); rest > 0 {
			s.neighbours.Wait(ctx, silent, rest)
		}
	}
	select {
	case <-s.bmcKnown:
	case <-ctx.Done():
	}
}

// run asks for the plan, and does what it says.
func (s *served) run(ctx context.Context) (Outcome, error) {
	if s.machine.Serial == "" {
		s.say.Warn("this machine cannot be installed by a server: %s; %s", s.machine.SerialProblem, identity.Advice)
	}
	var inv plan.Inventory // the last that was sent
	p, err := s.client.Claim(ctx, func(ctx context.Context) plan.Inventory {
		inv = s.inventory(ctx)
		return inv
	}, s.heard)
	if err != nil {
		return Outcome{}, err
	}
	switch {
	case p.Action == plan.Live:
		s.say.Info("plan: %s", p.Reason)
		return s.endLive(ctx, p, inv, s.client.Deliver(ctx, s.events, p.Token))
	case p.Action != plan.Install && p.Action != plan.Preview:
		return Outcome{Text: "nothing is installed, and the local disk is booted: " + p.Reason, Done: cmdline.DoneReboot}, nil
	case p.Action == plan.Install && s.args.Mode != cmdline.ModeInstall:
		return Outcome{Text: fmt.Sprintf("nothing is installed: this boot was started to %s the machine; the next one installs it", s.args.Mode), Done: cmdline.DoneReboot}, nil
	}
	s.say.Info("plan: %s", p.Reason)
	return s.end(ctx, p, inv, s.client.Deliver(ctx, s.events, p.Token))
}

// end carries the plan out, and tells the server how that ended.
func (s *served) end(ctx context.Context, p plan.Plan, inv plan.Inventory, d *control.Delivery) (Outcome, error) {
	res, err := s.carryOut(ctx, p, inv, d)
	var gone *withdrawn
	switch {
	case errors.As(err, &gone):
		d.End(plan.KindFailed, err.Error(), failLimit)
		return Outcome{Text: "nothing was written: " + err.Error(), Done: s.oldSystem(ctx, err)}, nil
	case err != nil:
		d.End(plan.KindFailed, err.Error(), failLimit)
		return Outcome{}, err
	case res.Outlook != nil:
		if !d.Preview(*res.Outlook, doneLimit) {
			return Outcome{}, errors.New("tell the server what an installation would do: it does not answer; nothing was written, order the preview again")
		}
		res.Done = cmdline.DoneReboot // to the local disk, whatever the order says of installations
		return outcome(res), nil
	}
	if !d.End(plan.KindDone, installed, doneLimit) {
		s.say.Warn("the server does not know yet that the disk boots: the installed system tells it")
	}
	return outcome(res), nil
}

// carryOut does what the plan says.
func (s *served) carryOut(ctx context.Context, p plan.Plan, inv plan.Inventory, d *control.Delivery) (installer.Result, error) {
	args, err := s.args.WithPlan(p)
	if err != nil {
		return installer.Result{}, err
	}
	return s.install(ctx, installer.Config{
		Args:        args,
		Server:      s.client,
		Token:       p.Token,
		Layout:      p.Layout,
		Seal:        p.Seal,
		Host:        &target.Host{Host: p.Host, Serial: p.Serial, NICs: inv.NICs},
		FirstBoot:   firstboot.Config{Server: args.Server, Token: p.Token},
		BeforeWrite: func(ctx context.Context) error { return s.beforeWrite(ctx, p, inv, d) },
	})
}

// endLive brings a live system into memory, and tells the server how that ended.
func (s *served) endLive(ctx context.Context, p plan.Plan, inv plan.Inventory, d *control.Delivery) (Outcome, error) {
	args, err := s.args.WithPlan(p)
	var end Outcome
	if err == nil {
		end, err = s.live(ctx, installer.Config{Args: args, Server: s.client, Token: p.Token, Host: &target.Host{Host: p.Host, Serial: p.Serial, NICs: inv.NICs}})
	}
	if err != nil {
		d.End(plan.KindFailed, err.Error(), failLimit)
		return Outcome{}, err
	}
	if !d.End(plan.KindDone, end.Text, failLimit) {
		s.say.Warn("the server does not know yet that the image runs")
	}
	return end, nil
}

// oldSystem prepares to start what is on the disks that were chosen without the firmware, which could start this installer
// again; where that cannot be done the machine reboots, and the server lets it boot its disk.
func (s *served) oldSystem(ctx context.Context, stopped error) cmdline.Done {
	if err := s.loadOld(ctx, stopped); err != nil {
		s.say.Warn("the old system is started by a reboot: %v", err)
		return cmdline.DoneReboot
	}
	return cmdline.DoneKexec
}

func (s *served) loadOld(ctx context.Context, stopped error) error {
	var where *installer.Error
	if !errors.As(stopped, &where) {
		return kexec.ErrNone
	}
	if err := kexec.Allowed(where.NoKexec, s.machine); err != nil {
		return err
	}
	if err := kexec.Supported(); err != nil {
		return err
	}
	all, err := disk.Inventory("/sys", "/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var disks []disk.Disk
	for _, chosen := range where.Disks {
		for _, d := range all {
			if d.Path == chosen.Path {
				disks = append(disks, d)
			}
		}
	}
	var o kexec.Options
	if s.modules != nil {
		o.LoadFS = func(fs string) error { return s.modules.Load(ctx, fs) }
	}
	e, err := kexec.OldSystem(ctx, disks, o)
	if err != nil {
		return err
	}
	defer e.Close()
	if err := kexec.Load(e.Kernel, e.Initrd, e.Args); err != nil {
		return err
	}
	s.say.Info("the old system %q on %s is started without the firmware", e.Title, e.Disk)
	return nil
}

// withdrawn is an order that was taken back before the first write.
type withdrawn struct{ reason string }

func (w *withdrawn) Error() string {
	return "stop before anything is written, because the server asks for it: " + w.reason
}

// beforeWrite is the last chance to leave the old system intact.
func (s *served) beforeWrite(ctx context.Context, p plan.Plan, inv plan.Inventory, d *control.Delivery) error {
	if p.CheckNetwork && p.Host.Network != nil {
		d.Sync(ctx, stopLimit) // the server is told nothing before the host's own network works
		if err := s.tryNetwork(ctx, p.Host.Network, inv.NICs, d); err != nil {
			return err
		}
	}
	d.Sync(ctx, stopLimit)
	if reason, stop := d.Stopped(); stop {
		return &withdrawn{reason}
	}
	return nil
}

// tryNetwork brings the host's own network up for a moment. The way back to the server is tried with a sign of life: what
// waits before it is within plan.LostSeconds for any network that works, so that the machine is not taken for lost.
func (s *served) tryNetwork(ctx context.Context, n *plan.Network, nics []plan.NIC, d *control.Delivery) error {
	s.say.Info("trying the host's own network before anything is erased")
	if s.modules != nil {
		for _, name := range netconf.Modules(n) {
			if err := s.modules.Load(ctx, name); err != nil {
				return fmt.Errorf("try the host's own network: %w; rebuild the release with this version of imgbuild", err)
			}
		}
	}
	_, err := netconf.Check(ctx, n, nics, netconf.CheckOptions{
		Report: s.say,
		Reach:  func(ctx context.Context, dial netconf.Dial) error { return d.Via(ctx, dial) },
		// Together less than plan.LostSeconds.
		CarrierWait: carrierWait, LACPWait: lacpWait, AnswerWait: answerWait,
	})
	var failure *netconf.Failure
	if errors.As(err, &failure) {
		return fmt.Errorf("%w; correct the host's network or the switch, and order again", err)
	}
	return err
}
