package dialog

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/installer/answers"
	"imgbuild/installer/report"
)

var update = flag.Bool("update", false, "write the golden files")

const sshKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ops@example.org"

// machine is one with four disks and two cards.
func machine() Options {
	return Options{
		Release: "web 1.2",
		Disks: []Disk{
			{Argument: "S3Z1", Name: "sda", Size: 480103981056, Model: "Samsung PM893", Serial: "S3Z1", Transport: "sata"},
			{Argument: "S3Z2", Name: "sdb", Size: 480103981056, Model: "Samsung PM893", Serial: "S3Z2", Transport: "sata", Loses: true,
				Holds: []string{"GPT with 3 partitions", "partition 1: vfat, 512 MiB, label ESP", "partition 2: ext4, 1 GiB, label boot", "partition 3: LVM, 445 GiB, label système",
					"LVM volume group data", "one more", "and another"}},
			{Argument: "/dev/disk/by-path/usb", Name: "sdc", Size: 15518924800, Model: "Ultra Fit with a name that is much too long", Transport: "usb", Caution: "a USB disk"},
			{Argument: "/dev/sdd", Name: "sdd", Size: 1 << 40, Model: "Disk", Unusable: "it is in use", Holds: []string{"ext4"}},
		},
		Cards: []plan.NIC{{Name: "eth0", MAC: "52:54:00:00:00:01"}, {Name: "eth1", MAC: "52:54:00:00:00:02", Link: true, SpeedMbit: 1000,
			Neighbour: &plan.Neighbour{System: "sw1", Port: "ge-0/0/7"}}},
		Presets: Presets(layout.Layout{Preset: layout.LVM}, layout.BIOS, func(tools []string) []string {
			return slices.DeleteFunc(tools, func(t string) bool { return t != "mdadm" && t != "extlinux" })
		}),
		Save:     func([]byte) error { return nil },
		SavePath: "/run/imgbuild/answers.json", Log: "/run/imgbuild/log",
		AfterDone: "restart the machine", AfterFailure: "go on",
	}
}

// outlook is long enough to be scrolled.
func outlook() string {
	var b strings.Builder
	b.WriteString("erased:\n  /dev/sdb (Samsung PM893, serial S3Z2, 447.1 GiB, sata):\n    partition 1: vfat, 512 MiB, label ESP\nwritten:\n")
	for i := range 20 {
		fmt.Fprintf(&b, "  partition %d: something\n", i+1)
	}
	return b.String()
}

// typed presses keys on a model, and does at once what they ask for.
func typed(m *model, text string) (effects []effect) {
	for _, k := range decode(text) {
		e := m.press(k)
		switch e {
		case effectNone:
			continue
		case effectPreview:
			m.previewed(outlook(), nil)
		case effectSave:
			m.saved(nil)
		}
		effects = append(effects, e)
	}
	return effects
}

