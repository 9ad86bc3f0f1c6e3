package swarmnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"imgbuild/image"
	"imgbuild/testvm"
)

// faultKind is what is wrong with a server.
type faultKind int

const (
	cutShort    faultKind = iota // its file ends too early
	wrongLength                  // it announces another length than it sends
	noRanges                     // it sends all of the file, whatever is asked
)

// faultyServer is a server beside imgserve, at the same address. For all but the root file system it asks imgserve.
type faultyServer struct {
	url   string
	http  *http.Server
	done  chan struct{}
	file  *os.File
	size  int64
	kind  faultKind
	next  *httputil.ReverseProxy
	asked atomic.Int64
}

func (r *run) serveFaulty(kind faultKind) (*faultyServer, error) {
	f, err := os.Open(filepath.Join(r.release.images, rootfs))
	if err != nil {
		return nil, err
	}
	s := &faultyServer{url: strings.TrimSuffix(testvm.ServerURL, "8080") + "8081", done: make(chan struct{}), file: f, size: r.release.size, kind: kind}
	to, err := url.Parse(testvm.ServerURL)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.next = httputil.NewSingleHostReverseProxy(to)
	s.next.Transport = &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return r.origin.Dial(ctx, address) }}
	var l net.Listener
	err = r.origin.Namespace().Do(func() (err error) { l, err = net.Listen("tcp4", ":8081"); return err })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a faulty server: %w", err), f.Close())
	}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l) // ends by close
	}()
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *faultyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/"+image.RootfsFile) {
		s.next.ServeHTTP(w, r)
		return
	}
	n := s.asked.Add(1)
	switch s.kind {
	case cutShort:
		http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(s.file, 0, s.size*2/3))
	case noRanges:
		r.Header.Del("Range")
		w.Header().Set("Content-Length", strconv.FormatInt(s.size, 10))
		_, _ = io.Copy(w, io.NewSectionReader(s.file, 0, s.size)) // who does not want all of it hangs up
	case wrongLength:
		var from, last int64
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &last); err != nil || from > last || last >= s.size {
			http.Error(w, "a range, please", http.StatusBadRequest)
			return
		}
		length := last - from + 1
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, last, s.size))
		// More than comes and less than comes, in turns.
		w.Header().Set("Content-Length", strconv.FormatInt(length/2+length*(n%2), 10))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.Copy(w, io.NewSectionReader(s.file, from, length)) // the connection breaks at the announced end, or after
	}
}

func (s *faultyServer) close() error {
	err := s.http.Close()
	<-s.done
	return errors.Join(err, s.file.Close())
}
