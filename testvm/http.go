package testvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"time"
)

// Fault changes what the web server answers for one file, so that a test can show what the other side makes of it. The
// zero value of every field but one changes nothing.
type Fault struct {
	// FlipAt changes the byte at this offset, if Flip is set.
	Flip   bool
	FlipAt int64
	// Shorten serves the file as if it ended after ShortenTo bytes, if Shorten is set.
	Shorten   bool
	ShortenTo int64
	// CutAfter breaks the connection after so many bytes of the body, of every answer; 0 never.
	CutAfter int64
	// Status is answered instead of the file; 0 means the file.
	Status int
	// BytesPerSecond is the most that one answer sends; 0 is no limit.
	BytesPerSecond int64
	// Content replaces the file, whether it is there or not, if not nil.
	Content []byte
}

// Request is one request that the web server has answered.
type Request struct {
	Time   time.Time
	Remote string
	Method string
	Path   string
	Range  string // the Range header, empty for none
	Agent  string
	Status int
	Bytes  int64 // of the body, as sent
}

// String is the request as a line for people.
func (r Request) String() string {
	return strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s %d %d bytes", r.Remote, r.Method, r.Path, r.Range, r.Status, r.Bytes)), " ")
}

// WebServer serves the files of a directory, with ranges, and remembers who asked for what.
type WebServer struct {
	root *os.Root // nil serves only what faults put there
	http *http.Server
	done chan struct{}

	mu       sync.Mutex
	faults   map[string]Fault
	requests []Request
	changed  chan struct{}
}

// newWebServer serves on l until Close. dir may be empty.
func newWebServer(l net.Listener, dir string) (*WebServer, error) {
	s := &WebServer{faults: map[string]Fault{}, changed: make(chan struct{}), done: make(chan struct{})}
	if dir != "" {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, fmt.Errorf("serve directory: %w", err)
		}
		s.root = root
	}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l) // ends by Close or Refuse, which say so to whoever called them
	}()
	return s, nil
}

// Close stops the server and breaks what it is sending.
func (s *WebServer) Close() error {
	err := s.http.Close()
	<-s.done
	if s.root != nil {
		err = errors.Join(err, s.root.Close())
	}
	return err
}

// Refuse closes the listening socket and breaks what is being sent: from now on connections are refused.
func (s *WebServer) Refuse() error {
	err := s.http.Close()
	<-s.done
	return err
}

// Inject makes the server answer for the file at name, as in a URL and without the first slash, with a fault; the zero
// Fault heals it.
func (s *WebServer) Inject(name string, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults["/"+strings.TrimPrefix(name, "/")] = f
}

// Put serves content under name.
func (s *WebServer) Put(name string, content []byte) { s.Inject(name, Fault{Content: content}) }

// Requests returns the requests answered so far.
func (s *WebServer) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Sent returns the number of bytes of bodies sent so far for the file at name, over all requests that have ended.
func (s *WebServer) Sent(name string) int64 {
	var n int64
	for _, r := range s.Requests() {
		if r.Path == "/"+strings.TrimPrefix(name, "/") {
			n += r.Bytes
		}
	}
	return n
}

// AwaitRequest waits until a request for the file at name has been answered, and returns the first.
func (s *WebServer) AwaitRequest(ctx context.Context, name string) (Request, error) {
	want := "/" + strings.TrimPrefix(name, "/")
	for {
		s.mu.Lock()
		for _, r := range s.requests {
			if r.Path == want {
				s.mu.Unlock()
				return r, nil
			}
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return Request{}, fmt.Errorf("await a request for %s: %w", want, ctx.Err())
		}
	}
}

func (s *WebServer) record(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *WebServer) serve(w http.ResponseWriter, r *http.Request) {
	name := path.Clean("/" + r.URL.Path)
	s.mu.Lock()
	fault := s.faults[name]
	s.mu.Unlock()
	out := &faultWriter{ResponseWriter: w, ctx: r.Context(), fault: fault, status: http.StatusOK}
	defer func() {
		s.record(Request{time.Now(), r.RemoteAddr, r.Method, name, r.Header.Get("Range"), r.UserAgent(), out.status, out.sent})
		if out.cut {
			panic(http.ErrAbortHandler) // the way to break a connection in net/http; it is not logged
		}
	}()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(out, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	if fault.Status != 0 {
		http.Error(out, http.StatusText(fault.Status), fault.Status)
		return
	}
	content, modified, closer, err := s.open(name, fault)
	if err != nil {
		http.Error(out, "not found", http.StatusNotFound)
		return
	}
	defer closer()
	out.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(out, r, name, modified, content)
}

func (s *WebServer) open(name string, f Fault) (io.ReadSeeker, time.Time, func(), error) {
	closer := func() {}
	var r io.ReaderAt
	var size int64
	var modified time.Time
	switch {
	case f.Content != nil:
		r, size = bytes.NewReader(f.Content), int64(len(f.Content))
	case s.root == nil:
		return nil, modified, nil, os.ErrNotExist
	default:
		file, err := s.root.Open(strings.TrimPrefix(name, "/"))
		if err != nil {
			return nil, modified, nil, err
		}
		fi, err := file.Stat()
		if err != nil || !fi.Mode().IsRegular() {
			file.Close()
			return nil, modified, nil, errors.Join(err, os.ErrNotExist)
		}
		r, size, modified = file, fi.Size(), fi.ModTime()
		closer = func() { file.Close() }
	}
	if f.Shorten {
		size = min(size, f.ShortenTo)
	}
	if f.Flip {
		r = flipReader{r, f.FlipAt}
	}
	return io.NewSectionReader(r, 0, size), modified, closer, nil
}

// flipReader inverts the byte at one offset.
type flipReader struct {
	r  io.ReaderAt
	at int64
}

func (f flipReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.r.ReadAt(p, off)
	if i := f.at - off; i >= 0 && i < int64(n) {
		p[i] ^= 0xff
	}
	return n, err
}

// faultWriter counts, slows and cuts an answer.
type faultWriter struct {
	http.ResponseWriter
	ctx    context.Context
	fault  Fault
	status int
	sent   int64
	cut    bool
}

var errCut = errors.New("the connection was cut, as was asked for")

func (w *faultWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *faultWriter) Write(p []byte) (int, error) {
	if c := w.fault.CutAfter; c > 0 && w.sent+int64(len(p)) > c {
		n, _ := w.ResponseWriter.Write(p[:c-w.sent]) // the connection ends here in any case
		w.sent += int64(n)
		_ = http.NewResponseController(w.ResponseWriter).Flush() // what was allowed is sent
		w.cut = true
		return n, errCut
	}
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	if b := w.fault.BytesPerSecond; b > 0 && err == nil {
		select {
		case <-time.After(time.Duration(n) * time.Second / time.Duration(b)):
		case <-w.ctx.Done():
			return n, w.ctx.Err()
		}
	}
	return n, err
}
