package livebench

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"imgbuild/image"
	"imgbuild/testvm"
)

// row is all starts with one initramfs.
type row struct {
	contender
	starts []started
}

// table prints starts.
type table struct{ out io.Writer }

func newTable(out io.Writer, m *image.Manifest, h *testvm.Host, memoryMiB int) *table {
	fmt.Fprintf(out, "  %s %s, kernel %s, a root file system of %d MiB over HTTP; machines of %d MiB and 2 processors under %s\n",
		m.Name, m.Version, m.KernelRelease, m.Files[image.RootfsFile].Size>>20, memoryMiB, h.Accel)
	fmt.Fprintf(out, "  %-20s %10s %8s %10s %8s %8s %10s %10s %10s\n", "", "initramfs", "kernel", "until init", "system", "login", "touched", "in use", "in files")
	return &table{out}
}

func (t *table) print(c contender, s started) error {
	st, err := os.Stat(c.initrd)
	if err != nil {
		return fmt.Errorf("look at the initramfs: %w", err)
	}
	fmt.Fprintf(t.out, "  %-20s %6.1f MiB %6.1f s %8.1f s %6.1f s %6.1f s %6d MiB %6d MiB %6d MiB\n", c.name, float64(st.Size())/(1<<20),
		s.kernel.Seconds(), s.initramfs.Seconds(), s.system.Seconds(), s.login().Seconds(), s.touched>>20, s.used>>20, s.shared>>20)
	if len(s.failed) > 0 {
		fmt.Fprintf(t.out, "  %-20s it starts with failed units: %s\n", "", strings.Join(s.failed, ", "))
	}
	return nil
}

// end compares the first row with the others, by the medians, and says what the columns are.
func (t *table) end(rows []row) error {
	ours := rows[0]
	for _, peer := range rows[1:] {
		_, err := fmt.Fprintf(t.out, "  beside %s: %.2f times the time to login, %.2f of what is before the system's own first process; %.2f times the memory touched, %.2f of what is in use\n", peer.name,
			ratio(ours, peer, func(s started) float64 { return float64(s.login()) }), ratio(ours, peer, func(s started) float64 { return float64(s.kernel + s.initramfs) }),
			ratio(ours, peer, func(s started) float64 { return float64(s.touched) }), ratio(ours, peer, func(s started) float64 { return float64(s.used) }))
		if err != nil {
			return err
		}
	}
	return nil
}

// ratio is that of the medians.
func ratio(a, b row, of func(started) float64) float64 {
	return median(a.starts, of) / median(b.starts, of)
}

func median(starts []started, of func(started) float64) float64 {
	var all []float64
	for _, s := range starts {
		all = append(all, of(s))
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}
