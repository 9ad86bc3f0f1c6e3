package swarmnet

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"imgbuild/image/plan"
)

// row is one run.
type row struct {
	transport plan.Transport
	machines  int
	size      int64         // of the root file system, in bytes
	rate      float64       // what a cable really brings, in bytes of payload a second
	limit     time.Duration // in which it can be done at best
	took      time.Duration // until the last machine had all bytes
	copies    float64       // what the origin sent, in root file systems
	cpu       time.Duration // of all machines
	server    time.Duration // processor time of imgserve
	memory    int64         // the most that a machine had
	busy      float64       // share of the host's processor time that was used, by whomever
}

// share is how much of the possible was reached.
func (r *row) share() float64 { return float64(r.limit) / float64(r.took) }

// boundAt is the share of busy processors from which on it is not the cables alone that were waited for.
const boundAt = 0.9

// table prints rows.
type table struct {
	out   io.Writer
	head  bool
	bound bool
}

func (t *table) print(r *row) {
	if !t.head {
		t.head = true
		fmt.Fprintf(t.out, "  %-9s %8s %9s %11s %9s %9s %7s %8s %10s %10s %9s %6s\n", "transport", "machines", "size", "a cable", "at best", "the last", "share",
			"copies", "CPU each", "imgserve", "memory", "busy")
	}
	mark := ""
	if r.busy >= boundAt {
		mark, t.bound = " *", true
	}
	fmt.Fprintf(t.out, "  %-9s %8d %5d MiB %5.1f MiB/s %7.1f s %7.1f s %5.0f %% %8.2f %8.2f s %8.2f s %5d MiB %4.0f %%%s\n", r.transport, r.machines, r.size>>20, r.rate/(1<<20),
		r.limit.Seconds(), r.took.Seconds(), 100*r.share(), r.copies, r.cpu.Seconds()/float64(r.machines), r.server.Seconds(), r.memory>>20, 100*r.busy, mark)
}

// end explains what has to be.
func (t *table) end() {
	if t.bound {
		fmt.Fprintf(t.out, "  * the processors were busy for more than %.0f %% of the time, and were waited for too: a lower --rate shows the network alone\n", 100*boundAt)
	}
}

// usage is processor time so far.
type usage struct {
	server, busy, all time.Duration // of imgserve; of the host, used and in all
}

// tick is the unit of processor time in /proc (proc(5)): USER_HZ is 100 wherever Go runs.
const tick = 10 * time.Millisecond

func (r *run) usage() (u usage, err error) {
	fail := func(err error) (usage, error) { return usage{}, fmt.Errorf("read what the processors did: %w", err) }
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.server.PID()))
	if err != nil {
		return fail(err)
	}
	// The second field is a name, in which anything may be; utime and stime are the 14th and 15th.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 {
		return fail(errors.New("/proc says too little"))
	}
	ticks, err := sum(f[11:13])
	if err != nil {
		return fail(err)
	}
	u.server = time.Duration(ticks) * tick
	if b, err = os.ReadFile("/proc/stat"); err != nil {
		return fail(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if f = strings.Fields(line); len(f) < 9 {
		return fail(errors.New("/proc says too little"))
	}
	all, err := sum(f[1:9]) // user, nice, system, idle, iowait, irq, softirq, steal
	if err != nil {
		return fail(err)
	}
	idle, err := sum(f[4:6])
	if err != nil {
		return fail(err)
	}
	u.all, u.busy = time.Duration(all)*tick, time.Duration(all-idle)*tick
	return u, nil
}

func sum(fields []string) (n int64, err error) {
	for _, f := range fields {
		k, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		n += k
	}
	return n, nil
}
