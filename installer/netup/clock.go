package netup

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/installer/report"
)

// Clock says how to correct a clock.
type Clock struct {
	Report report.Reporter
	// Floor is a time that is certainly past, such as when the installer was built. A clock before it is wrong.
	Floor time.Time
	// NTP are the servers that DHCP named.
	NTP []netip.Addr
	// URL is a web server whose Date header is believed when no NTP server answers.
	URL string
	// Set sets the clock; the system's if nil.
	Set func(time.Time) error
}

// tooLate is how far after Floor a clock is believed.
const tooLate = 20 * 365 * 24 * time.Hour

// Correct sets a clock that is plainly wrong (a dead battery, a clock never set), because certificates are checked against
// it: from NTP, from the Date header of the web server, or to Floor. A clock that may be right is left alone. The time is
// taken on trust, but only forward of Floor; what is installed is vouched for by its signature and not by the time.
func (c Clock) Correct(ctx context.Context, now time.Time) error {
	if c.sane(now) {
		return nil
	}
	set := c.Set
	if set == nil {
		set = setSystemClock
	}
	was := now.UTC().Format("2006-01-02 15:04")
	for _, s := range c.NTP {
		t, err := sntp(ctx, netip.AddrPortFrom(s, 123), c.Floor)
		if err == nil && !c.sane(t) {
			err = fmt.Errorf("it says %s, which cannot be", t.UTC().Format(time.RFC3339))
		}
		if err != nil {
			c.Report.Info("ask NTP server %s for the time: %v", s, err)
			continue
		}
		c.Report.Info("the clock said %s UTC; set to %s by NTP server %s", was, t.UTC().Format("2006-01-02 15:04:05"), s)
		return set(t)
	}
	if c.URL != "" {
		t, err := httpDate(ctx, c.URL)
		if err == nil && !c.sane(t) {
			err = fmt.Errorf("it says %s, which cannot be", t.UTC().Format(time.RFC3339))
		}
		if err == nil {
			c.Report.Info("the clock said %s UTC; set to %s by the web server", was, t.UTC().Format("2006-01-02 15:04:05"))
			return set(t)
		}
		c.Report.Info("ask the web server for the time: %v", err)
	}
	c.Report.Warn("the clock says %s UTC, and nobody knows better; set to %s, when this installer was made", was, c.Floor.UTC().Format("2006-01-02 15:04"))
	return set(c.Floor)
}

func (c Clock) sane(t time.Time) bool { return !t.Before(c.Floor) && t.Before(c.Floor.Add(tooLate)) }

func setSystemClock(t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

// ntpEpoch is 1900-01-01 in seconds before 1970.
const ntpEpoch = 2208988800

// sntp asks one server for the time (RFC 4330). Which era of 136 years is meant follows from floor.
func sntp(ctx context.Context, server netip.AddrPort, floor time.Time) (time.Time, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", server.String())
	if err != nil {
		return time.Time{}, err
	}
	defer conn.Close()
	req, answer := make([]byte, 48), make([]byte, 512)
	for range 3 {
		req[0] = 4<<3 | 3 // version 4, client
		// A random transmit time stamp tells this exchange from others and gives away nothing.
		if _, err := rand.Read(req[40:48]); err != nil {
			return time.Time{}, err
		}
		sent := time.Now()
		if _, err = conn.Write(req); err != nil {
			continue
		}
		_ = conn.SetReadDeadline(sent.Add(1500 * time.Millisecond)) // a UDP socket takes deadlines
		var n int
		if n, err = conn.Read(answer); err != nil {
			if ctx.Err() != nil {
				return time.Time{}, context.Cause(ctx)
			}
			continue
		}
		delay := time.Since(sent)
		t, perr := parseSNTP(answer[:n], req[40:48], floor)
		if perr != nil {
			return time.Time{}, perr
		}
		return t.Add(delay / 2), nil
	}
	return time.Time{}, err
}

func parseSNTP(b, origin []byte, floor time.Time) (time.Time, error) {
	switch {
	case len(b) < 48:
		return time.Time{}, errors.New("the answer is too short for NTP")
	case b[0]&7 != 4 && b[0]&7 != 5:
		return time.Time{}, errors.New("the answer is not from an NTP server")
	case string(b[24:32]) != string(origin):
		return time.Time{}, errors.New("the answer is to another question")
	case b[0]>>6 == 3 || b[1] == 0 || b[1] > 15:
		return time.Time{}, errors.New("the server does not know the time itself")
	}
	sec, frac := binary.BigEndian.Uint32(b[40:]), binary.BigEndian.Uint32(b[44:])
	if sec == 0 && frac == 0 {
		return time.Time{}, errors.New("the answer has no time")
	}
	ns := int64(uint64(frac) * 1e9 >> 32)
	t := time.Unix(int64(sec)-ntpEpoch, ns)
	for t.Before(floor) && floor.Sub(t) > tooLate {
		t = t.Add(1 << 32 * time.Second)
	}
	return t, nil
}

// httpDate asks a web server for the time. Its certificate is not checked: without the time it cannot be.
func httpDate(ctx context.Context, url string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return time.Time{}, errors.New("the address is not a URL")
	}
	req.URL.User = nil // nothing secret goes to a server that was not checked
	req.URL.RawQuery = ""
	r, err := client.Do(req)
	if err != nil {
		return time.Time{}, errors.Unwrap(err)
	}
	r.Body.Close()
	t, err := http.ParseTime(r.Header.Get("Date"))
	if err != nil {
		return time.Time{}, errors.New("its answer has no date")
	}
	return t, nil
}
