package dialog

import (
	"context"
	"fmt"
	"time"

	"imgbuild/installer/crypt"
)

const (
	// escapeWait is how long Esc may be the beginning of a sequence: longer than a BMC's serial line holds bytes back, shorter than
	// a person waits.
	escapeWait = 300 * time.Millisecond
	// redrawWait is between two screens with progress, so that the terminal has little to do.
	redrawWait = 250 * time.Millisecond
)

// runner joins the model with the terminal and the caller's functions.
type runner struct {
	o        Options
	model    *model
	decoder  decoder
	terminal terminal
	sink     *sink
	after    func(time.Duration) <-chan time.Time // time.After

	forget    context.CancelFunc // of the preview that runs; nil if none does
	previews  chan preview
	number    int // of the latest preview
	installed chan ended
	began     bool
}

type preview struct {
	number  int
	text    string
	refused error
}

type ended struct {
	result Result
	err    error
}

// input is some bytes of In, or how it ended.
type input struct {
	data []byte
	err  error
}

func newRunner(o Options) *runner {
	hash := func(password string) string { return crypt.SHA512(password, crypt.Salt()) }
	return &runner{o: o, model: newModel(o, hash), terminal: terminal{out: o.Out}, sink: newSink(), after: time.After,
		previews: make(chan preview, 1), installed: make(chan ended, 1)}
}

// run is loop, and then leaves the cursor below the last screen.
func (r *runner) run(ctx context.Context) (Outcome, error) {
	out, err := r.loop(ctx)
	if endErr := r.terminal.end(); err == nil && endErr != nil && !out.Installed {
		err = fmt.Errorf("show the installer's screens: %w", endErr)
	}
	return out, err
}

// loop takes keys and news until the end. Once the installation has begun a lost terminal does not end it: Install goes on, and
// its result is the outcome.
func (r *runner) loop(ctx context.Context) (Outcome, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, stop := r.read()
	defer stop()
	var escape, redraw <-chan time.Time
	cancelled, lost, blind := ctx.Done(), error(nil), false
	for {
		if !blind {
			if err := r.terminal.show(r.model.draw()); err != nil {
				lost, blind = fmt.Errorf("show the installer's screens: %w", err), true
			}
		}
		if lost != nil && r.model.step != stepInstall {
			return r.outcome(), r.ending(lost)
		}
		select {
		case <-cancelled:
			if r.model.step != stepInstall {
				return r.outcome(), r.ending(fmt.Errorf("ask what to install: %w", context.Cause(ctx)))
			}
			// Install was told too, and says how it ended; nobody has to press a key then.
			lost, cancelled = fmt.Errorf("ask what to do now: %w", context.Cause(ctx)), nil
		case got := <-in:
			if got.err != nil {
				lost, in, escape = fmt.Errorf("read the keyboard: %w", got.err), nil, nil
				continue
			}
			var keys []key
			for _, b := range got.data {
				keys = r.decoder.feed(keys, b)
			}
			if escape = nil; r.decoder.pending() {
				escape = r.after(escapeWait)
			}
			if r.press(ctx, keys) {
				return r.outcome(), r.model.err
			}
		case <-escape:
			escape = nil
			if r.press(ctx, r.decoder.timeout(nil)) {
				return r.outcome(), r.model.err
			}
		case p := <-r.previews:
			if p.number == r.number && r.model.previewing {
				r.model.previewed(p.text, p.refused)
			}
		case <-r.sink.news:
			if redraw == nil {
				redraw = r.after(redrawWait) // all that comes until then is one screen
			}
		case <-redraw:
			redraw = nil
			r.model.progress = r.sink.latest()
		case e := <-r.installed:
			redraw = nil
			r.model.progress = r.sink.latest()
			r.model.ended(e.result, e.err)
		}
	}
}

// ending is the error of a run that ends because of cause: none of its own once the installation has ended.
func (r *runner) ending(cause error) error {
	if r.model.step == stepResult {
		return r.model.err
	}
	return cause
}

func (r *runner) outcome() Outcome {
	return Outcome{Answers: r.model.answers(), Began: r.began, Installed: r.model.step == stepResult && r.model.err == nil, Result: r.model.result}
}

// press gives keys to the model and does what they ask for. It says whether the dialog is over.
func (r *runner) press(ctx context.Context, keys []key) (over bool) {
	for _, k := range keys {
		switch r.model.press(k) {
		case effectRedraw:
			r.terminal.last = nil
		case effectPreview:
			r.preview(ctx)
		case effectForget:
			r.stopPreview()
		case effectSave:
			data, err := r.model.answers().Marshal()
			if err == nil {
				err = r.o.Save(data)
			}
			r.model.saved(err)
		case effectInstall:
			r.stopPreview()
			r.began = true
			a := r.model.answers()
			go func() { // ends with Install; the channel has a place
				res, err := r.o.Install(ctx, a, r.sink)
				r.installed <- ended{res, err}
			}()
			return false // keys that were typed ahead are not for the next screens
		case effectLeave:
			r.stopPreview()
			return true
		}
	}
	return false
}

// preview asks for the outlook, and takes back what was asked before.
func (r *runner) preview(ctx context.Context) {
	r.stopPreview()
	ctx, r.forget = context.WithCancel(ctx)
	r.number++
	n, a := r.number, r.model.answers()
	go func() { // ends with Preview, or when nobody waits for it any more
		text, refused := r.o.Preview(ctx, a)
		select {
		case r.previews <- preview{n, text, refused}:
		case <-ctx.Done():
		}
	}()
}

func (r *runner) stopPreview() {
	if r.forget != nil {
		r.forget()
		r.forget = nil
	}
}

// read hands over the bytes of In until stop is called.
func (r *runner) read() (in <-chan input, stop func()) {
	c, done, end := make(chan input), make(chan struct{}), make(chan struct{})
	go func() { // ends with In, or after stop with what In has next
		defer close(done)
		for {
			buffer := make([]byte, 256)
			n, err := r.o.In.Read(buffer)
			for _, i := range []input{{data: buffer[:n]}, {err: err}} {
				if len(i.data) == 0 && i.err == nil {
					continue
				}
				select {
				case c <- i:
				case <-end:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	return c, func() {
		close(end)
		d, ok := r.o.In.(interface{ SetReadDeadline(time.Time) error })
		if ok && d.SetReadDeadline(time.Unix(1, 0)) == nil {
			<-done
			_ = d.SetReadDeadline(time.Time{}) // it took one, so it takes none
		}
	}
}