// dump is a screen with «reverse video», and where the cursor is.
func dump(s *screen) string {
	var b strings.Builder
	for r := range rows {
		text, reverse := s.line(r)
		on := false
		for i := range len(text) {
			if reverse[i] != on {
				on = reverse[i]
				b.WriteString(map[bool]string{true: "«", false: "»"}[on])
			}
			b.WriteByte(text[i])
		}
		if on {
			b.WriteString("»")
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "cursor: row %d, column %d\n", s.row+1, s.col+1)
	return b.String()
}

const (
	up, down, left, shiftTab = "\x1b[A", "\x1b[B", "\x1b[D", "\x1b[Z"
	// what leads to each screen, with the first disk and no more than is needed
	toLayout  = " \r\r"
	toHost    = toLayout + "\r\r"
	toAccess  = toHost + "node1\t\t\r"
	toSummary = toAccess + "geheim\rgeheim\r\r\r"
	toConfirm = toSummary + "\r"
	toInstall = toConfirm + "sda\r\r"
)

func TestScreens(t *testing.T) {
	for name, c := range map[string]struct {
		keys string
		then func(*model)
	}{
		"disks":                     {"", nil},
		"disks, what is on one":     {down, nil},
		"disks, two marked":         {" " + down + " ", nil},
		"disks, none marked":        {"\t\r", nil},
		"disks, one that cannot be": {"\x1b[F ", nil},
		"leave":                     {"\x1b", nil},
		"layout":                    {toLayout, nil},
		"layout of two disks":       {" " + down + " \t\r", nil},
		"host":                      {toHost, nil},
		"host, static":              {toHost + "node1\t" + down + down + "\r\t192.0.2.5/24\r192.0.2.1\r192.0.2.1, 192.0.2.2\r", nil},
		"host, a name with umlauts": {toHost + "nöde", nil},
		"host, gateway elsewhere":   {toHost + "\t" + down + down + "\r\t192.0.2.5/24\r192.0.3.1\r\r\r", nil},
		"host, no prefix":           {toHost + "\t" + down + down + "\r\t192.0.2.5\r\r\r\r", nil},
		"root":                      {toAccess + "geheim\rgeh", nil},
		"root, a long key":          {toAccess + "\t\t" + sshKey, nil},
		"root, passwords differ":    {toAccess + "geheim\rgeheom\r\r\r", nil},
		"root, nothing":             {toAccess + "\r\r\r\r", nil},
		"summary":                   {toSummary, nil},
		"summary, its end":          {toSummary + "\x1b[F", nil},
		"summary, saved":            {toSummary + left + "\r", nil},
		"summary, not yet":          {toAccess + "\r\r\r\ry", func(m *model) { m.enter(stepSummary) }},
		"summary, refused": {toSummary, func(m *model) {
			m.previewed("", errors.New("check memory: the installation needs 900 MiB of free memory and this machine has 400 MiB"))
		}},
		"confirm":                      {toConfirm + "sd", nil},
		"confirm, wrong":               {toConfirm + "sdb\r\r", nil},
		"confirm, a disk that is full": {down + " \r\r\r\r\t\t\r" + "\t\t\t\ry\r", nil},
		"install":                      {toInstall, nil},
		"install, with progress": {toInstall, func(m *model) {
			s := newSink()
			s.Step(7, 9, "write the system")
			s.Progress(report.Progress{What: "rootfs", Done: 210 << 20, Total: 480 << 20, Rate: 38 << 20, Left: 7 * time.Second})
			for i := range 15 {
				s.Info("line %d", i)
			}
			s.Warn("the fan is loud")
			m.progress = s.latest()
		}},
		"install, Ctrl-C": {toInstall + "\x03", nil},
		"result":          {toInstall, func(m *model) { m.ended(Result{Text: "The image is installed, and the disk boots."}, nil) }},
		"result, failed": {toInstall, func(m *model) {
			m.progress.add("step 7/9 write the system")
			m.ended(Result{Advice: "replace the disk"}, errors.New("write /dev/sda: input/output error"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newModel(machine(), func(string) string { return "HASH" })
			typed(m, c.keys)
			if c.then != nil {
				c.then(m)
			}
			got := dump(m.draw())
			golden := filepath.Join("testdata", strings.ReplaceAll(strings.ReplaceAll(name, ",", ""), " ", "-")+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestAnswersAreWhatWasGiven(t *testing.T) {
	m := newModel(machine(), func(p string) string { return "hash of " + p })
	effects := typed(m, down+" \r\r"+down+down+"\r\r"+"node1.example.org\t"+down+down+"\r\t192.0.2.5/24\r192.0.2.1\r192.0.2.1, 192.0.2.2\r\r"+
		"geheim\rgeheim\r"+sshKey+"\r\r"+"\r")
	if !reflect.DeepEqual(effects, []effect{effectPreview}) || m.step != stepConfirm {
		t.Fatalf("got the effects %v and the screen\n%s", effects, dump(m.draw()))
	}
	got, err := m.answers().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "schema": 1,
  "disks": [
    "S3Z2"
  ],
  "wipe": [
    "S3Z2"
  ],
  "layout": {
    "preset": "lvm"
  },
  "host": {
    "hostname": "node1.example.org",
    "network": {
      "ethernets": [
        {
          "name": "lan",
          "match": {
            "mac": "52:54:00:00:00:02"
          },
          "addresses": [
            "192.0.2.5/24"
          ],
          "gateway4": "192.0.2.1"
        }
      ],
      "dns": [
        "192.0.2.1",
        "192.0.2.2"
      ]
    },
    "users": [
      {
        "name": "root",
        "password": "hash of geheim",
        "ssh_keys": [
          "` + sshKey + `"
        ]
      }
    ]
  }
}
`
	if string(got) != want {
		t.Errorf("got\n%s", got)
	}
}

func TestNothingIsInstalledBeforeTheNamesWereTyped(t *testing.T) {
	m := newModel(machine(), func(string) string { return "" })
	typed(m, toConfirm)
	for _, k := range decode("\r\rsda \r\r\x15sdb\r\rSDA\x15/dev/sda") {
		if m.press(k) == effectInstall {
			t.Fatalf("it was installed:\n%s", dump(m.draw()))
		}
	}
	typed(m, "\x1b[H\x15")
	if e := typed(m, "\x1b[Zxx"+shiftTab+"\x15sda\t\r"); len(e) != 1 || e[0] != effectInstall || m.step != stepInstall {
		t.Errorf("the right name was not taken: %v\n%s", e, dump(m.draw()))
	}
}

func TestEverySingleScreenCanBeLeftBeforeTheInstallation(t *testing.T) {
	for _, keys := range []string{"", toLayout, toHost, toAccess, toSummary, toConfirm} {
		for _, esc := range []string{"\x1b", "\x03"} {
			m := newModel(machine(), func(string) string { return "" })
			typed(m, keys)
			was := dump(m.draw())
			if e := typed(m, esc); len(e) != 0 || m.ask == nil {
				t.Fatalf("nobody was asked: %v\n%s", e, was)
			}
			if e := typed(m, "\r"); len(e) != 0 || dump(m.draw()) != was {
				t.Errorf("no does not lead back: %v\n%s", e, dump(m.draw()))
			}
			if e := typed(m, esc+"\x1b[C\r"); len(e) != 1 || e[0] != effectLeave {
				t.Errorf("yes does not leave: %v\n%s", e, dump(m.draw()))
			}
		}
	}
}

func TestBackKeepsWhatWasGiven(t *testing.T) {
	m := newModel(machine(), func(p string) string { return p })
	typed(m, toConfirm)
	before := m.answers()
	for _, back := range []string{"\t" + left + "\r", "\x1b[D\x1b[D\r", "\x1b[Z" + left + "\r", "\x1b[Z" + left + "\r", "\x1b[Z" + left + "\r"} {
		typed(m, back)
	}
	if m.step != stepDisks || !reflect.DeepEqual(m.answers(), before) {
		t.Fatalf("step %d, %+v\n%s", m.step, m.answers(), dump(m.draw()))
	}
	// another disk is one that the layout still fits; two are not
	typed(m, down+" \t\r")
	if m.step != stepLayout || m.presets.choice() >= 0 {
		t.Errorf("a layout of one disk is chosen for two:\n%s", dump(m.draw()))
	}
}

func TestPresetsSayWhyTheyCannotBe(t *testing.T) {
	got := map[layout.Preset]string{}
	for _, p := range machine().Presets {
		got[p.Name] = fmt.Sprint(p.Disks, " ", p.Unusable)
	}
	want := map[layout.Preset]string{"": "1 ", layout.Simple: "1 ", layout.LVM: "1 ", layout.Server: "1 ", layout.Mirror: "2 the release lacks mdadm"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestScreensHoldWhateverADiskIsCalled(t *testing.T) {
	o := machine()
	o.Release = strings.Repeat("x", 100)
	o.Disks = nil
	for i := range 30 {
		o.Disks = append(o.Disks, Disk{Argument: fmt.Sprint(i), Name: fmt.Sprintf("nvme%dn1", i), Size: 1 << 62, Model: "\x1b[2Jämodel" + strings.Repeat("m", 90),
			Serial: strings.Repeat("s", 90), Transport: "nvme", Loses: true, Holds: []string{strings.Repeat("x", 300), "\x07", "a", "b", "c", "d", "e"}})
	}
	o.Presets = []Preset{{Text: strings.Repeat("t", 200), Disks: 30}}
	m := newModel(o, func(string) string { return "" })
	typed(m, strings.Repeat(" "+down, 30)+"\r"+"\r\r"+"\t\t\r"+"\t\t\t\ry"+"\r")
	if m.step != stepConfirm {
		t.Fatalf("got\n%s", dump(m.draw()))
	}
	for i := range 30 {
		typed(m, fmt.Sprintf("nvme%dn1\r", i))
		if s := dump(m.draw()); strings.ContainsAny(s, "\x1b\x07") {
			t.Fatalf("control characters:\n%q", s)
		}
	}
	if e := typed(m, "\r"); len(e) != 1 || e[0] != effectInstall {
		t.Errorf("got %v\n%s", e, dump(m.draw()))
	}
	if n := len(m.answers().Disks); n != 30 {
		t.Errorf("%d disks", n)
	}
}

func TestAnswersOfTheDialogCanBeReadAgain(t *testing.T) {
	m := newModel(machine(), newRunner(machine()).model.hash)
	typed(m, toConfirm)
	data, err := m.answers().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if a, err := answers.Parse("answers.json", data); err != nil || !strings.HasPrefix(a.Host.Users[0].Password, "$6$") {
		t.Errorf("%v\n%s", err, data)
	}
}
