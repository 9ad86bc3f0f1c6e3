package swarmnet

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"imgbuild/image/plan"
	"imgbuild/testvm"
)

// Programs are those that a swarm consists of.
type Programs struct {
	// Imgserve and Imgctl are files.
	Imgserve, Imgctl string
	// Machine is the command line that calls Machine, and Env what it needs in its environment besides our own.
	Machine, Env []string
}

// run is one imgserve and the machines that it installs, all in one lab.
type run struct {
	*lab
	programs Programs
	release  release
	dir      string   // of what is written; removed by close
	mounts   []string // below dir; unmounted by close
	server   *testvm.Imgserve
	children []*child
	log      func(line string)
}

// serverConfig is what the server's configuration says besides what is the same for all runs.
type serverConfig struct {
	transport plan.Transport
	mirrors   []string // addresses of the directory of releases elsewhere
	url       string   // in the place of testvm.ServerURL
}

// newRun makes a lab for machines that install a release. Cable is the origin's.
func newRun(ctx context.Context, dir string, p Programs, rel release, cable Link, log func(string)) (_ *run, err error) {
	r := &run{programs: p, release: rel, log: log}
	if r.dir, err = os.MkdirTemp(dir, "imgbuild-swarm-"); err != nil {
		return nil, fmt.Errorf("make work directory: %w", err)
	}
	if r.lab, err = newLab(ctx, cable); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// serve starts imgserve.
func (r *run) serve(ctx context.Context, c serverConfig) (err error) {
	if c.url == "" {
		c.url = testvm.ServerURL
	}
	yaml := fmt.Sprintf("listen: :8080\nurl: %s\nimages: %q\nstate: %q\ntrust: [%q]\nlimits:\n  global: 0\ndhcp:\n  mode: \"off\"\ntransport: %s\n",
		c.url, r.release.images, filepath.Join(r.dir, "state"), r.release.trust, c.transport)
	if len(c.mirrors) > 0 {
		yaml += "mirrors:\n"
		for _, m := range c.mirrors {
			yaml += fmt.Sprintf("  - %q\n", m)
		}
	}
	r.server, err = r.origin.StartImgserve(ctx, testvm.ImgserveConfig{Imgserve: r.programs.Imgserve, Imgctl: r.programs.Imgctl, Dir: r.dir, YAML: yaml, Log: r.log})
	return err
}

// machineSpec is what is special about one machine.
type machineSpec struct {
	link   Link
	rack   string
	change func(*machineConfig) // nil for nothing
}

// serial is a machine's serial number.
func serial(i int) string { return fmt.Sprintf("SWARM%03d", i) }

func uuid(i int) string { return fmt.Sprintf("8c1d2f11-5b5e-4a3e-9f10-525400%06x", i) }

func mac(i int) string { return fmt.Sprintf("52:54:00:78:00:%02x", i) }

// order adds machines, writes them into the registry and orders their installation. It returns the first's number.
func (r *run) order(ctx context.Context, specs []machineSpec) (first int, err error) {
	first = len(r.lab.machines)
	file := filepath.Join(r.dir, "hosts.csv")
	f, err := os.Create(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	w := csv.NewWriter(f)
	rows := [][]string{{"sn", "hostname", "macs", "rack", "image"}}
	var sns strings.Builder
	for _, s := range specs {
		i, err := r.add(s.link)
		if err != nil {
			return 0, err
		}
		rows = append(rows, []string{serial(i), strings.ToLower(serial(i)) + ".example.org", mac(i), s.rack, releaseName + "/" + releaseVersion})
		fmt.Fprintln(&sns, serial(i))
	}
	if err := errors.Join(w.WriteAll(rows), f.Close()); err != nil {
		return 0, fmt.Errorf("write %s: %w", file, err)
	}
	if _, err := r.server.Ctl(ctx, "hosts", "import", file); err != nil {
		return 0, err
	}
	if _, err := r.server.CtlInput(ctx, sns.String(), "order", "install", "-", "--reason", "a swarm"); err != nil {
		return 0, err
	}
	return first, nil
}

// start starts a machine that has been ordered, and waits until it has its plan.
func (r *run) start(ctx context.Context, i int, s machineSpec) (*child, error) {
	trust, err := os.ReadFile(r.release.trust)
	if err != nil {
		return nil, err
	}
	c := machineConfig{
		Server: testvm.ServerURL, Serial: serial(i), UUID: uuid(i), MAC: mac(i), Trust: trust, File: filepath.Join(r.dir, fmt.Sprintf("machine-%d", i)), Memory: 64 << 20,
		SpillDir: r.dir,
	}
	if s.change != nil {
		s.change(&c)
	}
	k, err := startChild(r.lab.machines[i], i, r.programs.Machine, r.programs.Env, c, r.log)
	if k != nil {
		r.children = append(r.children, k)
	}
	if err != nil {
		return nil, err
	}
	return k, k.awaitReady(ctx)
}

// close ends everything and removes what was written.
func (r *run) close() error {
	var errs []error
	for _, k := range r.children {
		errs = append(errs, k.close())
	}
	if r.server != nil {
		r.server.Kill()
	}
	if r.lab != nil {
		errs = append(errs, r.lab.close())
	}
	for _, m := range r.mounts {
		errs = append(errs, unix.Unmount(m, unix.MNT_DETACH))
	}
	if r.dir != "" {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}
