package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"imgbuild/image"
	"imgbuild/installer/blob"
	"imgbuild/installer/report"
)

// pieceBytes is what is written at a time at most, and what a reader has to take within writeTimeout.
const pieceBytes = 256 << 10

// serve answers one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	control.SetWriteDeadline(time.Now().Add(s.timeout))
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "chunks are only read", http.StatusMethodNotAllowed)
		return
	}
	if !s.hasSecret(r.Context()) {
		unavailable(w, Waiting)
		return
	}
	if !s.authorised(r, time.Now()) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		w.Header().Set("Connection", "close")
		http.Error(w, "a ticket of the server is needed", http.StatusUnauthorized)
		return
	}
	size := s.o.Blob.Size()
	first, end, partial, err := parseRange(r.Header.Values("Range"), size)
	if err != nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		http.Error(w, err.Error(), http.StatusRequestedRangeNotSatisfiable)
		return
	}
	conn, _ := r.Context().Value(connection{}).(net.Conn)
	if s.o.Blob.Err() != nil || !s.admit(conn) {
		unavailable(w, Busy)
		return
	}
	a := answer{Server: s, w: w, control: control, pos: first, end: end}
	a.header = func() {
		h := w.Header()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Content-Length", strconv.FormatInt(end-first, 10))
		h.Set("Accept-Ranges", "bytes")
		if !partial {
			w.WriteHeader(http.StatusOK)
			return
		}
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, end-1, size))
		w.WriteHeader(http.StatusPartialContent)
	}
	if r.Method == http.MethodHead {
		a.header()
		return
	}
	err = a.send(r.Context())
	switch {
	case a.begun: // a body that ends early ends its connection
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.o.Report.Info("the machine at %s took nothing for %s, so it reads no more from this one", r.RemoteAddr, report.Duration(s.timeout))
		}
	case errors.Is(err, blob.ErrWaiting):
		unavailable(w, Waiting)
	case errors.Is(err, blob.ErrGone):
		unavailable(w, Gone)
	default: // the transfer has ended, or the reader
		unavailable(w, Busy)
	}
}

// unavailable answers that there are no bytes, and why.
func unavailable(w http.ResponseWriter, why string) {
	w.Header().Set(Header, why)
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusServiceUnavailable)
}

// answer is a body on its way.
type answer struct {
	*Server
	w        http.ResponseWriter
	control  *http.ResponseController
	header   func() // writes it
	begun    bool   // the header was written
	pos, end int64  // what is still to be sent
}

// send writes the range chunk by chunk, straight from where the blob has them.
func (a *answer) send(ctx context.Context) error {
	for a.pos < a.end {
		i := int(a.pos / image.ChunkSize)
		err := a.o.Blob.View(ctx, i, a.hold, func(chunk []byte) error {
			at := int64(i) * image.ChunkSize
			if !a.begun {
				a.begun = true
				a.header()
			}
			return a.write(ctx, chunk[a.pos-at:min(int64(len(chunk)), a.end-at)])
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// write sends verified bytes, as fast as the rate allows and the reader takes them.
func (a *answer) write(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), pieceBytes)
		n, err := a.pace.wait(ctx, n)
		if err != nil {
			return err
		}
		if err := a.control.SetWriteDeadline(time.Now().Add(a.timeout)); err != nil {
			return err
		}
		n, err = a.w.Write(p[:n])
		a.passed(n)
		a.pos += int64(n)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return a.control.Flush() // the end of a chunk does not wait for the next one
}
