package swarmnet

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
)

func TestEveryTenthChunkIsSpoiledWhereverAReadBegins(t *testing.T) {
	whole := make([]byte, 21*image.ChunkSize+9)
	for _, from := range []int{0, 1, 1000, 1001, 9*image.ChunkSize + 5, 15 * image.ChunkSize} {
		got, err := io.ReadAll(&spoiled{ReadCloser: io.NopCloser(iotest.HalfReader(bytes.NewReader(whole[from:]))), off: int64(from), every: 10})
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Clone(whole)
		want[9*image.ChunkSize+1000] ^= 0xff
		want[19*image.ChunkSize+1000] ^= 0xff
		if !bytes.Equal(got, want[from:]) {
			t.Errorf("from %d on other bytes are spoiled", from)
		}
	}
}

func TestTableSaysWhenProcessorsWereWaitedFor(t *testing.T) {
	for _, c := range []struct {
		name string
		busy float64
		mark bool
	}{{"busy", 0.95, true}, {"idle", 0.5, false}} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			tb := &table{out: &b}
			tb.print(&row{transport: plan.TransportRelay, machines: 8, size: 256 << 20, rate: 8 << 20, limit: 32 * time.Second, took: 40 * time.Second, copies: 1.04,
				cpu: 8 * time.Second, server: time.Second, memory: 90 << 20, busy: c.busy})
			tb.end()
			out := strings.Join(strings.Fields(b.String()), " ")
			want := fmt.Sprintf("relay 8 256 MiB 8.0 MiB/s 32.0 s 40.0 s 80 %% 1.04 1.00 s 1.00 s 90 MiB %.0f %%", 100*c.busy)
			if !strings.Contains(out, want) || strings.Contains(out, "a lower --rate") != c.mark {
				t.Errorf("printed\n%s\nwithout\n%s", b.String(), want)
			}
		})
	}
}

func TestCablesCarryTheirRateInPayload(t *testing.T) {
	if got := wire(1448 * 1000); got != 1514*1000 {
		t.Errorf("%d bytes on the wire", got)
	}
	if a, b := DefaultRate(1), DefaultRate(1000); a > 16<<20 || b >= a || b <= 0 {
		t.Errorf("rates are %d and %d", a, b)
	}
}
