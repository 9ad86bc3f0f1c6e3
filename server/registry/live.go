package registry

import (
	"context"
	"fmt"
	"strings"
	"time"

	"imgbuild/image/plan"
)

// Live is what a person wishes that a host runs from memory, each time that it boots from the network and nothing is ordered
// for it.
type Live struct {
	Image string `json:"image"` // name/version, or name for its newest version
	plan.LiveOptions
}

// Covers reports whether a release, as name/version, is what is wished.
func (l *Live) Covers(release string) bool {
	return release == l.Image || strings.HasPrefix(release, l.Image+"/")
}

// LiveState is how far a boot that runs a release from memory is.
type LiveState string

// The states of a live boot. Starting ones fetch the image, failed and lost ones did not get that far.
const (
	LiveStarting LiveState = "starting"
	LiveRunning  LiveState = "running"
	LiveFailed   LiveState = "failed"
	LiveLost     LiveState = "lost"
)

// LiveBoot is one boot of a host that runs a release from memory.
type LiveBoot struct {
	ID    string    `json:"id"` // stands in events in the place of an order's
	SN    string    `json:"-"`
	Image string    `json:"image"` // name/version
	State LiveState `json:"state"`
	// Started is when the machine was told to run it, Since how long it has been in its state.
	Started time.Time `json:"started"`
	Since   time.Time `json:"since"`
	// Heard is when the machine was last heard. One that runs need not say anything more.
	Heard time.Time `json:"-"`
	// Boot is the SHA-256, in hex, of the boot's nonce.
	Boot string `json:"-"`

	seq  int64     // of the last event that the machine sent
	over time.Time // when something else took its place
}

const (
	// liveEvery is how soon a host may start another live boot: whoever can make up a serial number fills no diary.
	liveEvery = 10 * time.Second
	// liveKept is how long a live boot is remembered, and its token good, after it was last heard and another has begun.
	liveKept = 24 * time.Hour
)

const liveColumns = `id, sn, image, boot, state, seq, started, heard, since, over`

func scanLive(row scanner) (b LiveBoot, err error) {
	var state string
	var started, heard, since, over int64
	err = row.Scan(&b.ID, &b.SN, &b.Image, &b.Boot, &state, &b.seq, &started, &heard, &since, &over)
	b.State, b.Started, b.Heard, b.Since, b.over = LiveState(state), moment(started), moment(heard), moment(since), moment(over)
	return b, err
}

// OfferLive is Offer for a boot that is to run a release, as name/version, from memory.
func (s *Store) OfferLive(ctx context.Context, sn, image, digest string, now time.Time) error {
	return s.write(ctx, "offer live boot to "+sn, func(ctx context.Context, t *tx) error {
		if !imageText.MatchString(image) || !strings.Contains(image, "/") {
			return invalid("image", fmt.Sprintf("%q is not a release with its version, as web/1.2", image))
		}
		return t.offer(ctx, sn, "", image, digest, now)
	})
}

// StartLive gives the host's live boot with b's nonce a token, and begins it where there is none: the digest is the SHA-256, in
// hex. Only a boot that was offered that release begins, of a host that is still to run it and has no order that is due. Where
// another one of the host has just begun, wait says when to ask again. A boot that asks again gets another token, and keeps
// those before.
func (s *Store) StartLive(ctx context.Context, b LiveBoot, tokenDigest string, now time.Time) (wait time.Duration, err error) {
	err = s.write(ctx, "start live boot of "+b.SN, func(ctx context.Context, t *tx) error {
		wait = 0
		if b.Boot == "" || tokenDigest == "" {
			return invalid("boot", "it has no digest")
		}
		if b.Image == "" {
			return invalid("image", "it is missing")
		}
		if err := t.mayRun(ctx, &b, now); err != nil {
			return err
		}
		known, err := first(ctx, t, scanLive, `SELECT `+liveColumns+` FROM live_boots WHERE boot = ?`, b.Boot)
		if err != nil {
			return err
		}
		if known == nil {
			if wait, err = t.beginLive(ctx, &b, now); err != nil || wait > 0 {
				return err
			}
			known = &b
		} else if err := t.heardLive(ctx, known, known.State, now); err != nil {
			return err
		}
		_, err = t.exec(ctx, `INSERT INTO live_tokens (digest, live_id, created) VALUES (?, ?, ?)`, tokenDigest, known.ID, stamp(now))
		return err
	})
	return wait, err
}

