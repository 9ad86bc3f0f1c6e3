//go:build integration

package swarmnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
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

// programs are those that make build has made, or the test is skipped.
func programs(t *testing.T) Programs {
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
	return Programs{Imgserve: filepath.Join(build, "imgserve"), Imgctl: filepath.Join(build, "imgctl"), Machine: []string{self}, Env: []string{inside + "=1"}}
}

// log keeps what imgserve and the machines say.
type log struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *log) line(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.WriteString(s + "\n")
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// always are the faults that make test tries too; make e2e tries all.
func always() []string {
	return []string{"nothing goes wrong", "nothing goes wrong, over http", "nothing goes wrong, over torrent", "a fifth of the machines dies", "machines join at 10, 50 and 90 %"}
}

// Whatever goes wrong, every machine that survives has the right bytes in the end.
func TestFaults(t *testing.T) {
	p := programs(t)
	all := os.Getenv("IMGBUILD_SWARM_FAULTS") == "all"
	rel, err := writeRelease(t.TempDir(), noise(32*mib+4711))
	if err != nil {
		t.Fatal(err)
	}
	x := scale{cable: Link{Rate: 12 * mib}, machines: 5, keep: true}
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			if !all && !slices.Contains(always(), f.name) {
				t.Skip("only in make e2e, or with IMGBUILD_SWARM_FAULTS=all")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			said := &log{}
			o, err := play(ctx, t.TempDir(), p, rel, f, x, said.line)
			if errors.Is(err, ErrShape) || errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			}
			t.Logf("%s", o)
			if err == nil {
				return
			}
			t.Error(err)
			t.Logf("they say:\n%s", said)
		})
	}
}
