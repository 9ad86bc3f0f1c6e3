package control

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/report"
)

// client asks the server, and waits for nothing: how long it would have waited is in the returned slice.
func client(c *contract) (*Client, *console, *[]time.Duration) {
	said := &console{}
	cl := New(Options{Server: c.http.URL, Key: c.key.Public(), Boot: bootNonce, Report: report.New(said)})
	waits := &[]time.Duration{}
	cl.sleep = func(ctx context.Context, d time.Duration) error {
		*waits = append(*waits, d)
		return context.Cause(ctx)
	}
	return cl, said, waits
}

func machine(serial string) func(context.Context) plan.Inventory {
	return func(context.Context) plan.Inventory { return plan.Inventory{Serial: serial} }
}

func nothing(context.Context) {}

func install() plan.Plan {
	return plan.Plan{Action: plan.Install, Order: "o-1", Manifest: "http://10.0.0.1/m.json", Token: token}
}

func TestAMachineGetsItsPlan(t *testing.T) {
	c := newContract(t, install())
	cl, _, _ := client(c)
	p, err := cl.Claim(t.Context(), machine("SN-1"), nothing)
	if err != nil || p.Order != "o-1" || p.Token != token {
		t.Fatalf("%+v, %v", p, err)
	}
	if len(c.claims) != 1 || c.claims[0].Boot != bootNonce || c.claims[0].Inventory.Serial != "SN-1" || c.claims[0].Schema != plan.Schema {
		t.Errorf("claimed %+v", c.claims)
	}
}

func TestAMachineThatHasToWaitShowsItsPlaceAndAsksAgain(t *testing.T) {
	wait := func(place int) plan.Plan {
		return plan.Plan{Action: plan.Wait, Place: place, RetrySeconds: 7, Reason: "4 machines of its rack install"}
	}
	c := newContract(t, wait(2), wait(2), wait(1), install())
	cl, said, waits := client(c)
	taken := 0
	p, err := cl.Claim(t.Context(), func(context.Context) plan.Inventory { taken++; return plan.Inventory{Serial: "SN-1"} }, nothing)
	if err != nil || p.Action != plan.Install || taken != 4 {
		t.Fatalf("%+v, %v, %d inventories", p, err, taken)
	}
	want := "waiting, number 2 in the queue: 4 machines of its rack install\nwaiting, number 1 in the queue: 4 machines of its rack install"
	if said.String() != want || len(*waits) != 3 || (*waits)[0] != 7*time.Second {
		t.Errorf("it says\n%s\nand waits %v", said, *waits)
	}
}

func TestAMachineThatIsInspectedAsksWhatToDoThen(t *testing.T) {
	inspect := plan.Plan{Action: plan.Inspect, Reason: "it is not in the registry"}
	c := newContract(t, inspect, plan.Plan{Action: plan.LocalBoot, Reason: "there is no order for it"})
	cl, said, waits := client(c)
	completed := 0
	p, err := cl.Claim(t.Context(), machine("SN-1"), func(context.Context) { completed++ })
	if err != nil || p.Action != plan.LocalBoot || completed != 1 || len(*waits) != 0 || len(c.claims) != 2 {
		t.Errorf("%+v, %v, completed %d times, waits %v", p, err, completed, *waits)
	}
	if said.String() != "inspected, nothing is written: it is not in the registry" {
		t.Errorf("it says\n%s", said)
	}
}

func TestAMachineThatIsNotAsItWasWrittenDownWaitsForAPerson(t *testing.T) {
	inspect := plan.Plan{Action: plan.Inspect, Reason: "its model is another"}
	c := newContract(t, inspect, inspect, inspect, inspect, inspect, inspect, install())
	cl, said, waits := client(c)
	completed := 0
	p, err := cl.Claim(t.Context(), machine("SN-1"), func(context.Context) { completed++ })
	if err != nil || p.Action != plan.Install || completed != 1 || len(*waits) != 5 || (*waits)[0] < 20*time.Second || (*waits)[4] < 2*time.Minute || (*waits)[4] > 8*time.Minute {
		t.Errorf("%+v, %v, completed %d times, waits %v", p, err, completed, *waits)
	}
	if !strings.HasSuffix(said.String(), "\nnothing is written, and the server is asked again from time to time: its model is another") {
		t.Errorf("it says\n%s", said)
	}
}

