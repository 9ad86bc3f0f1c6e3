package testvm

import (
	"bytes"
	"io"
	"sync"
)

// lineWriter calls line for every whole line that is written, without its end.
type lineWriter struct {
	line func(string)
	mu   sync.Mutex
	part []byte
}

// maxLine bounds a line without end, in bytes: what is longer is passed on in pieces.
const maxLine = 64 << 10

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			w.part = append(w.part, p...)
			if len(w.part) > maxLine {
				w.flush()
			}
			break
		}
		w.part = append(w.part, p[:i]...)
		w.flush()
		p = p[i+1:]
	}
	return n, nil
}

func (w *lineWriter) flush() {
	w.line(string(bytes.TrimRight(w.part, "\r")))
	w.part = w.part[:0]
}

// multiWriter writes to all of its writers; unlike io.MultiWriter it goes on when one of them fails, so that a broken
// terminal does not cost the transcript.
type multiWriter []io.Writer

func (m multiWriter) Write(p []byte) (int, error) {
	for _, w := range m {
		_, _ = w.Write(p) // each writer stands for itself, see above
	}
	return len(p), nil
}

// PrefixWriter returns a writer that passes whole lines on to w, each with the prefix before it, and drops empty ones.
// Several of them may share one w: every line is one Write under mu.
func PrefixWriter(w io.Writer, mu *sync.Mutex, prefix string) io.Writer {
	return &lineWriter{line: func(l string) {
		if l == "" {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.WriteString(w, prefix+l+"\n") // a display that cannot be written to is no reason to stop a machine
	}}
}
