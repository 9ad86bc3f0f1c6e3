package transfer

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestATransferIsMeasuredAgainstWhatBoundsItMost(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		link     float64
		disk     float64 // bytes a second while busy
		rates    []int64 // MiB in each second
		want     float64
		by       string
		unpacked int64
	}{
		"a source at its best all the time":      {rates: []int64{10, 10, 10, 10}, want: 1, by: "network"},
		"a source that paused half the time":     {rates: []int64{10, 10, 0, 0}, want: 0.5, by: "network"},
		"a link that could do more":              {link: 100 * mib, rates: []int64{10, 10, 10, 10}, want: 1, by: "network"},
		"a link that is full":                    {link: 10 * mib, rates: []int64{10, 10, 10, 10}, want: 1, by: "network"},
		"a disk that writes three times as much": {disk: 30 * mib, unpacked: 300 * mib, rates: []int64{20, 5, 5, 10}, want: 1, by: "disk"},
		"a disk that could do more":              {disk: 300 * mib, unpacked: 300 * mib, rates: []int64{10, 10, 0, 0}, want: 0.5, by: "network"},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(0, 0)
			elapsed := func() time.Duration { return now.Sub(time.Unix(0, 0)) }
			o := Ceiling{Size: 100 * mib, Unpacked: c.unpacked, Link: c.link}
			if c.disk > 0 {
				o.Disk = func() (int64, time.Duration) {
					return 7*mib + int64(c.disk*elapsed().Seconds()), time.Second + elapsed()
				}
			}
			m := newCeiling(o, now)
			if _, _, ok := m.percent(0, now); ok {
				t.Error("it is known before anything came")
			}
			got, share, by := int64(0), 0.0, ""
			for _, r := range c.rates {
				now = now.Add(time.Second)
				got += r * mib
				share, by, _ = m.percent(got, now)
			}
			if math.Abs(share-c.want) > 0.01 || by != c.by {
				t.Errorf("%.3f by %s, and not %.3f by %s", share, by, c.want, c.by)
			}
		})
	}
}

func TestSysfsTellsWhatLinksAndDisksDo(t *testing.T) {
	sys := t.TempDir()
	for path, text := range map[string]string{
		"class/block/vda/stat":     "  100  1 200 3 50 2 8192 40 0 2500 60 0 0 0 0 1 2\n",
		"class/block/vdb/stat":     "  100  1 200 3 50 2 4096 40 0 3000 60 0 0 0 0 1 2\n",
		"class/block/odd/stat":     "1 2 3\n",
		"class/net/eth0/carrier":   "1\n",
		"class/net/eth0/speed":     "1000\n",
		"class/net/eth0/device/x":  "",
		"class/net/eth1/carrier":   "0\n",
		"class/net/eth1/speed":     "100000\n",
		"class/net/eth1/device/x":  "",
		"class/net/virt/carrier":   "1\n",
		"class/net/virt/speed":     "-1\n",
		"class/net/virt/device/x":  "",
		"class/net/bridge/carrier": "1\n",
		"class/net/bridge/speed":   "40000\n",
	} {
		p := filepath.Join(sys, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if w, b := Disks(sys, []string{"vda", "vdb", "odd", "none"})(); w != 8192*512 || b != 3*time.Second {
		t.Errorf("written %d, busy %s", w, b)
	}
	if got := Link(sys); got != 125e6 {
		t.Errorf("the link has %.0f bytes a second", got)
	}
}
