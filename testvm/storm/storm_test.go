package storm

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/image/identity"
)

func TestPercentiles(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, ms(i+1))
	}
	for _, c := range []struct {
		name string
		each []time.Duration
		p    int
		want time.Duration
	}{
		{"nothing was measured", nil, 99, 0},
		{"one is all of them", []time.Duration{ms(7)}, 50, ms(7)},
		{"half of a hundred are done when the fifty-first is", hundred, 50, ms(51)},
		{"99 of a hundred are done when the last is", hundred, 99, ms(100)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := (&row{each: c.each}).percentile(c.p); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestTableShowsWhatWasMeasured(t *testing.T) {
	var b strings.Builder
	tb := &table{out: &b}
	ours := &row{what: "ours", count: 1000, took: 500 * time.Millisecond, each: []time.Duration{time.Millisecond, 2 * time.Millisecond}, cpu: 200 * time.Millisecond, memory: 64 << 20}
	theirs := &row{what: "theirs", count: 1000, took: time.Second, cpu: 400 * time.Millisecond, memory: 1 << 20, repeated: 3}
	tb.print(ours)
	tb.print(theirs)
	tb.compare(ours, theirs, "it")
	tb.compare(nil, theirs, "it")
	want := `                                                 count  a second   half in   99 % in    all in   CPU each   memory
  ours                                            1000      2000    2.0 ms    2.0 ms    2.0 ms     200 µs   64 MiB
  theirs                                          1000      1000                               400 µs    1 MiB  3 messages sent again
    imgserve beside it: 2.00 times as many a second, for 0.50 times the CPU
`
	// Columns are not the matter here.
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	if squeeze(b.String()) != squeeze(want) {
		t.Errorf("printed\n%s\nwant\n%s", b.String(), want)
	}
}

func TestEveryMachineIsAnother(t *testing.T) {
	machines := newMachines(MostMachines)
	subnet := netip.MustParsePrefix(machinesNet)
	sns, macs, addrs, uuids := map[string]bool{}, map[string]bool{}, map[netip.Addr]bool{netip.MustParseAddr(relayAddr): true}, map[string]bool{}
	for _, m := range machines {
		if sns[m.sn] || macs[m.mac.String()] || addrs[m.addr] || uuids[m.uuidText()] {
			t.Fatalf("%s has something of another's: %s, %s, %s", m.sn, m.mac, m.addr, m.uuidText())
		}
		sns[m.sn], macs[m.mac.String()], addrs[m.addr], uuids[m.uuidText()] = true, true, true, true
		if !subnet.Contains(m.addr) || identity.Junk(m.sn) != "" || identity.UUID(m.uuidText()) != m.uuidText() {
			t.Fatalf("no server would know %s, %s, %s", m.sn, m.addr, m.uuidText())
		}
	}
}

func TestScripts(t *testing.T) {
	const installs = "#!ipxe\necho imgserve\nkernel http://s/vmlinuz initrd=initramfs.img imgbuild.mode=install imgbuild.serverkey=KEY imgbuild.boot=NONCE console=tty0 && initrd http://s/i && boot ||\nsanboot --no-describe --drive 0x80 || exit 1\n"
	const local = "#!ipxe\necho imgserve\nsanboot --no-describe --drive 0x80 || exit 1\n"
	for _, c := range []struct {
		name, script string
		nonce        string
		disk         bool
	}{
		{"one that installs has a nonce, and boots the disk only if that fails", installs, "NONCE", false},
		{"one that boots the disk has none", local, "", true},
		{"one without a key is none", strings.Replace(installs, "serverkey", "key", 1), "", false},
		{"an empty one is neither", "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachines(1)[0]
			if err := m.readScript([]byte(c.script)); (err == nil) != (c.nonce != "") || err == nil && m.nonce != c.nonce {
				t.Errorf("nonce %q, %v; want %q", m.nonce, err, c.nonce)
			}
			if got := bootsDisk([]byte(c.script)); got != c.disk {
				t.Errorf("boots the disk: %t, want %t", got, c.disk)
			}
		})
	}
}

func TestProcesses(t *testing.T) {
	f := statFields("42 (a ) (b) S 7 42 0 0")
	if want := []string{"S", "7", "42", "0", "0"}; !slices.Equal(f, want) {
		t.Errorf("read %q, want %q", f, want)
	}
	for range 1000 { // use some processor time
		_ = newMachines(100)
	}
	u, err := (&usage{os.Getpid()}).read()
	if err != nil {
		t.Fatal(err)
	}
	if u.memory < 1<<20 || u.most < u.memory || u.cpu < tick {
		t.Errorf("this process uses %+v", u)
	}
	family, err := family(os.Getppid())
	if err != nil || !slices.Contains(family, os.Getpid()) {
		t.Errorf("this process is not of its parent's family %v, %v", family, err)
	}
	if _, err := (&usage{1 << 30}).read(); err == nil {
		t.Error("a process that is not there uses something")
	}
}

func TestAsManyConnectionsAreKeptAsThereAreFiles(t *testing.T) {
	if n := keepable(10, 1); n != 10 {
		t.Errorf("%d of 10 can be kept", n)
	}
	if n := keepable(10, 1<<30); n != 0 {
		t.Errorf("%d can be kept where there are no files", n)
	}
}
