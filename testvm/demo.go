package testvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"imgbuild/profiles"
	"imgbuild/testvm/standin"
)

// Demo is the whole way: build an image from a profile, install it on a machine, boot the machine's own disk and ask it
// for facts.
type Demo struct {
	// Profile is a shipped profile or a file; empty chooses centos-stream-9 if a mirror answers, else the stand-in.
	Profile string
	// Imgbuild is the imgbuild program.
	Imgbuild string
	// Self is how the person starts this program, for the hint at the end.
	Self string
	// Out is where releases go; the demo's disks and console transcripts go to demo/ in it.
	Out       string
	Firmwares []Firmware
	Bus       Bus
	// Verbose shows every line of the consoles.
	Verbose bool
	// Stdout gets what happens as it happens.
	Stdout io.Writer

	steps []StepTime
	repos []string // what --repo of imgbuild is given: the mirror that was seen to answer
}

// The profiles that a demo chooses from.
const (
	demoProfile   = "demo"
	centosProfile = "centos-stream-9"
)

// mirrorURL is a CentOS Stream 9 mirror; each repository of centos-stream-9 is in a folder of it.
const mirrorURL = "https://mirror.stream.centos.org/9-stream/"

// mirrorTimeout is how long a mirror may take to answer: one that is slower would make a bad demo.
const mirrorTimeout = 8 * time.Second

// Run runs the demo. It ends with an error if any step failed or if the installed system has a problem.
func (d *Demo) Run(ctx context.Context) error {
	if len(d.Firmwares) == 0 {
		d.Firmwares = []Firmware{BIOS}
	}
	var need Need
	for _, f := range d.Firmwares {
		need |= needFor(f)
	}
	// What is missing is said before minutes are spent.
	h, err := NewHost(ctx, need)
	if err != nil {
		return err
	}
	if _, err := exec.LookPath(d.Imgbuild); err != nil {
		return fmt.Errorf("find imgbuild beside this program: %w; run make build", err)
	}
	d.sayf("machines run under %s: %s", h.Accel, h.AccelReason)
	p, arg, err := d.chooseProfile(ctx)
	if err != nil {
		return err
	}
	if p.Distro.ID == standinDistro {
		if err := d.step("make the stand-in repository", func() error { return d.makeStandin(ctx) }); err != nil {
			return err
		}
	}
	if err := d.step("build the image", func() error { return d.build(ctx, arg) }); err != nil {
		return err
	}
	release := filepath.Join(d.Out, p.Name, p.Version)
	for _, fw := range d.Firmwares {
		if err := d.machine(ctx, h, release, fw); err != nil {
			return err
		}
	}
	d.sayf("all of it succeeded; the times:")
	return writeTimes(d.Stdout, d.steps)
}

const standinDistro = "standin"

func (d *Demo) sayf(format string, a ...any) {
	fmt.Fprintf(d.Stdout, "demo: "+format+"\n", a...) // a closed terminal is no reason to stop
}

func (d *Demo) step(name string, f func() error) error {
	d.sayf("%s", name)
	begin := time.Now()
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	took := time.Since(begin)
	d.steps = append(d.steps, StepTime{name, took})
	d.sayf("%s: done in %v", name, round(took))
	return nil
}

// chooseProfile returns the profile and what imgbuild is to be called with. A profile that no one could log in to on
// the console is extended with the demo's password and a serial console.
func (d *Demo) chooseProfile(ctx context.Context) (*profiles.Profile, string, error) {
	name := d.Profile
	if name == "" {
		var why string
		name, why = chooseByMirror(ctx, http.DefaultClient)
		d.sayf("profile %s: %s", name, why)
		if name == centosProfile {
			d.repos = []string{"baseos=" + mirrorURL + "BaseOS/x86_64/os/", "appstream=" + mirrorURL + "AppStream/x86_64/os/"}
		}
	} else {
		d.sayf("profile %s: it was asked for", name)
	}
	p, err := profiles.Load(ctx, name)
	if err != nil || name == demoProfile {
		return p, name, err
	}
	demo, err := profiles.Load(ctx, demoProfile)
	if err != nil {
		return nil, "", err
	}
	if p.Root.Password == demo.Root.Password && p.Kernel.Serial != "" {
		return p, name, nil
	}
	file := filepath.Join(d.Out, "demo", "demo-"+p.Name+".yaml")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, "", fmt.Errorf("make the demo's directory: %w", err)
	}
	if err := os.WriteFile(file, []byte(demoExtension(name, p, demo)), 0o644); err != nil {
		return nil, "", fmt.Errorf("write the demo's profile: %w", err)
	}
	d.sayf("%s extends it with the password %q for root and a serial console", file, DemoPassword)
	p, err = profiles.Load(ctx, file)
	return p, file, err
}

