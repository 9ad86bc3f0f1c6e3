//go:build integration

package fetch

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/installer/blob"
)

// nginx serves a directory on loopback, as a plain web server that people have would.
func nginx(b *testing.B, dir string) string {
	b.Helper()
	bin, err := exec.LookPath("nginx")
	if err != nil {
		b.Skip("nginx is not installed: there is no web server to compare with")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	conf := filepath.Join(b.TempDir(), "nginx.conf")
	text := fmt.Sprintf(`worker_processes 1; daemon off; pid %[1]s.pid; error_log %[1]s.log;
events { worker_connections 256; }
http { access_log off; sendfile on; tcp_nopush on;
 client_body_temp_path %[1]s.a; proxy_temp_path %[1]s.b; fastcgi_temp_path %[1]s.c; uwsgi_temp_path %[1]s.d; scgi_temp_path %[1]s.e;
 server { listen %[2]s; root %[3]s; } }`, conf, address, dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(bin, "-c", conf)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	for end := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return "http://" + address
		}
		if time.Now().After(end) {
			b.Fatalf("nginx does not listen: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// BenchmarkFetchAgainstCurl fetches a file of a web server on this machine, checked and read while it comes, then with curl
// to /dev/null, and then with curl into sha256sum, which checks it too.
func BenchmarkFetchAgainstCurl(b *testing.B) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		b.Skip("curl is not installed: there is nothing to compare with")
	}
	const size = 1 << 30
	dir := b.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		os.Chmod(d, 0o755) // nginx reads as another user
	}
	h := image.NewHasher()
	path := filepath.Join(dir, "rootfs")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, image.ChunkSize)
	for i := range size / image.ChunkSize {
		for k := 0; k < len(p); k += 512 {
			p[k], p[k+1] = byte(i), byte(k>>9)
		}
		if _, err := io.MultiWriter(f, h).Write(p); err != nil {
			b.Fatal(err)
		}
	}
	table := h.File(true).Chunks
	u := nginx(b, dir) + "/rootfs"
	b.SetBytes(size)
	var ours, theirs, checked usage
	shell := func(u *usage, cmds ...*exec.Cmd) {
		begun := time.Now()
		for i, c := range cmds {
			if i > 0 {
				if c.Stdin, err = cmds[i-1].StdoutPipe(); err != nil {
					b.Fatal(err)
				}
			}
		}
		for _, c := range cmds {
			c.Stderr = os.Stderr
			if err := c.Start(); err != nil {
				b.Fatal(err)
			}
		}
		for i := range cmds {
			c := cmds[len(cmds)-1-i] // the reader of a pipe first
			if err := c.Wait(); err != nil {
				b.Fatalf("%s: %v", c, err)
			}
			u.cpu += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
		}
		u.wall += time.Since(begun)
	}
	for b.Loop() {
		begun, before := time.Now(), cpu(b)
		g, _ := impatient(Options{Stall: 5 * time.Second})
		t, err := blob.New(size, table, 128<<20)
		if err != nil {
			b.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- feed(b.Context(), g, []string{u}, t) }()
		for off := int64(0); off < size; off += int64(len(p)) {
			if _, err := t.ReadAt(p, off); err != nil {
				b.Fatal(err)
			}
			t.Release(off, int64(len(p)))
		}
		t.Close()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		ours.wall += time.Since(begun)
		ours.cpu += cpu(b) - before
		shell(&theirs, exec.Command(curl, "-sS", "-o", "/dev/null", u))
		shell(&checked, exec.Command(curl, "-sS", u), exec.Command("sha256sum"))
	}
	for name, x := range map[string]usage{"fetch": ours, "curl": theirs, "curl+sha256sum": checked} {
		b.ReportMetric(float64(size)*float64(b.N)/x.wall.Seconds()/1e6, name+"-MB/s")
		b.ReportMetric(x.cpu.Seconds()*1e9/size/float64(b.N), name+"-CPU-s/GB")
	}
	b.ReportMetric(100*theirs.wall.Seconds()/ours.wall.Seconds(), "%-of-curl")
	b.ReportMetric(100*checked.wall.Seconds()/ours.wall.Seconds(), "%-of-curl+sha256sum")
}

// usage is what something took.
type usage struct{ wall, cpu time.Duration }

// cpu is what this process has used so far.
func cpu(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