// mayRun refuses a live boot that was not offered its release, is not wished any more, or has an order before it.
func (t *tx) mayRun(ctx context.Context, b *LiveBoot, now time.Time) error {
	h, err := t.host(ctx, b.SN)
	if err != nil {
		return err
	}
	offered, err := t.number(ctx, `SELECT COUNT(*) FROM offers WHERE digest = ? AND sn = ? AND live = ? AND created > ?`, b.Boot, b.SN, b.Image, stamp(now.Add(-OfferLife)))
	if err != nil {
		return err
	}
	o, err := t.live(ctx, b.SN)
	switch {
	case err != nil:
		return err
	case offered == 0:
		return fmt.Errorf("this boot was not offered %s: %w", b.Image, ErrConflict)
	case h.State == New || h.Live == nil || !h.Live.Covers(b.Image):
		return fmt.Errorf("%s is not to run %s from memory: %w", b.SN, b.Image, ErrConflict)
	case o != nil && o.Due(now):
		return fmt.Errorf("there is order %s, which is %s: %w", o.ID, o.State, ErrConflict)
	}
	return nil
}

// beginLive stores a new live boot in the place of the host's last one.
func (t *tx) beginLive(ctx context.Context, b *LiveBoot, now time.Time) (wait time.Duration, err error) {
	last, err := first(ctx, t, scanLive, `SELECT `+liveColumns+` FROM live_boots WHERE sn = ? AND over = 0`, b.SN)
	if err != nil {
		return 0, err
	}
	if last != nil {
		if wait = liveEvery - now.Sub(last.Started); wait > 0 && wait <= liveEvery {
			return wait, nil
		}
	}
	if err := t.endLive(ctx, b.SN, now); err != nil {
		return 0, err
	}
	made, err := t.next(ctx, "live", 1)
	if err != nil {
		return 0, err
	}
	b.ID, b.State = newID(), LiveStarting
	if _, err := t.exec(ctx, `INSERT INTO live_boots (id, sn, image, boot, state, seq, made, started, heard, since, over) VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?, 0)`,
		b.ID, b.SN, b.Image, b.Boot, string(b.State), made, stamp(now), stamp(now), stamp(now)); err != nil {
		return 0, err
	}
	if _, err := t.exec(ctx, `DELETE FROM live_boots WHERE sn = ? AND over > 0 AND heard < ?`, b.SN, stamp(now.Add(-liveKept))); err != nil {
		return 0, err
	}
	t.append(Event{Time: now, SN: b.SN, Order: b.ID, Live: true, Kind: "live", Text: "the machine has booted to run " + b.Image + " from memory"})
	return 0, t.touch(ctx, b.SN)
}

// touch counts a change that shows in the host and is none of its own fields.
func (t *tx) touch(ctx context.Context, sn string) error {
	_, err := t.exec(ctx, `UPDATE hosts SET updated = ?, revision = revision + 1 WHERE sn = ?`, stamp(t.now), sn)
	return err
}

// endLive is called when a host does something else than run what its last live boot was to run.
func (t *tx) endLive(ctx context.Context, sn string, now time.Time) error {
	_, err := t.exec(ctx, `UPDATE live_boots SET over = ? WHERE sn = ? AND over = 0`, stamp(now), sn)
	return err
}

// LiveByToken returns the live boot that has this token, whatever its state.
func (s *Store) LiveByToken(ctx context.Context, tokenDigest string) (b *LiveBoot, err error) {
	err = s.ask(ctx, "read live boot by token", func(ctx context.Context, t *tx) error {
		b, err = first(ctx, t, scanLive, `SELECT `+liveColumns+` FROM live_boots WHERE id = (SELECT live_id FROM live_tokens WHERE digest = ?)`, tokenDigest)
		if err == nil && b == nil {
			err = fmt.Errorf("no live boot has this token: %w", ErrNotFound)
		}
		return err
	})
	return b, err
}

func (t *tx) liveBoot(ctx context.Context, id string) (*LiveBoot, error) {
	b, err := first(ctx, t, scanLive, `SELECT `+liveColumns+` FROM live_boots WHERE id = ?`, id)
	if err == nil && b == nil {
		err = fmt.Errorf("live boot %s: %w", id, ErrNotFound)
	}
	return b, err
}

