package storm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// row is one kind of request, made by all machines.
type row struct {
	what     string
	count    int
	took     time.Duration
	each     []time.Duration // how long each took, the shortest first; nil where that was not measured
	cpu      time.Duration   // of the server's processes
	memory   int64           // of the server's processes afterwards, in bytes
	repeated int64           // messages that had to be sent again
}

func (r *row) rate() float64 { return float64(r.count) / r.took.Seconds() }

// cpuEach is what one request costs the server.
func (r *row) cpuEach() time.Duration { return r.cpu / time.Duration(r.count) }

// percentile is the time within which so many of a hundred were answered.
func (r *row) percentile(p int) time.Duration {
	if len(r.each) == 0 {
		return 0
	}
	return r.each[min(len(r.each)-1, len(r.each)*p/100)]
}

// table prints rows.
type table struct {
	out  io.Writer
	head bool
}

func (t *table) print(r *row) {
	if !t.head {
		t.head = true
		fmt.Fprintf(t.out, "  %-44s %7s %9s %9s %9s %9s %10s %8s\n", "", "count", "a second", "half in", "99 % in", "all in", "CPU each", "memory")
	}
	short := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	}
	longest := time.Duration(0)
	if len(r.each) > 0 {
		longest = r.each[len(r.each)-1]
	}
	again := ""
	if r.repeated > 0 {
		again = fmt.Sprintf("  %d messages sent again", r.repeated)
	}
	fmt.Fprintf(t.out, "  %-44s %7d %9.0f %9s %9s %9s %7.0f µs %4d MiB%s\n", r.what, r.count, r.rate(), short(r.percentile(50)), short(r.percentile(99)), short(longest),
		float64(r.cpuEach().Microseconds()), r.memory>>20, again)
}

// compare prints how a row is beside that of a peer.
func (t *table) compare(ours, theirs *row, peer string) {
	if ours == nil || theirs == nil {
		return
	}
	fmt.Fprintf(t.out, "    imgserve beside %s: %.2f times as many a second", peer, ours.rate()/theirs.rate())
	if ours.cpu > 0 && theirs.cpu > 0 {
		fmt.Fprintf(t.out, ", for %.2f times the CPU", float64(ours.cpuEach())/float64(theirs.cpuEach()))
	}
	fmt.Fprintln(t.out)
}

// wave has all of n machines do one thing, at most parallel of them at the same time, and measures each.
func wave(ctx context.Context, what string, n, parallel int, u *usage, f func(ctx context.Context, i int) error) (*row, error) {
	r := &row{what: what, count: n, each: make([]time.Duration, n)}
	before, err := u.read()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var next, failed atomic.Int64
	errs := make([]error, parallel)
	var wg sync.WaitGroup
	began := time.Now()
	for w := range min(parallel, n) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				at := time.Now()
				if err := f(ctx, i); err != nil {
					if failed.Add(1); errs[w] == nil {
						errs[w] = err
					}
				}
				r.each[i] = time.Since(at)
			}
		})
	}
	wg.Wait()
	r.took = time.Since(began)
	if n := failed.Load(); n > 0 {
		errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
		return nil, fmt.Errorf("%s: %d of %d failed, among them: %w", what, n, r.count, errors.Join(errs[:min(3, len(errs))]...))
	}
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	slices.Sort(r.each)
	after, err := u.read()
	if err != nil {
		return nil, err
	}
	r.cpu, r.memory = after.cpu-before.cpu, after.memory
	return r, nil
}

// usage reads what a process and its descendants use.
type usage struct{ pid int }

// used is what processes have used: processor time since they started, memory now and at most. Memory is the resident set,
// in bytes; what processes share is counted in each.
type used struct {
	cpu          time.Duration
	memory, most int64
}

// tick is the unit of processor time in /proc (proc(5)): USER_HZ is 100 wherever Go runs.
const tick = 10 * time.Millisecond

func (u *usage) read() (used, error) {
	var sum used
	pids, err := family(u.pid)
	if err != nil {
		return sum, err
	}
	for _, pid := range pids {
		one, err := readProcess(pid)
		if err != nil {
			return sum, fmt.Errorf("read what process %d uses: %w", pid, err)
		}
		sum.cpu, sum.memory, sum.most = sum.cpu+one.cpu, sum.memory+one.memory, sum.most+one.most
	}
	return sum, nil
}

// family is a process and its descendants.
func family(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[string][]int{}
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if f := statFields(string(b)); err == nil && len(f) > 1 {
			children[f[1]] = append(children[f[1]], child)
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[strconv.Itoa(all[i])]...)
	}
	return all, nil
}

// statFields are those of /proc/PID/stat from the third on: the second is a name, in which anything may be.
func statFields(stat string) []string {
	return strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
}

func readProcess(pid int) (used, error) {
	var u used
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	f := statFields(string(b))
	if len(f) < 13 {
		return u, errors.New("/proc says too little")
	}
	for _, s := range f[11:13] { // utime and stime
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(n) * tick
	}
	if b, err = os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err != nil {
		return u, err
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		to := map[string]*int64{"VmRSS": &u.memory, "VmHWM": &u.most}[key]
		if to == nil {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return u, err
		}
		*to = n << 10
	}
	return u, nil
}