func TestAServerThatIsAwayIsAskedAgainLessAndLessOften(t *testing.T) {
	c := newContract(t, install())
	c.status = []int{502, 503, 503, 429, 408, 500, 500, 500, 500}
	cl, said, waits := client(c)
	if _, err := cl.Claim(t.Context(), machine("SN-1"), nothing); err != nil {
		t.Fatal(err)
	}
	if n := len(*waits); n != 9 || (*waits)[0] > 2*time.Second || (*waits)[8] < 20*time.Second || (*waits)[8] > 45*time.Second {
		t.Errorf("it waits %v", *waits)
	}
	if !strings.Contains(said.String(), "does not answer, and is asked again: the server answers 502: because of 502") {
		t.Errorf("it says\n%s", said)
	}
}

func TestAServerThatStaysAwayEndsInAnError(t *testing.T) {
	c := newContract(t, install())
	c.http.Close()
	cl, _, _ := client(c)
	cl.Patience = time.Millisecond
	_, err := cl.Claim(t.Context(), machine("SN-1"), nothing)
	if err == nil || !strings.Contains(err.Error(), "no answer in") || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "Post ") {
		t.Errorf("got %v", err)
	}
	cause := errors.New("somebody asked for a stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := cl.Claim(ctx, machine("SN-1"), nothing); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsNotThisBootsPlanIsRefusedAtOnce(t *testing.T) {
	other, err := image.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		prepare func(*contract, *Client)
		want    string
	}{
		"another server's key":      {func(_ *contract, cl *Client) { cl.Key = other.Public() }, "not signed by the server"},
		"another boot's":            {func(s *contract, _ *Client) { s.plans[0].Boot = "another" }, "another boot"},
		"another machine's":         {func(s *contract, _ *Client) { s.plans[0].Serial = "SN-2" }, `serial number "SN-2"`},
		"an unknown action":         {func(s *contract, _ *Client) { s.plans[0].Action = "wipe" }, `"wipe" is not known`},
		"an install without token":  {func(s *contract, _ *Client) { s.plans[0].Token = "" }, "needs a manifest, an order and a token"},
		"a boot that is not known":  {func(s *contract, _ *Client) { s.status = []int{403} }, "answers 403: because of 403"},
		"a path that is not there":  {func(s *contract, _ *Client) { s.status = []int{404} }, "answers 404"},
		"a redirection":             {func(s *contract, _ *Client) { s.status = []int{http.StatusFound} }, "answers 302"},
		"something that is no plan": {func(s *contract, _ *Client) { s.status = []int{200} }, "something else between"},
	} {
		s := newContract(t, install())
		cl, _, waits := client(s)
		c.prepare(s, cl)
		p, err := cl.Claim(t.Context(), machine("SN-1"), nothing)
		if err == nil || !strings.Contains(err.Error(), c.want) || p.Action != "" || len(*waits) != 0 {
			t.Errorf("%s: %+v, %v, waited %v", name, p, err, *waits)
		}
	}
}

func TestAMachineWithoutASerialNumberIsNeverInstalled(t *testing.T) {
	c := newContract(t, install())
	cl, _, _ := client(c)
	for _, action := range []plan.Action{plan.Install, plan.Preview} {
		c.plans[0].Action = action
		if p, err := cl.Claim(t.Context(), machine(""), nothing); err == nil || p.Action != "" || !strings.Contains(err.Error(), string(action)) {
			t.Errorf("%+v, %v", p, err)
		}
	}
	c.plans = []plan.Plan{{Action: plan.LocalBoot, Reason: "it has no serial number"}}
	if p, err := cl.Claim(t.Context(), machine(""), nothing); err != nil || p.Action != plan.LocalBoot {
		t.Errorf("%+v, %v", p, err)
	}
}
