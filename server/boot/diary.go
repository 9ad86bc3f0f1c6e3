package boot

import (
	"context"
	"maps"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// quietFor is how long the same decision about the same host is not written down again.
const quietFor = time.Hour

// most bounds how many serial numbers are remembered. Forgetting one costs a line in a diary.
const most = 50000

// said is the last decision that was written down for a host.
type said struct {
	text string
	at   time.Time
}

// note writes the decision into the host's diary, unless it is the same as the last one of the hour. What machines that
// nobody knows may do is only logged: anyone can make up a serial number.
func (s *Server) note(ctx context.Context, q question, a answer, order *registry.Order) {
	text := q.loader + " is told "
	switch a.verdict.Action {
	case plan.Install:
		text += "to start the installer of " + a.release.Ref()
	case plan.Preview:
		text += "to start a preview of " + a.release.Ref()
	case plan.Live:
		text += "to run " + a.release.Ref() + " from memory"
	case plan.Inspect:
		text += "to inspect the machine"
	default:
		text += "to boot the disk"
	}
	text += ": " + a.verdict.Reason
	if a.host == nil {
		s.o.Log.Info("an unknown machine has asked", "loader", q.loader, "sn", q.seen.Serial, "mac", q.mac, "answer", a.verdict.Action, "reason", a.verdict.Reason)
		return
	}
	now := s.o.Now()
	if !s.news(a.host.SN, text, now) {
		return
	}
	e := registry.Event{Time: now, SN: a.host.SN, Kind: "decided", Text: text}
	if order != nil {
		e.Order = order.ID
	}
	if err := s.o.Registry.Append(ctx, e); err != nil {
		s.o.Log.Error("write a decision down", "sn", a.host.SN, "decision", text, "err", err)
		s.mu.Lock()
		delete(s.diary, a.host.SN)
		s.mu.Unlock()
	}
}

// news remembers what is said of a host, and reports whether it is something else than last time.
func (s *Server) news(sn, text string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.diary[sn]
	if last.text == text && now.Sub(last.at) < quietFor {
		return false
	}
	if len(s.diary) >= most {
		maps.DeleteFunc(s.diary, func(_ string, v said) bool { return now.Sub(v.at) >= quietFor })
		if len(s.diary) >= most {
			clear(s.diary)
		}
	}
	s.diary[sn] = said{text, now}
	return true
}

// inspecting remembers that a machine was started for inspection.
func (s *Server) inspecting(sn string) {
	now := s.o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.inspected) >= most {
		maps.DeleteFunc(s.inspected, func(_ string, at time.Time) bool { return now.Sub(at) >= s.o.Again })
		if len(s.inspected) >= most {
			clear(s.inspected)
		}
	}
	s.inspected[sn] = now
}

// inspectedBefore says whether a machine was started for inspection not long ago.
func (s *Server) inspectedBefore(sn string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.inspected[sn]
	return ok && s.o.Now().Sub(at) < s.o.Again
}
