package fetch

import (
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestTheNextSourceIsTheBestOfTheLowestTierThatWorks(t *testing.T) {
	soon, past := noon.Add(3*time.Second), noon.Add(-time.Second)
	for name, c := range map[string]struct {
		views []view
		want  choice
	}{
		"nobody is there":                     {nil, choice{index: -1, alone: true}},
		"the only one":                        {[]view{{}}, choice{index: 0}},
		"the lower tier, wherever it stands":  {[]view{{tier: 3}, {tier: 1}, {tier: 2}}, choice{index: 1}},
		"the next tier if the first is down":  {[]view{{tier: 0, down: true}, {tier: 1}}, choice{index: 1}},
		"the next tier if the first failed":   {[]view{{tier: 0, suspect: true, retry: past}, {tier: 1}}, choice{index: 1}},
		"the next tier for this run":          {[]view{{tier: 0, relay: true, avoid: true}, {tier: 1}}, choice{index: 1}},
		"a place at a relay is taken":         {[]view{{tier: 0, relay: true, busy: 1}, {tier: 1}}, choice{index: -1}},
		"an origin has all connections":       {[]view{{busy: 3}}, choice{index: 0}},
		"and no more":                         {[]view{{busy: 4}}, choice{index: -1}},
		"two mirrors share them":              {[]view{{busy: 2}, {busy: 1}}, choice{index: 1}},
		"and have no more together":           {[]view{{busy: 2}, {busy: 2}, {tier: 1}}, choice{index: -1}},
		"a mirror of another tier has none":   {[]view{{busy: 2}, {busy: 0, tier: 1}}, choice{index: 0}},
		"five mirrors have one each":          {[]view{{busy: 1}, {busy: 1}, {busy: 1}, {busy: 1}, {}}, choice{index: 4}},
		"the one that made sense":             {[]view{{odd: 2}, {odd: 1}}, choice{index: 1}},
		"the faster one":                      {[]view{{rate: 1}, {rate: 2}}, choice{index: 1}},
		"whole files are the last resort":     {[]view{{whole: true}, {tier: 9}}, choice{index: 1}},
		"but for what comes after all":        {[]view{{whole: true}, {tier: LastResort}}, choice{index: 0, whole: true}},
		"but one":                             {[]view{{whole: true}, {tier: 9, suspect: true, retry: past}}, choice{index: 0, whole: true}},
		"all are down":                        {[]view{{down: true}, {down: true}}, choice{index: -1, over: true, alone: true}},
		"the only one failed":                 {[]view{{suspect: true, retry: soon}}, choice{index: -1, wait: 3 * time.Second}},
		"and is tried again":                  {[]view{{suspect: true, retry: past}}, choice{index: 0}},
		"by one request":                      {[]view{{suspect: true, retry: past, busy: 1}}, choice{index: -1}},
		"all failed, and one is due":          {[]view{{suspect: true, retry: soon}, {suspect: true, retry: past, tier: 5}}, choice{index: 1}},
		"all failed, and the lower tier":      {[]view{{suspect: true, tier: 2}, {suspect: true, retry: past, tier: 1}}, choice{index: 1}},
		"each of those that failed is tried":  {[]view{{suspect: true, busy: 1}, {suspect: true, retry: past, tier: 1}}, choice{index: 1}},
		"the only one is to be avoided":       {[]view{{avoid: true}, {down: true}}, choice{index: -1, alone: true}},
		"one to be avoided, and one to come":  {[]view{{avoid: true}, {suspect: true, retry: soon}}, choice{index: -1, wait: 3 * time.Second}},
		"what failed and is whole comes last": {[]view{{suspect: true, whole: true}, {suspect: true, tier: 4}}, choice{index: 1}},
	} {
		if got := choose(noon, c.views, 4); got != c.want {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestAWorkerWithoutWorkLeavesASourceThatIsNotTheOneAnyMore(t *testing.T) {
	for name, c := range map[string]struct {
		views []view
		want  bool
	}{
		"the only one":                        {[]view{{busy: 4}}, true},
		"too many":                            {[]view{{busy: 5}}, false},
		"a mirror came":                       {[]view{{busy: 4}, {}}, false},
		"a lower tier works again":            {[]view{{tier: 1, busy: 1}, {}}, false},
		"a lower tier failed":                 {[]view{{tier: 1, busy: 1}, {suspect: true}}, true},
		"it is down":                          {[]view{{down: true, busy: 1}}, false},
		"it failed, and there is no other":    {[]view{{suspect: true, busy: 1}}, true},
		"it failed, and there is another":     {[]view{{suspect: true, busy: 1}, {tier: 7}}, false},
		"it failed, and one tries it already": {[]view{{suspect: true, busy: 2}}, false},
	} {
		if got := stays(c.views, 0, 4); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestOnlySourcesThatWouldBeUsedAreProbed(t *testing.T) {
	soon := noon.Add(time.Second)
	for name, c := range map[string]struct {
		views []view
		index int
		wait  time.Duration
	}{
		"all is well":                  {[]view{{}, {tier: 1}}, -1, 0},
		"nobody works":                 {[]view{{suspect: true}}, -1, 0},
		"a lower one failed":           {[]view{{tier: 1}, {suspect: true}}, 1, 0},
		"it is too early":              {[]view{{tier: 1}, {suspect: true, retry: soon}}, -1, time.Second},
		"somebody asks":                {[]view{{tier: 1}, {suspect: true, probing: true}}, -1, 0},
		"it is down for good":          {[]view{{tier: 1}, {suspect: true, down: true}}, -1, 0},
		"a higher one failed":          {[]view{{}, {tier: 1, suspect: true}}, -1, 0},
		"a mirror failed":              {[]view{{}, {suspect: true}}, 1, 0},
		"a range beats a whole file":   {[]view{{whole: true}, {tier: 9, suspect: true}}, 1, 0},
		"the one that is due is first": {[]view{{tier: 2}, {suspect: true, retry: soon}, {tier: 1, suspect: true}}, 2, 0},
	} {
		if index, wait := due(noon, c.views); index != c.index || wait != c.wait {
			t.Errorf("%s: %d, %s", name, index, wait)
		}
	}
}

func TestARequestIsAsLongAsItsSourceIsFast(t *testing.T) {
	for name, c := range map[string]struct {
		v            view
		most, memory int
		want         int
	}{
		"a relay":                     {view{relay: true, rate: 1}, 8, 100, 16},
		"a relay and little memory":   {view{relay: true}, 8, 10, 5},
		"a relay and hardly any":      {view{relay: true}, 8, 1, 1},
		"in the order of the file":    {view{ordered: true, rate: 1e9}, 8, 100, 1},
		"nobody knows":                {view{}, 8, 100, 2},
		"fast":                        {view{rate: 1e9}, 8, 100, 8},
		"at 3 MiB/s":                  {view{rate: 3 << 20}, 8, 100, 6},
		"slow":                        {view{rate: 1000}, 8, 100, 1},
		"fast, and little memory":     {view{rate: 1e9}, 8, 16, 2},
		"fast, and hardly any memory": {view{rate: 1e9}, 8, 1, 1},
	} {
		if got := runChunks(c.v, c.most, 4, c.memory); got != c.want {
			t.Errorf("%s: %d", name, got)
		}
	}
}

func TestWhatIsFarTooSlowIsAskedForOnceMore(t *testing.T) {
	const after = 2 * time.Second
	old := func(f flight) flight { f.age, f.left = 10*time.Second, 1000; return f }
	for name, c := range map[string]struct {
		flights []flight
		rate    float64
		want    int
	}{
		"nothing is under way":                    {nil, 0, -1},
		"as fast as others":                       {[]flight{old(flight{rate: 100}), old(flight{rate: 50})}, 100, -1},
		"a tenth is slow enough":                  {[]flight{old(flight{rate: 100}), old(flight{rate: 9})}, 100, 1},
		"slower than the worker's own":            {[]flight{old(flight{source: 1, rate: 9})}, 100, 0},
		"silent, and nobody knows how fast":       {[]flight{old(flight{silent: 2 * time.Second})}, 0, 0},
		"silent for a moment":                     {[]flight{old(flight{silent: time.Second, rate: 50})}, 100, -1},
		"too young":                               {[]flight{{rate: 1, age: time.Second, left: 1000}}, 100, -1},
		"taken already":                           {[]flight{old(flight{rate: 1, taken: true})}, 100, -1},
		"a relay waits like everybody":            {[]flight{old(flight{silent: 9 * time.Second, relay: true})}, 100, -1},
		"it has all":                              {[]flight{{age: 9 * time.Second, silent: 9 * time.Second}}, 100, -1},
		"the slowest of two":                      {[]flight{old(flight{rate: 9}), old(flight{rate: 3})}, 100, 1},
		"the worker's own source is no faster":    {[]flight{old(flight{source: 1, rate: 9}), old(flight{source: 2, rate: 100})}, 8, -1},
		"another connection to the same source":   {[]flight{old(flight{rate: 9}), old(flight{rate: 100})}, 0, 0},
		"the fast one has not been measured here": {[]flight{old(flight{source: 1, rate: 9}), old(flight{source: 2, rate: 100})}, 60, 0},
	} {
		if got := hedge(c.flights, 0, c.rate, after); got != c.want {
			t.Errorf("%s: %d", name, got)
		}
	}
}

func TestAPaceLetsThroughWhatItsRateAllows(t *testing.T) {
	now := noon
	p := &pace{now: func() time.Time { return now }}
	if d := p.take(1 << 30); d != 0 || p.piece(1<<20) != 1<<20 {
		t.Errorf("without a limit: %s", d)
	}
	p.set(1000)
	if n := p.piece(1 << 20); n != 512 {
		t.Errorf("a piece of %d bytes", n)
	}
	for i, want := range []time.Duration{500 * time.Millisecond, time.Second, 1500 * time.Millisecond} {
		if d := p.take(500); d != want {
			t.Errorf("%d: %s", i, d)
		}
	}
	now = now.Add(time.Hour)
	if d := p.take(500); d != 500*time.Millisecond {
		t.Errorf("what was not used is not saved up, but: %s", d)
	}
	p.set(100_000)
	if d := p.take(0); d > 500*time.Millisecond || p.piece(1<<20) != 5000 {
		t.Errorf("another rate: %s", d)
	}
	p.set(0)
	if d := p.take(1 << 30); d != 0 {
		t.Errorf("without a limit again: %s", d)
	}
}
