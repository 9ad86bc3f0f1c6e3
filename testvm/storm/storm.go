// Package storm measures a boot storm: so many machines that start at the same time, against a real imgserve with SQLite,
// and the same load against dnsmasq and nginx for the parts that they can do.
//
// A release and the programs come in; a table of rates, latencies, processor time and memory goes out, or an error if one
// machine was not answered as it should be. Machines are simulated, and what they send is not: DHCP through a relay, iPXE's
// request for its script, the installer's claim and reports, the first boot, each from the machine's own address.
//
// It never touches the host's network, judges no figure, and shares the processors with what it measures: ratios count.
package storm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/testvm"
)

// Options say what is measured. Release, Imgserve, Imgctl, Machines and Out are required.
type Options struct {
	// Release is a release's directory, <images>/<name>/<version>.
	Release string
	// Trust are files with public keys of releases; empty for those that imgserve trusts by itself.
	Trust []string
	// Imgserve and Imgctl are the programs that are measured.
	Imgserve, Imgctl string
	// Dnsmasq and Nginx are programs to compare with; without one its part is left out.
	Dnsmasq, Nginx string
	// Machines are how many machines start: one storm for each.
	Machines []int
	// Parallel is how many are served at the same time; the others of a storm come as soon as one is done. Default 256.
	Parallel int
	// Slots are how many of the machines may install at the same time where the queue is measured. Default 50.
	Slots int
	// Dir is where the databases are, on a file system like a server's. Default /var/tmp.
	Dir string
	// Out gets the table, Log what the servers say.
	Out io.Writer
	Log func(line string)
}

// MostMachines is how many machines have an address in the storm's network.
const MostMachines = 60000

// Run runs the storms. The caller is in a network namespace of its own, which is the machines' (see Isolate), and is root.
func Run(ctx context.Context, o Options) (err error) {
	o.Parallel, o.Slots, o.Dir = cmp.Or(o.Parallel, 256), cmp.Or(o.Slots, 50), cmp.Or(o.Dir, "/var/tmp")
	if o.Log == nil {
		o.Log = func(string) {}
	}
	for _, n := range o.Machines {
		if n < 1 || n > MostMachines {
			return fmt.Errorf("run boot storm: %d machines; 1 to %d have an address in its network", n, MostMachines)
		}
	}
	if o.Release, err = filepath.Abs(o.Release); err != nil {
		return fmt.Errorf("run boot storm: %w", err)
	}
	l, err := newLab(ctx, o)
	if err != nil {
		return fmt.Errorf("run boot storm: %w", err)
	}
	defer func() { err = errors.Join(err, l.close()) }()
	for _, n := range o.Machines {
		if err := l.storm(ctx, n); err != nil {
			return fmt.Errorf("run boot storm of %d machines: %w", n, err)
		}
	}
	return nil
}

// storm is everything for one number of machines.
func (l *lab) storm(ctx context.Context, n int) error {
	fmt.Fprintf(l.o.Out, "\n%d machines, %d of them at the same time, on %d CPUs, which they share with the server, whose CPU and memory these are; database on %s\n",
		n, l.o.Parallel, runtime.NumCPU(), fileSystem(l.o.Dir))
	l.table = &table{out: l.o.Out}
	began := time.Now()
	if err := l.boot(ctx, n); err != nil {
		return err
	}
	if err := l.queue(ctx, n); err != nil {
		return err
	}
	if err := l.peers(ctx, n); err != nil {
		return err
	}
	fmt.Fprintf(l.o.Out, "  all of it took %.0f s\n", time.Since(began).Seconds())
	return nil
}

// fileSystem says on what kind of file system a directory is.
func fileSystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return dir
	}
	names := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "XFS", unix.BTRFS_SUPER_MAGIC: "Btrfs", unix.TMPFS_MAGIC: "tmpfs",
		unix.OVERLAYFS_SUPER_MAGIC: "overlayfs"}
	return cmp.Or(names[int64(s.Type)], fmt.Sprintf("file system %#x", s.Type)) + " in " + dir
}

// releaseRef is the release as the server calls it.
func (l *lab) releaseRef() string {
	return filepath.Base(filepath.Dir(l.o.Release)) + "/" + filepath.Base(l.o.Release)
}

// work makes a directory for one server.
func (l *lab) work(name string) (string, error) {
	dir, err := os.MkdirTemp(l.dir, name+"-")
	if err != nil {
		return "", fmt.Errorf("make work directory: %w", err)
	}
	return dir, nil
}

// start starts an imgserve that knows n machines, each with an order.
func (l *lab) start(ctx context.Context, n, slots int) (*server, error) {
	dir, err := l.work("imgserve")
	if err != nil {
		return nil, err
	}
	trust := ""
	for _, file := range l.o.Trust {
		trust += fmt.Sprintf("  - %q\n", file)
	}
	if trust != "" {
		trust = "trust:\n" + trust
	}
	yaml := fmt.Sprintf(`interface: br0
listen: :8080
url: %s
images: %q
state: %q
limits:
  global: %d
dhcp:
  probe: false # nor does dnsmasq, below
  subnets:
    - subnet: %s
      gateway: %s
      lease: 12h
      relay_only: true
tftp:
  enabled: false
%s`, testvm.ServerURL, filepath.Dir(filepath.Dir(l.o.Release)), filepath.Join(dir, "state"), slots, machinesNet, relayAddr, trust)
	s, err := l.network.StartImgserve(ctx, testvm.ImgserveConfig{Imgserve: l.o.Imgserve, Imgctl: l.o.Imgctl, Dir: dir, YAML: yaml, Log: l.o.Log})
	if err != nil {
		return nil, err
	}
	srv := &server{Imgserve: s, dir: dir, machines: newMachines(n), parallel: l.o.Parallel}
	srv.keep = keepable(n, l.o.Parallel)
	for _, m := range srv.machines[:srv.keep] {
		m.keeps = true
	}
	return srv, nil
}

// server is an imgserve and the machines that it serves.
type server struct {
	*testvm.Imgserve
	dir      string
	machines []*machine
	parallel int
	keep     int // so many machines keep their installer's connection open
}

// stop ends the server and removes what it has written.
func (s *server) stop(ctx context.Context) error {
	for _, m := range s.machines {
		m.hangUp()
	}
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return os.RemoveAll(s.dir)
}

// keepable is how many of n machines can have a connection open all the time: each takes a file of ours.
func keepable(n, parallel int) int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0
	}
	room := int64(min(lim.Cur, 1<<30)) - int64(2*parallel) - 200
	return int(max(0, min(int64(n), room)))
}
