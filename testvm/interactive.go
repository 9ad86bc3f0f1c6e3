package testvm

import (
	"bytes"
	"context"
	"errors"
	"io"
)

// Interactive runs a machine on somebody's terminal: what the machine writes goes to out, what comes from in is typed, and
// Ctrl-] leaves, which turns the machine off. It returns when the machine has ended.
//
// The network serves the directory of a release, if one is given.
func (h *Host) Interactive(ctx context.Context, c Config, release string, in io.Reader, out io.Writer) (Exit, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n, err := h.NewNetwork(ctx, NetworkConfig{Dir: release})
	if err != nil {
		return Exit{}, err
	}
	m, err := n.Start(ctx, c, ConsoleConfig{Raw: out})
	if err != nil {
		return Exit{}, errors.Join(err, n.Close())
	}
	left := make(chan struct{})
	// The reader of a terminal cannot be interrupted; it ends with the process or at the next key.
	go func() {
		if typeUntil(m.Console(), in, escapeKey) {
			close(left)
		}
	}()
	select {
	case <-m.Ended():
	case <-left:
	case <-ctx.Done():
	}
	if err := n.Close(); err != nil {
		return Exit{}, err
	}
	return m.Wait(context.WithoutCancel(ctx))
}

// RunInteractive is Interactive on this host. A machine that was turned off, by whomever, is no error.
func RunInteractive(ctx context.Context, c Config, release string, in io.Reader, out io.Writer) error {
	h, err := NewHost(ctx, needFor(c.Firmware))
	if err != nil {
		return err
	}
	_, err = h.Interactive(ctx, c, release, in, out)
	return err
}

const escapeKey = 0x1d // Ctrl-]

// typeUntil copies from in to the console and reports whether the key came, rather than the end of either.
func typeUntil(c *Console, in io.Reader, key byte) bool {
	b := make([]byte, 256)
	for {
		n, err := in.Read(b)
		if i := bytes.IndexByte(b[:n], key); i >= 0 {
			_, _ = c.Write(b[:i]) // it is being left
			return true
		}
		if n > 0 {
			if _, werr := c.Write(b[:n]); werr != nil {
				return false
			}
		}
		if err != nil {
			return false
		}
	}
}
