package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/image/plan"
)

// How long an NFS server may take: to be there, as after a power failure of the whole rack, and to answer the kernel.
const (
	nfsReach = 45 * time.Second
	nfsDial  = 5 * time.Second
	nfsMount = 90 * time.Second
)

// nfsPort is the one port of NFS 4 (RFC 7530, section 3.1), which servers of version 3 have too.
const nfsPort = "2049"

// NFS says what exported tree is mounted, and for whom.
type NFS struct {
	From plan.NFSRoot
	// Addresses finds a host's.
	Addresses func(ctx context.Context, host string) ([]string, error)
	// Manifest is the release's: the tree has to have the same.
	Manifest []byte
	// Client is this machine's name towards the server, which no other has, of letters and digits.
	Client string
	// Sys is where sysfs is mounted.
	Sys string
}

// source is the tree as the kernel writes it.
func (n NFS) source() string {
	if strings.Contains(n.From.Server, ":") {
		return "[" + n.From.Server + "]:" + n.From.Path
	}
	return n.From.Server + ":" + n.From.Path
}

// MountNFS mounts an exported tree, read-only, as the lowest layer (nfs(5)), and makes sure that it is the release's and that root can
// read all of it. It takes minutes at most, whatever the server does.
func (r *Root) MountNFS(ctx context.Context, n NFS) error {
	if err := r.load(ctx, "build the image with initramfs: {modules: [nfs, nfsv3, nfsv4]} in its profile", "nfs", "nfsv4", "nfsv3"); err != nil {
		return err
	}
	// Without it all machines say that they are "(none)", and a server of version 4 takes each for the one before, restarted, whose
	// open files it closes (RFC 8881, section 2.4).
	if err := os.WriteFile(filepath.Join(n.Sys, "module/nfs/parameters/nfs4_unique_id"), []byte(n.Client), 0); err != nil {
		return fmt.Errorf("tell the NFS server this machine from others: %w", err)
	}
	addr, err := n.reach(ctx)
	if err != nil {
		return err
	}
	if err := r.mountVersions(ctx, n.source(), addr); err != nil {
		return err
	}
	return n.check(r.o.layer("ro"))
}

// reach waits until the server takes connections, and returns the address where it does.
func (n NFS) reach(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, nfsReach)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	dialer := net.Dialer{Timeout: nfsDial}
	var said error // what was seen last, and not that the time was up
	for {
		found, err := n.Addresses(ctx, n.From.Server)
		if err == nil && len(found) == 0 {
			err = errNoAddress
		}
		for _, a := range found {
			var conn net.Conn
			if conn, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(a, nfsPort)); err == nil {
				conn.Close()
				return a, nil
			}
		}
		if ctx.Err() == nil || said == nil {
			said = err
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return "", fmt.Errorf("reach the NFS server %s: %w", n.From.Server, context.Cause(ctx))
		}
		return "", fmt.Errorf("reach the NFS server %s: it took no connection at port %s for %d s (%w); start it, or correct imgbuild.live.root=", n.From.Server, nfsPort, int(nfsReach.Seconds()), said)
	}
}

// errNoAddress is a name that leads nowhere.
var errNoAddress = errors.New("its name has no address")

// mountVersions tries the versions of NFS, the newest first. Version 3 asks the server's portmapper and mount daemon; without locks,
// which a read-only tree does not need. A tree that never changes needs few questions about what is cached of it.
func (r *Root) mountVersions(ctx context.Context, source, addr string) error {
	var said []string
	for _, v := range []struct{ name, options string }{{"4.2", "vers=4.2"}, {"4.1", "vers=4.1"}, {"3", "vers=3,nolock,mountproto=tcp"}} {
		err := r.mountInTime(ctx, source, v.options+",proto=tcp,hard,nocto,actimeo=600,addr="+addr)
		if err == nil {
			return nil
		}
		if errors.Is(err, errTime) || ctx.Err() != nil {
			return fmt.Errorf("mount %s: %w", source, err)
		}
		var errno unix.Errno
		if errors.As(err, &errno) {
			err = errno
		}
		said = append(said, fmt.Sprintf("NFS %s: %v", v.name, err))
	}
	return fmt.Errorf("mount %s: the server does not give it to this machine (%s); look at the path and at the server's exports", source, strings.Join(said, ", "))
}

// errTime is a server that takes connections and does not answer.
var errTime = errors.New("the server takes connections and does not answer; look whether it is overloaded, or waits for its clients after a restart")

// mountInTime mounts. A call that hangs is left behind: this machine starts anew soon.
func (r *Root) mountInTime(ctx context.Context, source, options string) error {
	done := make(chan error, 1)
	go func() { // ends when the kernel gives up
		target := r.o.layer("ro")
		err := os.MkdirAll(target, 0o755)
		if err == nil {
			err = unix.Mount(source, target, "nfs", unix.MS_RDONLY, options)
		}
		done <- err
	}()
	limit := time.NewTimer(nfsMount)
	defer limit.Stop()
	select {
	case err := <-done:
		if err == nil {
			r.mounts = append(r.mounts, r.o.layer("ro"))
		}
		return err
	case <-limit.C:
		return errTime
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// check makes sure that the mounted tree is what the machine's kernel came with, and as root sees it.
func (n NFS) check(dir string) error {
	fail := func(format string, a ...any) error {
		return fmt.Errorf("look at %s: %w", n.source(), fmt.Errorf(format, a...))
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fail("%w", err)
	}
	if st.Uid != 0 {
		return fail("its root belongs to the user %d and not to root: the server sends names in place of numbers (nfsd's nfs4_disable_idmapping=1, or Only_Numeric_Owners of NFS-Ganesha, has it send numbers), or the tree was copied without its owners", st.Uid)
	}
	got, err := os.ReadFile(filepath.Join(dir, image.TreeManifest))
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fail("the server does not let root read everything; export it with no_root_squash")
	case errors.Is(err, fs.ErrNotExist):
		return fail("it has no /%s, so that nobody knows of which release it is; write it with imgbuild export", image.TreeManifest)
	case err != nil:
		return fail("%w", err)
	case bytes.Equal(got, n.Manifest):
		return nil
	}
	other := "another release"
	if m, err := image.Parse(got); err == nil {
		other = m.Name + " " + m.Version
	}
	return fail("it is the tree of %s, and not of the release that this machine starts; export that one with imgbuild export, and name its tree", other)
}