// ReportLive stores what a machine says of its live boot; no events are a heartbeat. seq is the last event that is stored: those
// up to it are passed over when they come again. After a done event the release runs, and silence means nothing. One that was
// lost is found.
func (s *Store) ReportLive(ctx context.Context, id string, events []plan.Event, now time.Time) (seq int64, err error) {
	err = s.write(ctx, "store report on live boot "+id, func(ctx context.Context, t *tx) error {
		b, err := t.liveBoot(ctx, id)
		if err != nil {
			return err
		}
		state := b.State
		for _, e := range events {
			if e.Seq <= b.seq {
				continue
			}
			b.seq, e.Outlook, e.Text = e.Seq, nil, clean(e.Text)
			switch e.Kind {
			case plan.KindStep, plan.KindProgress, plan.KindInfo, plan.KindWarn:
			case plan.KindFailed:
				state = LiveFailed
			case plan.KindDone:
				if state != LiveFailed {
					state = LiveRunning
				}
			default:
				e.Kind = plan.KindInfo // the diary's other kinds are the server's words
			}
			t.append(Event{Time: now, SN: b.SN, Order: b.ID, Live: true, Kind: string(e.Kind), Text: e.Text, Machine: &e})
		}
		seq = b.seq
		return t.heardLive(ctx, b, state, now)
	})
	return seq, err
}

// heardLive notes that the machine of a live boot was heard, and the state that it is in by that.
func (t *tx) heardLive(ctx context.Context, b *LiveBoot, state LiveState, now time.Time) error {
	if state == LiveLost {
		state = LiveStarting
		t.append(Event{Time: now, SN: b.SN, Order: b.ID, Live: true, Kind: "found", Text: "the machine is heard again: it goes on"})
	}
	since := b.Since
	if state != b.State {
		since = now
		if b.over.IsZero() {
			if err := t.touch(ctx, b.SN); err != nil {
				return err
			}
		}
	}
	_, err := t.exec(ctx, `UPDATE live_boots SET state = ?, since = ?, heard = ?, seq = ? WHERE id = ?`, string(state), stamp(since), stamp(now), b.seq, b.ID)
	return err
}

// MarkLiveBooted stores that the system that runs from memory has started.
func (s *Store) MarkLiveBooted(ctx context.Context, id string, booted plan.Booted, now time.Time) error {
	return s.write(ctx, "store start of live boot "+id, func(ctx context.Context, t *tx) error {
		b, err := t.liveBoot(ctx, id)
		if err != nil {
			return err
		}
		t.append(Event{Time: now, SN: b.SN, Order: b.ID, Live: true, Kind: "booted", Text: bootedText(cleaned(booted))})
		return t.heardLive(ctx, b, LiveRunning, now)
	})
}

// LoseLives marks the live boots as lost that were to start and were last heard before since, and returns them.
func (s *Store) LoseLives(ctx context.Context, since, now time.Time) (lost []LiveBoot, err error) {
	silent := func(ctx context.Context, t *tx) ([]LiveBoot, error) {
		return all(ctx, t, scanLive, `SELECT `+liveColumns+` FROM live_boots WHERE state = 'starting' AND heard < ? AND over = 0 ORDER BY made`, stamp(since))
	}
	const what = "mark live boots as lost"
	err = s.ask(ctx, what, func(ctx context.Context, t *tx) (err error) { lost, err = silent(ctx, t); return err })
	if err != nil || len(lost) == 0 {
		return nil, err // most of the time; a write would sync the disk
	}
	err = s.write(ctx, what, func(ctx context.Context, t *tx) (err error) {
		if lost, err = silent(ctx, t); err != nil {
			return err
		}
		for i := range lost {
			b := &lost[i]
			if _, err := t.exec(ctx, `UPDATE live_boots SET state = 'lost', since = ? WHERE id = ?`, stamp(now), b.ID); err != nil {
				return err
			}
			if err := t.touch(ctx, b.SN); err != nil {
				return err
			}
			t.append(Event{Time: now, SN: b.SN, Order: b.ID, Live: true, Kind: "lost",
				Text: fmt.Sprintf("nothing was heard of the machine for %s while it started to run %s from memory: it is taken for lost", now.Sub(b.Heard).Round(time.Second), b.Image)})
			b.State = LiveLost
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return lost, nil
}
