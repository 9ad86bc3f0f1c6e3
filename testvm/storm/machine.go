package storm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
)

// machine is one simulated machine: what its maker has given it, and what it was told since.
type machine struct {
	sn   string
	mac  net.HardwareAddr
	uuid [16]byte
	addr netip.Addr

	nonce, key string // of its boot script
	signed     plan.Signed
	plan       plan.Plan // not yet verified; see verify
	seq        int64     // of its last event
	conn       *conn     // of its installer; nil when it has none
	keeps      bool      // that connection is kept between two requests
}

// perNet is how many machines are in one /24 of the machines' network, which begins with the second: the first has the
// router.
const perNet = 250

// newMachines makes n machines, with addresses of their own.
func newMachines(n int) []*machine {
	all := make([]*machine, n)
	for i := range all {
		m := &machine{sn: fmt.Sprintf("STORM%05d", i), mac: net.HardwareAddr{0x52, 0x54, 0, byte(i >> 16), byte(i >> 8), byte(i)}}
		m.addr = netip.AddrFrom4([4]byte{10, 80, byte(1 + i/perNet), byte(1 + i%perNet)})
		m.uuid = [16]byte{0x8c, 0x1d, 0x2f, 0x11, 0x5b, 0x5e, 0x4a, 0x3e, 0x9f, 0x10, 0x52, 0x54, 0, byte(i >> 16), byte(i >> 8), byte(i)}
		all[i] = m
	}
	return all
}

// hostname is what the registry calls it.
func (m *machine) hostname() string { return strings.ToLower(m.sn) + ".example.org" }

func (m *machine) uuidText() string {
	u := m.uuid
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// scriptPath is what its iPXE asks for.
func (m *machine) scriptPath() string {
	v := url.Values{
		"serial": {m.sn}, "uuid": {m.uuidText()}, "mac": {strings.ReplaceAll(m.mac.String(), ":", "-")}, "product": {"Storm 1000"},
		"platform": {"pcbios"}, "arch": {"i386"},
	}
	return "/boot/ipxe?" + v.Encode()
}

// readScript takes from a script what the kernel would take to the installer.
func (m *machine) readScript(script []byte) error {
	m.nonce, m.key = "", ""
	for line := range strings.Lines(string(script)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "kernel" {
			continue
		}
		for _, w := range words {
			if v, ok := strings.CutPrefix(w, "imgbuild.boot="); ok {
				m.nonce = v
			}
			if v, ok := strings.CutPrefix(w, "imgbuild.serverkey="); ok {
				m.key = v
			}
		}
	}
	if m.nonce == "" || m.key == "" {
		return fmt.Errorf("the script boots no installer:\n%s", script)
	}
	return nil
}

// bootsDisk reports whether a script does no more than boot the disk.
func bootsDisk(script []byte) bool {
	return strings.Contains(string(script), "\nsanboot ") && !strings.Contains(string(script), "\nkernel ")
}

// claim is how its installer asks for its plan: a server with two disks and four cards.
func (m *machine) claim() ([]byte, error) {
	c := plan.Claim{Schema: plan.Schema, Boot: m.nonce, Inventory: plan.Inventory{
		Serial: m.sn, SerialSource: "system", UUID: m.uuidText(), Vendor: "imgbuild", Product: "Storm 1000", Firmware: "bios", CPUs: 64,
		CPUModel: "Simulated CPU @ 2.50GHz", MemoryBytes: 256 << 30, Kernel: "5.14.0-503.el9.x86_64", Installer: "storm",
		BMC: &plan.BMC{Address: "192.0.2.10", Netmask: "255.255.255.0", Gateway: "192.0.2.1", MAC: "52:54:01" + m.mac.String()[8:]},
	}}
	for i := range 2 {
		c.Inventory.Disks = append(c.Inventory.Disks, plan.Disk{
			Path: fmt.Sprintf("/dev/nvme%dn1", i), Model: "Simulated NVMe 3.84TB", Serial: fmt.Sprintf("%s-D%d", m.sn, i), SizeBytes: 3840755982336, Transport: "nvme",
			Holds: []string{"partition 1: vfat, 512 MiB, label EFI", "partition 2: xfs, 1 GiB, label boot", "partition 3: LVM physical volume, 3.49 TiB"},
		})
	}
	for i := range 4 {
		mac := append(net.HardwareAddr(nil), m.mac...)
		mac[2] = byte(i) // the first is the one that it boots from
		c.Inventory.NICs = append(c.Inventory.NICs, plan.NIC{Name: fmt.Sprintf("eth%d", i), MAC: mac.String(), Driver: "ice", PCI: fmt.Sprintf("0000:3b:00.%d", i), Link: i < 2,
			SpeedMbit: 25000, Neighbour: &plan.Neighbour{Chassis: "52:54:02:00:00:01", Port: fmt.Sprintf("Ethernet1/%d", i+1), System: "leaf-1.example.org"}})
	}
	return json.Marshal(c)
}

// readPlan reads what the server answers to a claim. Its signature is left for verify.
func (m *machine) readPlan(body []byte) error {
	m.signed, m.plan = plan.Signed{}, plan.Plan{}
	if err := json.Unmarshal(body, &m.signed); err != nil {
		return fmt.Errorf("read the answer to a claim: %w", err)
	}
	if err := json.Unmarshal(m.signed.Plan, &m.plan); err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	return nil
}

// verify opens the plan as an installer does. It is done when the clock has stopped: in a storm each machine has its own
// processor for that.
func (m *machine) verify() error {
	key, err := image.ParsePublicKeyText(m.key)
	if err != nil {
		return err
	}
	p, err := plan.Open(m.signed, key, m.nonce, m.sn)
	switch {
	case err != nil:
		return err
	case p.Action != plan.Install:
		return fmt.Errorf("%s is told to %s: %s", m.sn, p.Action, p.Reason)
	case p.Host.Hostname != m.hostname() || p.Host.Network == nil || p.Token == "":
		return errors.New("the plan of " + m.sn + " is not that of its host")
	}
	return nil
}

// report is a batch of events; those after the first of a machine follow on.
func (m *machine) report(events ...plan.Event) ([]byte, error) {
	for i := range events {
		m.seq++
		events[i].Seq, events[i].Time = m.seq, time.Now()
	}
	if events == nil {
		events = []plan.Event{} // a heartbeat
	}
	return json.Marshal(plan.Report{Schema: plan.Schema, Events: events})
}

// checkAnswer checks that the server has all of a machine's events.
func (m *machine) checkAnswer(body []byte) error {
	var a plan.Answer
	if err := json.Unmarshal(body, &a); err != nil {
		return fmt.Errorf("read the answer to a report: %w", err)
	}
	if a.Seq != m.seq || a.Stop {
		return fmt.Errorf("the server answers %+v to event %d", a, m.seq)
	}
	return nil
}

// booted is what the installed system says.
func (m *machine) booted() ([]byte, error) {
	return json.Marshal(plan.Booted{Schema: plan.Schema, Serial: m.sn, Hostname: m.hostname(), Kernel: "5.14.0-503.el9.x86_64", System: "CentOS Stream 9",
		Addresses: []string{m.addr.String() + "/16"}, BootSeconds: 21.5})
}

// mayHangUp closes the connection of a machine that cannot keep it.
func (m *machine) mayHangUp() {
	if !m.keeps {
		m.hangUp()
	}
}

func (m *machine) hangUp() {
	if m.conn != nil {
		m.conn.close()
		m.conn = nil
	}
}
