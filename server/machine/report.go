package machine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"imgbuild/image/identity"
	"imgbuild/image/plan"
	"imgbuild/server/boot"
	"imgbuild/server/registry"
)

// maxEvents bounds one report. An installer that has been without its server for long sends several.
const maxEvents = 5000

// Events is the handler of plan.EventsPath.
func (s *Server) Events() http.Handler {
	return handler(s, plan.MaxBytes, func(r *http.Request, rep plan.Report) (any, error) {
		b, err := s.authorised(r)
		if err != nil {
			return nil, err
		}
		if err := checkSchema(rep.Schema); err != nil {
			return nil, err
		}
		if err := checkEvents(rep.Events); err != nil {
			return nil, err
		}
		seq, err := s.report(r.Context(), b, rep.Events)
		if err != nil {
			return nil, err
		}
		s.count.reports.Add(1)
		s.count.events.Add(int64(len(rep.Events)))
		a := plan.Answer{Seq: seq}
		if b.order != nil && b.order.State != registry.OrderConsumed {
			if b, err = s.authorised(r); err != nil { // the report may have found a lost machine
				return nil, err
			}
			a.Reason = ended(b.order)
			a.Stop = a.Reason != ""
		}
		return a, nil
	})
}

// ended says why an installation is to stop, or nothing.
func ended(o *registry.Order) string {
	switch o.State {
	case registry.OrderConsumed, registry.OrderDone:
		return ""
	case registry.OrderCancelled:
		return fmt.Sprintf("the order %s was cancelled", o.ID)
	case registry.OrderFailed:
		if o.Lost {
			return fmt.Sprintf("the machine was taken for lost and another order was made: the order %s has ended", o.ID)
		}
	}
	return fmt.Sprintf("the order %s is %s", o.ID, o.State)
}

// checkEvents says what is wrong with a report.
func checkEvents(events []plan.Event) error {
	if len(events) > maxEvents {
		return refuse(http.StatusRequestEntityTooLarge, "the report has %d events: send at most %d at a time", len(events), maxEvents)
	}
	last := int64(0)
	for _, e := range events {
		if e.Seq <= last {
			return refuse(http.StatusBadRequest, "event %d comes after event %d: events are counted from 1 and sent oldest first", e.Seq, last)
		}
		last = e.Seq
		if e.Outlook != nil && e.Kind != plan.KindPreview {
			return refuse(http.StatusBadRequest, "event %d has an outlook and the kind %q: previews have one", e.Seq, e.Kind)
		}
		switch e.Kind {
		case plan.KindStep, plan.KindProgress, plan.KindInfo, plan.KindWarn, plan.KindFailed, plan.KindDone, plan.KindPreview:
		default:
			return refuse(http.StatusBadRequest, "event %d has the kind %q, which this server does not know", e.Seq, e.Kind)
		}
	}
	return nil
}

// Booted is the handler of plan.BootedPath: of an installed system's first boot, or of a system that runs from memory.
func (s *Server) Booted() http.Handler {
	return handler(s, plan.MaxBytes, func(r *http.Request, said plan.Booted) (any, error) {
		b, err := s.authorised(r)
		if err != nil {
			return nil, err
		}
		if err := checkSchema(said.Schema); err != nil {
			return nil, err
		}
		switch sn := identity.Serial(said.Serial); {
		case sn == b.sn():
		case b.live != nil:
			return nil, refuse(http.StatusConflict, "the live boot %s is of %s and this machine is %s", b.id(), b.sn(), sn)
		default:
			s.note(r.Context(), b.sn(), b.id(), fmt.Sprintf("a machine that says it has the serial number %q has booted what was installed on %s: is its disk in another machine?", sn, b.sn()))
			return nil, refuse(http.StatusConflict, "the order %s is for %s and this machine is %s", b.id(), b.sn(), sn)
		}
		if b.live != nil {
			err = s.o.Registry.MarkLiveBooted(r.Context(), b.id(), said, s.o.Now())
		} else {
			err = s.o.Registry.MarkBooted(r.Context(), b.id(), said, s.o.Now())
		}
		if errors.Is(err, registry.ErrConflict) || errors.Is(err, registry.ErrNotFound) {
			return nil, refuse(http.StatusConflict, "%v", err)
		}
		if err != nil {
			return nil, err
		}
		s.count.booted.Add(1)
		return nil, nil
	})
}

// authorised returns the order of the installation, or the live boot, whose token the request has (RFC 6750, 2.1).
func (s *Server) authorised(r *http.Request) (bearer, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > 128 {
		s.count.denied.Add(1)
		return bearer{}, refuse(http.StatusUnauthorized, "send the installation's token, as Authorization: Bearer")
	}
	var b bearer
	var err error
	if b.order, err = s.o.Registry.OrderByToken(r.Context(), boot.Digest(token)); errors.Is(err, registry.ErrNotFound) {
		b.order = nil
		b.live, err = s.o.Registry.LiveByToken(r.Context(), boot.Digest(token))
	}
	if errors.Is(err, registry.ErrNotFound) {
		s.count.denied.Add(1)
		return bearer{}, refuse(http.StatusUnauthorized, "no installation and no live boot has this token")
	}
	return b, err
}

// said is the last refusal that was written down for a host.
type said struct {
	text string
	at   time.Time
}

const (
	quietFor = time.Hour // the same is not written down again
	most     = 50000     // serial numbers that are remembered
)

// note writes into a host's diary what a machine was refused, unless it is the same as the last one of the hour.
func (s *Server) note(ctx context.Context, sn, order, text string) {
	now := s.o.Now()
	if !s.news(sn, text, now) {
		return
	}
	if err := s.o.Registry.Append(ctx, registry.Event{Time: now, SN: sn, Order: order, Kind: "refused", Text: text}); err != nil {
		s.o.Log.Error("write a refusal down", "sn", sn, "refusal", text, "err", err)
		s.mu.Lock()
		delete(s.said, sn)
		s.mu.Unlock()
	}
}

func (s *Server) news(sn, text string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.said[sn]; last.text == text && now.Sub(last.at) < quietFor {
		return false
	}
	if len(s.said) >= most {
		maps.DeleteFunc(s.said, func(_ string, v said) bool { return now.Sub(v.at) >= quietFor })
		if len(s.said) >= most {
			clear(s.said)
		}
	}
	s.said[sn] = said{text, now}
	return true
}
