package testvm

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

func TestQMPSpeaksWhileEventsComeBetween(t *testing.T) {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		in := bufio.NewScanner(theirs)
		fmt.Fprintln(theirs, `{"QMP": {"version": {}, "capabilities": []}}`)
		for in.Scan() {
			var c struct {
				Execute string
				ID      int
			}
			if json.Unmarshal(in.Bytes(), &c) != nil {
				return
			}
			switch c.Execute {
			case "qmp_capabilities":
				fmt.Fprintf(theirs, `{"return": {}, "id": %d}`+"\n", c.ID)
			case "query-status":
				fmt.Fprintln(theirs, `{"event": "RESUME", "data": {}, "timestamp": {}}`)
				fmt.Fprintf(theirs, `{"return": {"status": "running"}, "id": %d}`+"\n", c.ID)
			case "bad":
				fmt.Fprintf(theirs, `{"error": {"class": "CommandNotFound", "desc": "no"}, "id": %d}`+"\n", c.ID)
			case "quit":
				fmt.Fprintf(theirs, `{"event": "SHUTDOWN", "data": {"reason": "host-qmp-quit"}}`+"\n")
				return
			}
		}
	}()
	var events []string
	q, err := NewQMP(t.Context(), ours, func(e string, d json.RawMessage) { events = append(events, e+string(d)) })
	if err != nil {
		t.Fatal(err)
	}
	var status struct{ Status string }
	if err := q.Execute(t.Context(), "query-status", nil, &status); err != nil || status.Status != "running" {
		t.Errorf("got %+v, %v", status, err)
	}
	if err := q.Execute(t.Context(), "bad", map[string]int{"x": 1}, nil); err == nil || !strings.Contains(err.Error(), "CommandNotFound: no") {
		t.Errorf("got %v", err)
	}
	if err := q.Execute(t.Context(), "quit", nil, nil); err == nil || !strings.Contains(err.Error(), "closed the connection") {
		t.Errorf("got %v", err)
	}
	q.Close()
	if got := strings.Join(events, " "); got != `RESUME{} SHUTDOWN{"reason": "host-qmp-quit"}` {
		t.Errorf("events %s", got)
	}
}

func TestQMPDoesNotWaitForAGreetingForEver(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := NewQMP(ctx, ours, func(string, json.RawMessage) {}); err == nil || !strings.Contains(err.Error(), "does not greet") {
		t.Errorf("got %v", err)
	}
}
