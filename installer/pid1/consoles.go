package pid1

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"imgbuild/installer/report"
)

// queueLength is how many lines a console may be behind before lines are dropped: two minutes of a talkative install at
// 9600 baud.
const queueLength = 200

// Consoles writes lines to all consoles at once. Each has a goroutine and a bounded queue, so that a serial line that is
// slow, or that nobody listens to, holds up neither the others nor the work.
type Consoles struct {
	start func(func()) // starts a goroutine

	mu   sync.Mutex
	all  map[string]*console
	tail []entry // the last lines, for a console that is found late
}

type entry struct {
	class report.Class
	text  string
}

// NewConsoles returns a set without consoles. start starts goroutines, which live as long as the process.
func NewConsoles(start func(func())) *Consoles {
	return &Consoles{start: start, all: map[string]*console{}}
}

// Find opens the consoles that the kernel knows and that are not open yet: those in /proc/consoles and those in
// /sys/class/tty/console/active.
func (c *Consoles) Find(procConsoles, active, dev string) {
	names := consoleNames(procConsoles, active)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range names {
		if c.all[n] != nil {
			continue
		}
		// Without NONBLOCK, opening a serial line may wait for a modem for ever.
		f, err := os.OpenFile(filepath.Join(dev, n), os.O_RDWR|openFlags, 0)
		if err != nil {
			continue // netconsole and the like have no device; a later look may find one
		}
		c.add(n, f)
	}
}

// Add adds a console that is open already.
func (c *Consoles) Add(name string, f *os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(name, f)
}

func (c *Consoles) add(name string, f *os.File) {
	k := &console{name: name, f: f, screen: isScreen(name), wake: make(chan struct{}, 1), queue: slices.Clone(c.tail)}
	c.all[name] = k
	c.start(k.run)
	k.poke()
}

// consoleNames are the names in the first column of /proc/consoles, and the words of console/active.
func consoleNames(procConsoles, active string) []string {
	var names []string
	b, _ := os.ReadFile(procConsoles)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 {
			names = append(names, f[0])
		}
	}
	b, _ = os.ReadFile(active)
	names = append(names, strings.Fields(string(b))...)
	var good []string
	for _, n := range names {
		if n == filepath.Base(n) && n != "." && n != ".." && !slices.Contains(good, n) {
			good = append(good, n)
		}
	}
	return good
}

// isScreen says whether a console is a virtual terminal, where a line can be written over.
func isScreen(name string) bool {
	rest, ok := strings.CutPrefix(name, "tty")
	return ok && rest != "" && strings.Trim(rest, "0123456789") == ""
}

// Line implements report.Sink.
func (c *Consoles) Line(class report.Class, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := entry{class, text}
	if class != report.ClassProgress {
		if c.tail = append(c.tail, e); len(c.tail) > 40 {
			c.tail = slices.Delete(c.tail, 0, 1)
		}
	}
	for _, k := range c.all {
		k.push(e)
	}
}

// Screens shows a line that is written over, on screens only.
func (c *Consoles) Screens(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.all {
		if k.screen {
			k.push(entry{report.ClassProgress, text})
		}
	}
}

// Flush waits until all lines are out, but no longer than the given time: a dead serial line never takes them.
func (c *Consoles) Flush(d time.Duration) {
	end := time.Now().Add(d)
	for _, k := range c.list() {
		for !k.idle() && time.Now().Before(end) {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func (c *Consoles) list() []*console {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*console
	for _, k := range c.all {
		all = append(all, k)
	}
	return all
}

// console is one of them.
type console struct {
	name   string
	f      *os.File
	screen bool
	wake   chan struct{}

	mu      sync.Mutex
	queue   []entry
	dropped int
	busy    bool
}

func (k *console) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// push queues a line. Progress that has not been shown yet is replaced; when the queue is full, the oldest line that is
// no failure is dropped and counted.
func (k *console) push(e entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.class == report.ClassProgress {
		k.queue = slices.DeleteFunc(k.queue, func(q entry) bool { return q.class == report.ClassProgress })
	}
	if len(k.queue) >= queueLength {
		if i := slices.IndexFunc(k.queue, func(q entry) bool { return q.class != report.ClassFailure }); i >= 0 {
			k.queue = slices.Delete(k.queue, i, i+1)
			k.dropped++
		}
	}
	k.queue = append(k.queue, e)
	k.poke()
}

func (k *console) pop() (entry, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dropped > 0 {
		e := entry{report.ClassInfo, fmt.Sprintf("%s(%d lines were left out: this console is too slow)", report.Prefix, k.dropped)}
		k.dropped, k.busy = 0, true
		return e, true
	}
	if len(k.queue) == 0 {
		k.busy = false
		return entry{}, false
	}
	e := k.queue[0]
	k.queue = slices.Delete(k.queue, 0, 1)
	k.busy = true
	return e, true
}

func (k *console) idle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.queue) == 0 && !k.busy
}

// run writes for as long as the process lives.
func (k *console) run() {
	for range k.wake {
		for {
			e, ok := k.pop()
			if !ok {
				break
			}
			text := e.text + "\n"
			if k.screen {
				text = e.text
				if e.class != report.ClassProgress {
					text += "\n"
				}
				text = "\r\x1b[K" + text
			}
			if _, err := k.f.WriteString(text); err != nil {
				// A line that was hung up comes back, or never; other consoles go on meanwhile.
				time.Sleep(time.Second)
			}
		}
	}
}
