package target

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/installer/firstboot"
)

func release(major string) *image.Manifest {
	f := image.NMKeyfile
	if major == "7" {
		f = image.Ifcfg
	}
	return &image.Manifest{Name: "demo", Version: "1", Distro: image.Distro{Release: major}, NetworkFormat: f}
}

// installed is a tree with the files that every image has, all of root.
func installed(t *testing.T, more map[string]string) (*os.Root, string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("files get owners, which needs root")
	}
	files := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/bash\nops:x:1000:1000::/home/ops:/bin/bash\n", "etc/group": "root:x:0:\nwheel:x:10:\nops:x:1000:\n",
		"etc/shadow": "root:!!:19000:0:99999:7:::\nops:!!:19000:0:99999:7:::\n", "etc/gshadow": "root:::\nwheel:::\nops:!::\n", "etc/subuid": "",
		"etc/skel/.bashrc": "alias", "etc/skel/dir/x": "", "etc/sudoers": "x", "etc/hosts": "127.0.0.1 localhost\n", "root/.bashrc": "",
		"home/ops/.ssh/authorized_keys": "ssh-ed25519 AAAA old", "etc/NetworkManager/system-connections/image.nmconnection": "x",
	}
	for name, text := range more {
		files[name] = text
	}
	root, dir := tree(t, files)
	for _, p := range []string{"etc/shadow", "etc/gshadow"} {
		if err := os.Chmod(filepath.Join(dir, p), 0); err != nil {
			t.Fatal(err)
		}
	}
	return root, dir
}

