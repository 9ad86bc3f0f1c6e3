package control

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"imgbuild/image/plan"
	"imgbuild/installer/report"
)

// again is how often a machine that waits says so on its console when nothing changes.
const again = time.Minute

// Claim asks for this boot's plan until it is one to act on: to install, or to boot the local disk. inventory is taken
// anew for each question.
//
// A plan that says to wait is waited for here, and its reason is shown. One that says to inspect is answered by asking
// again: the inventory has been sent, and a machine that is known now is told what to do next. If it is still to be
// inspected, something about it is not as it was written down, and it waits for a person, asking less and less often;
// complete is called once then, to wait for what is still missing in the inventory.
func (c *Client) Claim(ctx context.Context, inventory func(context.Context) plan.Inventory, complete func(context.Context)) (plan.Plan, error) {
	q := questions{Client: c, answered: time.Now(), tries: pause{most: 30 * time.Second}, look: pause{next: 30 * time.Second, most: 5 * time.Minute}}
	for {
		p, err := c.ask(ctx, inventory(ctx))
		wait, err := q.judge(ctx, p, err)
		if err != nil {
			return plan.Plan{}, fmt.Errorf("ask the server for a plan: %w", err)
		}
		switch {
		case wait == 0 && p.Action != plan.Inspect:
			return p, nil
		case wait == 0:
			complete(ctx)
			continue
		}
		if err := c.sleep(ctx, wait); err != nil {
			return plan.Plan{}, fmt.Errorf("ask the server for a plan: %w", err)
		}
	}
}

// questions is what was asked and answered so far.
type questions struct {
	*Client
	answered    time.Time // the last time
	tries, look pause
	inspected   bool
	shown       string
	shownAt     time.Time
}

// judge says how long to wait before the next question: 0 is not at all.
func (q *questions) judge(ctx context.Context, p plan.Plan, err error) (time.Duration, error) {
	switch {
	case err == nil:
		q.answered, q.tries = time.Now(), pause{most: q.tries.most}
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case !retryable(err):
		return 0, err
	case time.Since(q.answered) > q.Patience:
		return 0, fmt.Errorf("no answer in %s: %w; look whether imgserve runs at %s, and boot again", report.Duration(q.Patience), plain(err), q.Server)
	default:
		q.show("the server %s does not answer, and is asked again: %v", q.Server, plain(err))
		return q.tries.after(err), nil
	}
	switch {
	case p.Action == plan.Wait && p.Place > 0:
		q.show("waiting, number %d in the queue: %s", p.Place, line(p.Reason, 300))
		return time.Duration(min(p.RetrySeconds, 300)) * time.Second, nil
	case p.Action == plan.Wait:
		q.show("waiting: %s", line(p.Reason, 300))
		return time.Duration(min(p.RetrySeconds, 300)) * time.Second, nil
	case p.Action == plan.Inspect && !q.inspected:
		q.inspected = true
		q.show("inspected, nothing is written: %s", line(p.Reason, 300))
	case p.Action == plan.Inspect:
		q.show("nothing is written, and the server is asked again from time to time: %s", line(p.Reason, 300))
		return q.look.after(nil), nil
	}
	return 0, nil
}

// show tells people, once a minute if it is the same again.
func (q *questions) show(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	if text == q.shown && time.Since(q.shownAt) < again {
		return
	}
	q.Report.Info("%s", text)
	q.shown, q.shownAt = text, time.Now()
}

// ask asks once, and believes only what was signed for this boot of this machine.
func (c *Client) ask(ctx context.Context, inv plan.Inventory) (plan.Plan, error) {
	var s plan.Signed
	if err := c.Post(ctx, plan.ClaimPath, "", plan.Claim{Schema: plan.Schema, Boot: c.Boot, Inventory: inv}, &s); err != nil {
		return plan.Plan{}, err
	}
	p, err := plan.Open(s, c.Key, c.Boot, inv.Serial)
	if err != nil {
		return plan.Plan{}, &notOurs{err}
	}
	if (p.Action == plan.Install || p.Action == plan.Preview) && inv.Serial == "" {
		return plan.Plan{}, &notOurs{fmt.Errorf("read plan: it says to %s a machine without a serial number; nothing is done", p.Action)}
	}
	return p, nil
}

// notOurs is a plan that is not believed. Asking again brings the same one.
type notOurs struct{ err error }

func (n *notOurs) Error() string { return n.err.Error() }
func (n *notOurs) Unwrap() error { return n.err }

// plain takes off what net/http wraps around an error: method and address, which are known.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
