package netup

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

// renew keeps a lease alive until ctx ends: from T1 on it asks the server that gave it, from T2 on any server (RFC 2131,
// section 4.4.5). An address that could not be renewed is kept while a new one is sought: an install that works is not
// cut off because a DHCP server went away.
func (l *link) renew(ctx context.Context, cur *lease, o Options) {
	for cur.time < infinite {
		start := cur.raw.CreationTime
		if sleep(ctx, time.Until(start.Add(cur.t1))) != nil {
			return
		}
		next := l.extend(ctx, cur)
		if ctx.Err() != nil {
			return
		}
		if next == nil {
			o.Report.Warn("%s: the lease of %s was not renewed; the address is kept and a new lease sought", l.name, cur.addr)
			l.mu.Lock()
			l.since, l.fault = time.Now(), ""
			l.mu.Unlock()
			if next = l.search(ctx); next == nil {
				return
			}
		}
		if next.addr != cur.addr || next.router() != cur.router() {
			o.Report.Warn("%s: the address is now %s, and was %s", l.name, next.addr, cur.addr)
			err := apply(l, next, o.Report)
			if err == nil {
				err = writeResolvConf(o.ResolvConf, next)
			}
			if err != nil {
				o.Report.Warn("%v", err)
			}
		}
		cur = next
	}
	<-ctx.Done()
}

// extend asks for more time until the lease ends. It returns nil when it was refused or nobody answered.
func (l *link) extend(ctx context.Context, cur *lease) *lease {
	start := cur.raw.CreationTime
	rebind, end := start.Add(cur.t2), start.Add(cur.time)
	for time.Now().Before(end) {
		unicast := time.Now().Before(rebind)
		until := end
		if unicast {
			until = rebind
		}
		next, err := l.ask(ctx, cur, unicast)
		if err == nil {
			return next
		}
		var nak *nclient4.ErrNak
		if ctx.Err() != nil || errors.As(err, &nak) {
			return nil
		}
		// Half of the time that is left, and at least a minute where there is one, as the RFC has it.
		left := time.Until(until)
		if sleep(ctx, min(max(left/2, min(time.Minute, cur.time/16)), max(left, 0))) != nil {
			return nil
		}
	}
	return nil
}

// ask sends one REQUEST for the address we have.
func (l *link) ask(ctx context.Context, cur *lease, unicast bool) (*lease, error) {
	opts := []nclient4.ClientOpt{nclient4.WithTimeout(min(5*time.Second, max(cur.time/16, time.Second))), nclient4.WithRetry(1), nclient4.WithHWAddr(l.mac)}
	if unicast && cur.server.IsValid() {
		opts = append(opts, nclient4.WithUnicast(&net.UDPAddr{IP: cur.addr.Addr().AsSlice(), Port: nclient4.ClientPort}),
			nclient4.WithServerAddr(&net.UDPAddr{IP: cur.server.AsSlice(), Port: nclient4.ServerPort}))
	}
	c, err := nclient4.New(l.name, opts...)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	raw, err := c.Renew(ctx, cur.raw, l.options()...)
	if err != nil {
		return nil, err
	}
	return newLease(raw)
}
