//go:build integration

package swarmnet

import (
	"errors"
	"os"
	"testing"
	"time"
)

// need skips where there can be no lab.
func need(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, ErrShape) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestCablesBringWhatTheyAreSaidTo(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	l, err := newLab(t.Context(), Link{Rate: 8 << 20})
	need(t, err)
	defer func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []Link{{Rate: 8 << 20}, {Rate: 8 << 20}, {Rate: 1 << 20}, {Rate: 8 << 20, Loss: 0.05}} {
		_, err := l.add(c)
		need(t, err)
	}
	for _, c := range []struct {
		name     string
		from, to int
	}{{"8 MiB/s", 0, 1}, {"to 1 MiB/s", 0, 2}, {"from 1 MiB/s", 2, 0}, {"to a lossy one", 0, 3}, {"from a lossy one", 3, 0}} {
		r, err := l.probe(t.Context(), c.from, c.to, 1200*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.2f MiB/s", c.name, r/(1<<20))
	}
}
