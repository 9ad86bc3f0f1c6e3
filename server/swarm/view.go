package swarm

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"imgbuild/image/plan"
)

// View is the transfer of one release as people see it.
type View struct {
	Image string `json:"image"`
	Total int64  `json:"total"` // bytes of the root file system
	// OriginRate is what leaves this server, or mirrors, for the machines, in bytes a second.
	OriginRate float64 `json:"origin_rate"`
	// Machines are in the order of the chains: each comes after the one that it reads from. Those that are done come first.
	Machines []MachineView `json:"machines"`
}

// MachineView is one machine of a transfer.
type MachineView struct {
	Order     string         `json:"order"`
	SN        string         `json:"sn"`
	Hostname  string         `json:"hostname,omitempty"`
	Group     string         `json:"group,omitempty"` // rack, switch or subnet
	Address   string         `json:"address,omitempty"`
	Transport plan.Transport `json:"transport"`
	// From is the order of the machine that this one is planned to read from; empty is the origin. Depth is how many machines are
	// between it and the origin, or one that is done.
	From  string `json:"from,omitempty"`
	Depth int    `json:"depth,omitempty"`
	// Got came and was good, Held can be served to others, Sent was: bytes.
	Got  int64 `json:"got"`
	Held int64 `json:"held"`
	Sent int64 `json:"sent,omitempty"`
	// Rate is what comes, SendRate what is served: bytes a second. LeftSeconds is until all has come, if it goes on so.
	Rate        float64 `json:"rate"`
	SendRate    float64 `json:"send_rate,omitempty"`
	LeftSeconds float64 `json:"left_seconds,omitempty"`
	Done        bool    `json:"done,omitempty"`
	// Marks say what is special: see the constants.
	Marks   []string           `json:"marks,omitempty"`
	Sources []plan.SwarmSource `json:"sources"`
	Heard   time.Time          `json:"heard"`
}

// Marks of machines.
const (
	MarkSlow      = "slow"         // reads slowly
	MarkPoor      = "serves-slow"  // serves slowly
	MarkBad       = "bad"          // served a bad chunk
	MarkSuspected = "suspected"    // one of two of which it will show which is slow
	MarkFull      = "waits-disk"   // its disk is what it waits for
	MarkSilent    = "silent"       // has not been heard for a while
	MarkFallback  = "other-source" // reads from another source than it is planned to
)

// View returns the transfers of a release: name/version, a name for all its versions, or nothing for all.
func (s *Server) View(image string) []View {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	list := []View{}
	for _, w := range s.swarms {
		if image == "" || w.image == image || strings.HasPrefix(w.image, image+"/") {
			list = append(list, w.view(now))
		}
	}
	slices.SortFunc(list, func(a, b View) int { return cmp.Or(cmp.Compare(a.Image, b.Image), cmp.Compare(a.Total, b.Total)) })
	return list
}

func (w *swarm) view(now time.Time) View {
	v := View{Image: w.image, Total: w.total, Machines: []MachineView{}}
	readers := map[string][]*member{}
	var roots []*member
	for _, m := range w.ordered {
		switch p := w.members[m.parent]; {
		case m.reads() && m.placed && p != nil:
			readers[m.parent] = append(readers[m.parent], m)
		case m.reads():
			roots = append(roots, m)
		default:
			readers["done"] = append(readers["done"], m)
		}
	}
	var add func(m *member, depth int)
	add = func(m *member, depth int) {
		v.Machines = append(v.Machines, m.view(now, depth))
		list := readers[m.Order]
		slices.SortStableFunc(list, func(a, b *member) int { return cmp.Compare(len(readers[a.Order]), len(readers[b.Order])) }) // leaves first, then the chain
		for _, r := range list {
			add(r, depth+1)
		}
	}
	for _, m := range readers["done"] {
		add(m, 0)
	}
	for _, m := range roots {
		add(m, 0)
	}
	for _, m := range w.ordered {
		for _, src := range m.said.Sources {
			if src.Kind == plan.SourceOrigin && m.reads() && !m.silent(now) {
				v.OriginRate += src.Rate
			}
		}
	}
	return v
}

func (m *member) view(now time.Time, depth int) MachineView {
	v := MachineView{
		Order: m.Order, SN: m.SN, Hostname: m.Hostname, Group: m.Group, Transport: m.Transport, Depth: depth,
		Got: m.said.Got, Held: m.said.Held, Sent: m.said.Sent, Rate: m.said.Rate, SendRate: m.said.SendRate, Done: m.said.Done, Sources: m.said.Sources, Heard: m.heard,
	}
	if v.Sources == nil {
		v.Sources = []plan.SwarmSource{}
	}
	if m.Address.IsValid() {
		v.Address = m.Address.String()
	}
	if m.reads() {
		v.From = m.parent
		if m.said.Rate > 0 {
			v.LeftSeconds = float64(m.said.Total-m.said.Got) / m.said.Rate
		}
	} else {
		v.Rate = 0
	}
	main := source(m.said)
	for _, k := range []struct {
		mark string
		is   bool
	}{
		{MarkBad, m.bad}, {MarkSlow, m.slow}, {MarkPoor, m.poor}, {MarkSuspected, m.suspects > 0 || !m.trial.IsZero()},
		{MarkFull, m.said.Full && m.reads()}, {MarkSilent, m.silent(now)},
		{MarkFallback, m.reads() && m.Transport == plan.TransportRelay && m.placed && main != "" && main != m.parent && m.parent != "" && now.Sub(m.since) > silentAfter},
	} {
		if k.is {
			v.Marks = append(v.Marks, k.mark)
		}
	}
	return v
}
