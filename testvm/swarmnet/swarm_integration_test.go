//go:build integration

package swarmnet

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/image/plan"
)

// inside is the environment variable by which this program knows that it is a machine of a swarm.
const inside = "SWARM_TEST_MACHINE"

func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(m.Run())
	}
	if err := Machine(context.Background(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// mib is a number of bytes.
const mib = 1 << 20

// world is a lab with what tests do in it.
type world struct {
	*run
	t   *testing.T
	ctx context.Context
	rel release

	mu  sync.Mutex
	say []string
}

// newWorld makes a lab whose release has so many bytes, or skips.
func newWorld(t *testing.T, size int64, cable Link, c serverConfig) *world {
	t.Helper()
	return newWorldOf(t, noise(size), cable, c)
}

func newWorldOf(t *testing.T, content io.Reader, cable Link, c serverConfig) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	build, err := filepath.Abs("../../build")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"imgserve", "imgctl"} {
		if _, err := os.Stat(filepath.Join(build, name)); err != nil {
			t.Skipf("make build has not been run: %v", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	rel, err := writeRelease(t.TempDir(), content)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, rel: rel}
	p := Programs{
		Imgserve: filepath.Join(build, "imgserve"), Imgctl: filepath.Join(build, "imgctl"), Machine: []string{self}, Env: []string{inside + "=1"},
	}
	w.run, err = newRun(ctx, t.TempDir(), p, rel, cable, c, w.line)
	need(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			w.tell()
		}
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) line(l string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.say = append(w.say, l)
}

// tell shows what everybody has said.
func (w *world) tell() {
	for _, k := range w.children {
		s := k.now()
		w.t.Logf("machine %d, %d of %d bytes, %s:\n%s", k.i, s.got, s.total, s.failed, strings.Join(s.said, "\n"))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.Logf("imgserve:\n%s", strings.Join(w.say, "\n"))
}

// all orders machines and starts them: they have their plans then.
func (w *world) all(specs ...machineSpec) []*child {
	w.t.Helper()
	first, err := w.order(w.ctx, specs)
	need(w.t, err)
	list := make([]*child, len(specs))
	for i, s := range specs {
		if list[i], err = w.start(w.ctx, first+i, s); err != nil {
			w.t.Fatal(err)
		}
	}
	return list
}

// begin has machines begin.
func (w *world) begin(list ...*child) time.Time {
	w.t.Helper()
	for _, k := range list {
		if err := k.begin(); err != nil {
			w.t.Fatal(err)
		}
	}
	return time.Now()
}

// finish waits until machines have all bytes, and returns when the last had.
func (w *world) finish(list ...*child) time.Time {
	w.t.Helper()
	var last time.Time
	for _, k := range list {
		if err := k.awaitDone(w.ctx); err != nil {
			w.t.Fatal(err)
		}
		if at := k.now().doneAt; at.After(last) {
			last = at
		}
	}
	return last
}

// same is so many machines alike.
func same(n int, s machineSpec) []machineSpec {
	list := make([]machineSpec, n)
	for i := range list {
		list[i] = s
	}
	return list
}

func keep(c *machineConfig) { c.Keep = true }

func TestHTTP(t *testing.T) {
	rate := int64(16 * mib)
	w := newWorld(t, 24*mib+77, Link{Rate: rate}, serverConfig{transport: plan.TransportHTTP})
	list := w.all(same(3, machineSpec{link: Link{Rate: rate}, change: keep})...)
	begun := w.begin(list...)
	took := w.finish(list...).Sub(begun)
	sent, err := w.originSent()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s, %.2f copies", took, float64(sent)/float64(w.rel.size))
}