func host() Host {
	return Host{
		Serial: "SN-1", NICs: []plan.NIC{{Name: "eth0", MAC: "52:54:00:00:00:01", PCI: "0000:00:03.0", Link: true}},
		Host: plan.Host{
			Hostname: "web1.example.org",
			Network: &plan.Network{Ethernets: []plan.Ethernet{{Name: "lan0", Match: plan.Match{Order: 1}, IP: plan.IP{
				Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24")}, Gateway4: netip.MustParseAddr("10.0.0.1")}}}},
			Users: []plan.User{
				{Name: "anna", Groups: []string{"wheel"}, Password: "$6$a$b", SSHKeys: []string{"ssh-ed25519 BBBB anna"}, Sudo: "nopasswd", Comment: "Anna"},
				{Name: "root", Password: "$6$r$s", SSHKeys: []string{"ssh-ed25519 CCCC root"}},
				{Name: "ops", SSHKeys: []string{"ssh-ed25519 AAAA old", "ssh-ed25519 DDDD new"}, Sudo: "all"},
				{Name: "zed", UID: 1001},
			},
			Files:    []plan.File{{Path: "/etc/motd", Content: "hello\n"}, {Path: "/opt/app/secret", Content: "s", Mode: "2640", Owner: "anna", Group: "wheel"}},
			Metadata: json.RawMessage(`{"role": "db"}`),
		},
	}
}

func TestTheTreeBecomesTheSystemOfItsHost(t *testing.T) {
	root, dir := installed(t, nil)
	h := host()
	if err := h.Check(release("9")); err != nil {
		t.Fatal(err)
	}
	if err := h.Apply(root, release("9"), time.Unix(86400*20000, 0)); err != nil {
		t.Fatal(err)
	}
	const anna = 1002 // zed has the number that would have been the next
	for name, want := range map[string]struct {
		text     string
		mode     fs.FileMode
		uid, gid uint32
	}{
		"etc/hostname":                   {"web1.example.org\n", 0o644, 0, 0},
		"etc/imgbuild/host.json":         {"{\"role\": \"db\"}\n", 0o600, 0, 0},
		"etc/motd":                       {"hello\n", 0o644, 0, 0},
		"opt/app/secret":                 {"s", 0o640 | fs.ModeSetgid, anna, 10},
		"etc/sudoers.d/91-imgbuild-host": {"# Written by imgbuild when this machine was installed.\nanna ALL=(ALL) NOPASSWD: ALL\nops ALL=(ALL) ALL\n", 0o440, 0, 0},
		"home/anna/.ssh/authorized_keys": {"ssh-ed25519 BBBB anna\n", 0o600, anna, anna},
		"home/anna/.bashrc":              {"alias", 0o600, anna, anna},
		"home/anna/dir/x":                {"", 0o600, anna, anna},
		"home/ops/.ssh/authorized_keys":  {"ssh-ed25519 AAAA old\nssh-ed25519 DDDD new\n", 0o600, 1000, 1000},
		"root/.ssh/authorized_keys":      {"ssh-ed25519 CCCC root\n", 0o600, 0, 0},
		"etc/subuid":                     {"zed:100000:65536\nanna:165536:65536\n", 0o600, 0, 0},
		"etc/shadow":                     {"root:$6$r$s:20000:0:99999:7:::\nops:!!:19000:0:99999:7:::\nzed:!!:20000:0:99999:7:::\nanna:$6$a$b:20000:0:99999:7:::\n", 0, 0, 0},
		"etc/group":                      {"root:x:0:\nwheel:x:10:anna\nops:x:1000:\nzed:x:1001:\nanna:x:1002:\n", 0o600, 0, 0},
	} {
		p := filepath.Join(dir, name)
		b, err := os.ReadFile(p)
		st, err2 := os.Lstat(p)
		if err := errors.Join(err, err2); err != nil {
			t.Error(err)
			continue
		}
		sys := st.Sys().(*syscall.Stat_t)
		if string(b) != want.text || st.Mode() != want.mode || sys.Uid != want.uid || sys.Gid != want.gid {
			t.Errorf("%s is %v of %d:%d\n%s", name, st.Mode(), sys.Uid, sys.Gid, b)
		}
	}
	for _, d := range []string{"home/anna", "home/anna/.ssh", "root/.ssh"} {
		if st, err := os.Stat(filepath.Join(dir, d)); err != nil || st.Mode() != fs.ModeDir|0o700 {
			t.Errorf("%s: %v, %v", d, st.Mode(), err)
		}
	}
	links, err := filepath.Glob(filepath.Join(dir, "etc/NetworkManager/system-connections/*"))
	if err != nil || len(links) != 1 || strings.Contains(links[0], "image.nmconnection") {
		t.Errorf("connections: %q, %v", links, err)
	}
	if err := h.Apply(root, release("9"), time.Unix(86400*20000, 0)); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestAHostOfWhichNothingIsKnownHasEmptyMetadata(t *testing.T) {
	root, dir := installed(t, nil)
	for _, metadata := range []string{"", "null", "{}"} {
		h := Host{Host: plan.Host{Metadata: json.RawMessage(metadata)}}
		if err := errors.Join(h.Check(release("9")), h.Apply(root, release("9"), time.Now())); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, MetadataFile)); err != nil || string(b) != "{}\n" {
			t.Errorf("%q became %q, %v", metadata, b, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "etc/hostname")); err == nil {
		t.Error("a host name was written")
	}
	if _, err := os.Stat(filepath.Join(dir, "etc/NetworkManager/system-connections/image.nmconnection")); err != nil {
		t.Errorf("the image's network did not stay: %v", err)
	}
}

func TestWhatIsWrongWithAHostIsFoundBeforeAnythingIsErased(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Host)
		want   string
	}{
		"a host name":        {func(h *Host) { h.Hostname = "a b" }, "host name"},
		"a card":             {func(h *Host) { h.NICs = nil }, "lan0"},
		"a console":          {func(h *Host) { h.SerialConsole = "ttyS0 init=/bin/sh" }, "ttyS1,115200n8"},
		"a login name":       {func(h *Host) { h.Users[0].Name = "../x" }, "no login name"},
		"the same user":      {func(h *Host) { h.Users[1].Name = "anna" }, "twice"},
		"a key of two lines": {func(h *Host) { h.Users[0].SSHKeys[0] = "a\nb" }, "line break"},
		"a password":         {func(h *Host) { h.Users[0].Password = "a:b" }, "colon"},
		"a sudo rule":        {func(h *Host) { h.Users[0].Sudo = "ALL" }, "nopasswd"},
		"a relative path":    {func(h *Host) { h.Files[0].Path = "etc/motd" }, "absolute"},
		"a path that climbs": {func(h *Host) { h.Files[0].Path = "/../etc/motd" }, "absolute"},
		"a mode":             {func(h *Host) { h.Files[0].Mode = "rw" }, "octal"},
		"metadata":           {func(h *Host) { h.Metadata = json.RawMessage(`[1]`) }, "no JSON object"},
	} {
		h := host()
		c.change(&h)
		if err := h.Check(release("9")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLinksOfTheImageAreFollowedInsideIt(t *testing.T) {
	root, dir := installed(t, map[string]string{"data/x": ""})
	err := errors.Join(os.RemoveAll(filepath.Join(dir, "home")), os.Symlink("/data/home", filepath.Join(dir, "home")), os.Symlink("../../../../outside", filepath.Join(dir, "etc/motd")))
	if err != nil {
		t.Fatal(err)
	}
	if err := host().Apply(root, release("9"), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"data/home/anna/.bashrc", "outside"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatIsInTheWayIsAnError(t *testing.T) {
	for name, f := range map[string]plan.File{
		"a directory": {Path: "/etc/skel", Content: "x"}, "a file above it": {Path: "/etc/hosts/x", Content: "x"},
		"an owner that nobody is": {Path: "/x", Owner: "nobody-here"}, "a group that is none": {Path: "/x", Group: "nobody-here"},
	} {
		root, _ := installed(t, nil)
		h := Host{Host: plan.Host{Files: []plan.File{f}}}
		if err := h.Apply(root, release("9"), time.Now()); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	root, dir := installed(t, nil)
	if err := os.Remove(filepath.Join(dir, "etc/sudoers")); err != nil {
		t.Fatal(err)
	}
	if err := host().Apply(root, release("9"), time.Now()); err == nil || !strings.Contains(err.Error(), "add the package sudo") {
		t.Errorf("got %v", err)
	}
}

func TestASerialConsoleIsTheLastOfTheKernelsConsoles(t *testing.T) {
	for name, c := range map[string]struct {
		args    []string
		console string
		want    []string
	}{
		"none":                     {[]string{"quiet"}, "", []string{"quiet"}},
		"the first":                {[]string{"quiet"}, "ttyS1,115200n8", []string{"quiet", "console=tty0", "console=ttyS1,115200n8"}},
		"another one":              {[]string{"console=tty0", "console=ttyS0,9600"}, "ttyS1", []string{"console=tty0", "console=ttyS0,9600", "console=ttyS1"}},
		"the same at other speeds": {[]string{"console=ttyS1,9600", "console=tty0"}, "ttyS1,115200n8", []string{"console=tty0", "console=ttyS1,115200n8"}},
	} {
		if got := WithConsole(c.args, c.console); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

const contexts = `/.*	system_u:object_r:default_t:s0
/etc(/.*)?	system_u:object_r:etc_t:s0
/etc/hostname	--	system_u:object_r:hostname_etc_t:s0
/etc/systemd/system(/.*)?	system_u:object_r:systemd_unit_file_t:s0
/usr/libexec(/.*)?	system_u:object_r:bin_t:s0
/tmp/.*	<<none>>
`

func TestNewFilesHaveTheLabelsOfTheImagesOwnPolicy(t *testing.T) {
	const base = "etc/selinux/targeted/contexts/files/file_contexts"
	label := func(dir, name string) string {
		t.Helper()
		b := make([]byte, 256)
		n, err := unix.Lgetxattr(filepath.Join(dir, name), selinux, b)
		if errors.Is(err, unix.ENODATA) {
			return ""
		}
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimRight(string(b[:n]), "\x00")
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  map[string]string
	}{
		"with a policy": {map[string]string{"etc/selinux/config": "SELINUXTYPE=targeted\n", base: contexts, base + ".homedirs": "/home/[^/]+/\\.ssh(/.*)?\tunconfined_u:object_r:ssh_home_t:s0\n"}, map[string]string{
			"etc/hostname": "system_u:object_r:hostname_etc_t:s0", "etc/imgbuild": "system_u:object_r:etc_t:s0", "etc/imgbuild/host.json": "system_u:object_r:etc_t:s0",
			"home/anna/.ssh/authorized_keys": "unconfined_u:object_r:ssh_home_t:s0", firstboot.Program: "system_u:object_r:bin_t:s0", firstboot.WantsLink: "system_u:object_r:systemd_unit_file_t:s0",
			"etc/passwd": "system_u:object_r:passwd_file_t:s0",
		}},
		"without one, that of the directory": {nil, map[string]string{
			"etc/hostname": "system_u:object_r:of_etc_t:s0", "etc/imgbuild/host.json": "system_u:object_r:of_etc_t:s0", "etc/passwd": "system_u:object_r:passwd_file_t:s0",
		}},
	} {
		root, dir := installed(t, c.files)
		for p, l := range map[string]string{".": "system_u:object_r:root_t:s0", "etc": "system_u:object_r:of_etc_t:s0", "etc/passwd": "system_u:object_r:passwd_file_t:s0"} {
			if err := unix.Lsetxattr(filepath.Join(dir, p), selinux, append([]byte(l), 0), 0); err != nil {
				t.Skipf("this file system takes no labels: %v", err)
			}
		}
		if err := host().Apply(root, release("9"), time.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := FirstBoot(root, firstboot.Config{Server: "http://a"}, "/proc/self/exe"); err != nil {
			t.Fatal(err)
		}
		for p, want := range c.want {
			if got := label(dir, p); got != want {
				t.Errorf("%s: %s is %q, want %q", name, p, got, want)
			}
		}
	}
	root, dir := installed(t, nil)
	if err := host().Apply(root, release("9"), time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := label(dir, "etc/hostname"); got != "" {
		t.Errorf("in a tree without labels: %q", got)
	}
}

func TestTheFirstBootIsPreparedWhereThereIsSomethingToDo(t *testing.T) {
	root, dir := installed(t, nil)
	if added, err := FirstBoot(root, firstboot.Config{}, "/proc/self/exe"); added || err != nil {
		t.Errorf("%v, %v", added, err)
	}
	if _, err := os.Stat(filepath.Join(dir, firstboot.UnitFile)); err == nil {
		t.Error("a unit was written")
	}
	if added, err := FirstBoot(root, firstboot.Config{Server: "http://a", Token: "secret"}, "/proc/self/exe"); !added || err != nil {
		t.Fatalf("%v, %v", added, err)
	}
	for name, mode := range map[string]fs.FileMode{firstboot.Program: 0o755, firstboot.ConfigFile: 0o600, firstboot.StateDir: 0o700 | fs.ModeDir, firstboot.UnitFile: 0o644} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode() != mode {
			t.Errorf("/%s: %v, %v", name, st, err)
		}
	}
	if to, err := os.Readlink(filepath.Join(dir, firstboot.WantsLink)); err != nil || to != firstboot.UnitTarget {
		t.Errorf("%q, %v", to, err)
	}
	scripted, sdir := installed(t, map[string]string{image.FirstBootScripts + "/10-a": "#!/bin/sh\n"})
	if err := os.Chmod(filepath.Join(sdir, image.FirstBootScripts, "10-a"), 0o755); err != nil {
		t.Fatal(err)
	}
	if added, err := FirstBoot(scripted, firstboot.Config{}, "/proc/self/exe"); !added || err != nil {
		t.Errorf("%v, %v", added, err)
	}
}

// guids are the identifiers of made-up devices and their partitions.
type guids struct{ ids }

func (guids) Partition(string, int) uuid.UUID { return uuid.UUID{1} }

func TestDataDisksAreLeftToTheFirstBoot(t *testing.T) {
	root, dir := installed(t, nil)
	scheme := &layout.Scheme{}
	if added, err := DataDisks(root, scheme, guids{}, "/proc/self/exe"); added || err != nil {
		t.Errorf("%v, %v", added, err)
	}
	scheme.DataFirstBoot = []layout.SchemeDisk{{Name: "data1", Data: true, Table: layout.GPT, Candidate: layout.Candidate{Serial: "S", Size: 1 << 40},
		Parts: []layout.Part{{Number: 1, Content: layout.Content{FS: "xfs", Mount: "/srv/data1", Options: "noatime"}}}}}
	if added, err := DataDisks(root, scheme, guids{}, "/proc/self/exe"); !added || err != nil {
		t.Fatalf("%v, %v", added, err)
	}
	for name, mode := range map[string]fs.FileMode{firstboot.Program: 0o755, firstboot.DataFile: 0o600, firstboot.StateDir: 0o700 | fs.ModeDir, firstboot.DataUnitFile: 0o644,
		"srv/data1": 0o755 | fs.ModeDir} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode() != mode {
			t.Errorf("/%s: %v, %v", name, st, err)
		}
	}
	b, err := root.ReadFile(firstboot.DataFile)
	if want := `"fstab": "UUID=id-of-part-data1-1 /srv/data1 xfs noatime,nofail 0 0\n"`; err != nil || !strings.Contains(string(b), want) {
		t.Errorf("%v\n%s", err, b)
	}
	if to, err := os.Readlink(filepath.Join(dir, firstboot.DataWantsLink)); err != nil || to != firstboot.DataUnitTarget {
		t.Errorf("%q, %v", to, err)
	}
}