// demoExtension is a profile that makes another one fit to be looked at in a test machine.
func demoExtension(extends string, p, demo *profiles.Profile) string {
	if strings.HasSuffix(extends, ".yaml") || strings.HasSuffix(extends, ".yml") || strings.ContainsRune(extends, filepath.Separator) {
		if abs, err := filepath.Abs(extends); err == nil {
			extends = abs
		}
	}
	return fmt.Sprintf(`# Made by testvm demo: root's password is %q, so never put this on a real network.
extends: %q
name: demo-%s
version: %q
root:
  password: %q
  locked: false
kernel:
  serial: %s
initramfs:
  network: [virtual]
  storage: [virtual]
`, DemoPassword, extends, p.Name, p.Version, demo.Root.Password, demo.Kernel.Serial)
}

// chooseByMirror returns the profile that can be built here and says why.
func chooseByMirror(ctx context.Context, c *http.Client) (profile, why string) {
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, mirrorURL+"BaseOS/x86_64/os/repodata/repomd.xml", nil)
	if err != nil {
		return demoProfile, err.Error()
	}
	resp, err := c.Do(req)
	if err != nil {
		return demoProfile, fmt.Sprintf("no CentOS Stream 9 mirror answers (%v), so a stand-in is made from the Debian archive", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return demoProfile, fmt.Sprintf("the CentOS Stream 9 mirror answers %s, so a stand-in is made from the Debian archive", resp.Status)
	}
	return centosProfile, "the mirror " + mirrorURL + " answers"
}

func (d *Demo) makeStandin(ctx context.Context) error {
	repo, err := standin.Make(ctx, standin.Options{Progress: StandinProgress(func(line string) { d.sayf("  %s", line) })})
	if err != nil {
		return err
	}
	how := "made"
	if repo.Reused {
		how = "kept from an earlier run"
	}
	d.sayf("%d packages in %s, %s", repo.Packages, repo.Dir, how)
	return nil
}

// build runs imgbuild, which shows its own progress.
func (d *Demo) build(ctx context.Context, profile string) error {
	args := []string{profile, "--out", d.Out}
	for _, r := range d.repos {
		args = append(args, "--repo", r)
	}
	cmd := exec.CommandContext(ctx, d.Imgbuild, args...)
	cmd.Stdout, cmd.Stderr = d.Stdout, d.Stdout
	// An interrupt lets it clean up behind itself before it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s %s: %w", d.Imgbuild, profile, err)
	}
	return nil
}

// machine installs the release on a machine with this firmware, boots its disk and shows the facts.
func (d *Demo) machine(ctx context.Context, h *Host, release string, fw Firmware) error {
	name := "demo-" + string(fw)
	dir := filepath.Join(d.Out, "demo")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the demo's directory: %w", err)
	}
	m, err := Manifest(release)
	if err != nil {
		return err
	}
	disk := filepath.Join(dir, name+".img")
	// What an earlier demo left is this one's to replace; everything else in the directory is not touched.
	for _, p := range []string{disk, VarsFile(disk), filepath.Join(dir, name+"-install.log"), filepath.Join(dir, name+"-boot.log")} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove what an earlier demo left: %w", err)
		}
	}
	var mu sync.Mutex
	show := func(line string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(d.Stdout, "%s| %s\n", name, line) // as sayf
	}
	if !d.Verbose {
		show = LiveFilter(show)
	}
	s := Scenario{Name: name, Release: release, Firmware: fw, Disks: []Disk{{Path: disk, Bus: d.Bus, Serial: "DEMO0001"}},
		Logs: dir, Live: show, VerifyPackages: true}
	var f Facts
	if err := d.step(fmt.Sprintf("install on an empty disk, %s, booted from the network", fw), func() error {
		in, err := h.Install(ctx, s)
		if err == nil {
			d.sayf("the installer says: %s", in.Done)
		}
		return err
	}); err != nil {
		return err
	}
	if err := d.step(fmt.Sprintf("boot the disk alone, %s, and ask for facts", fw), func() (err error) {
		f, err = h.BootDisk(ctx, s)
		return err
	}); err != nil {
		return err
	}
	d.sayf("the installed system says:")
	if err := f.WriteTable(d.Stdout); err != nil {
		return err
	}
	d.sayf("to look further: sudo %s run --disk %s --firmware %s   (root, %s; Ctrl-] leaves)", d.Self, disk, fw, DemoPassword)
	d.sayf("console transcripts: %s, %s", filepath.Join(dir, name+"-install.log"), filepath.Join(dir, name+"-boot.log"))
	return f.mustBe(m, fw)
}
