package tftp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	peer "github.com/pin/tftp/v3"
)

// start runs a server on a free port of 127.0.0.1 and waits until it listens.
func start(t *testing.T, files map[string]string, d Dynamic) (*Server, string, *waiter) {
	t.Helper()
	free, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.LocalAddr().String()
	free.Close()
	ready := &waiter{want: "TFTP is served", seen: make(chan struct{})}
	s, err := New(Config{Listen: addr, Files: NewFiles(files), Dynamic: d}, slog.New(slog.NewTextHandler(ready, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready.seen:
	case err := <-ended:
		t.Fatal(err)
	}
	return s, addr, ready
}

// waiter is a log in which a line is waited for.
type waiter struct {
	mu   sync.Mutex
	b    bytes.Buffer
	want string
	seen chan struct{}
	once bool
}

func (w *waiter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.once && strings.Contains(string(p), w.want) {
		w.once = true
		close(w.seen)
	}
	return w.b.Write(p)
}

func (w *waiter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func loader(t *testing.T, size int) (string, []byte) {
	p := filepath.Join(t.TempDir(), "loader")
	data := bytes.Repeat([]byte("iPXE\n\r\x00\xff"), size/8+1)[:size]
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return p, data
}

func TestAnotherLibrarysClientReadsWhatWeSend(t *testing.T) {
	p, data := loader(t, 300_001)
	s, addr, _ := start(t, map[string]string{"undionly.kpxe": p}, func(_ context.Context, name string, client netip.Addr) ([]byte, error) {
		if name != "grub/grub.cfg-01-52-54-00-00-00-0a" || client != netip.MustParseAddr("127.0.0.1") {
			return nil, fs.ErrNotExist
		}
		return []byte("exit\n"), nil
	})
	get := func(name, mode string, block int) ([]byte, error) {
		c, err := peer.NewClient(addr)
		if err != nil {
			t.Fatal(err)
		}
		if block > 0 {
			c.SetBlockSize(block)
		}
		c.RequestTSize(true)
		r, err := c.Receive(name, mode)
		if err != nil {
			return nil, err
		}
		if n, ok := r.(peer.IncomingTransfer).Size(); ok && mode == "octet" && name == "undionly.kpxe" && n != int64(len(data)) {
			t.Errorf("the size is said to be %d", n)
		}
		var b bytes.Buffer
		_, err = r.WriteTo(&b)
		return b.Bytes(), err
	}
	for _, block := range []int{0, 512, 1432, 1468, 8192} {
		want := data
		if got, err := get("undionly.kpxe", "octet", block); err != nil || !bytes.Equal(got, want) {
			t.Errorf("block size %d: %d bytes, %v", block, len(got), err)
		}
	}
	if got, err := get("//grub/grub.cfg-01-52-54-00-00-00-0a", "octet", 0); err != nil || string(got) != "exit\n" {
		t.Errorf("a name that the function knows: %q, %v", got, err)
	}
	if _, err := get("/etc/passwd", "octet", 0); err == nil || !strings.Contains(err.Error(), "there is no such file") {
		t.Errorf("a name that nobody knows: %v", err)
	}
	c, _ := peer.NewClient(addr)
	if _, err := c.Send("undionly.kpxe", "octet"); err == nil || !strings.Contains(err.Error(), "read only") {
		t.Errorf("writing: %v", err)
	}
	if n := s.Counters(); n.NotFound != 1 || n.Refused != 1 || n.Requests != 7 {
		t.Errorf("counters: %+v", n)
	}
}

func TestAClientThatWantsOnlyTheSizeIsNothingSpecial(t *testing.T) {
	p, _ := loader(t, 5000)
	s, addr, _ := start(t, map[string]string{"x": p}, nil)
	for name, end := range map[string]func(net.PacketConn, net.Addr){
		"with an error":       func(c net.PacketConn, to net.Addr) { _, _ = c.WriteTo(errorPacket(8, "User aborted the transfer"), to) },
		"by closing its port": func(c net.PacketConn, to net.Addr) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			before := s.Counters().Aborted
			c, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			to, _ := net.ResolveUDPAddr("udp4", addr)
			if _, err := c.WriteTo(rrq("x", "octet", "tsize", "0"), to); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 600)
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, from, err := c.ReadFrom(b)
			if err != nil || !bytes.Equal(b[:n], []byte("\x00\x06tsize\x005000\x00")) {
				t.Fatalf("%q %v", b[:n], err)
			}
			end(c, from)
			for s.Counters().Aborted == before { // the server ends the transfer, or the test its time
				if t.Context().Err() != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

func TestARepeatedRequestIsOneTransferAndOneClientCannotTakeAll(t *testing.T) {
	p, _ := loader(t, 5000)
	s, addr, _ := start(t, map[string]string{"x": p}, nil)
	to, _ := net.ResolveUDPAddr("udp4", addr)
	b := make([]byte, 600)
	var conns []net.PacketConn
	for range perClient + 3 {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		for range 3 {
			if _, err := c.WriteTo(rrq("x", "octet"), to); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range conns[:perClient] {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, _, err := c.ReadFrom(b); err != nil {
			t.Fatal(err)
		}
	}
	for s.Counters().Limited < 9 {
		time.Sleep(time.Millisecond)
	}
	if n := s.Counters(); n.Requests != perClient || n.Active != perClient || n.Limited != 9 {
		t.Errorf("counters: %+v", n)
	}
	for _, c := range conns {
		c.Close()
	}
}

func TestAPortThatIsTakenIsSaid(t *testing.T) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := New(Config{Listen: c.LocalAddr().String()}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another program has the port") {
		t.Errorf("got %v", err)
	}
	for _, bad := range []Config{{Listen: "69"}, {MaxBlock: 8}, {MaxBlock: 70000}} {
		if _, err := New(bad, nil); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if !errors.Is(gone(os.ErrDeadlineExceeded), os.ErrDeadlineExceeded) {
		t.Error("a timeout is taken for the client's end")
	}
}
