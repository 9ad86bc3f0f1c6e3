package testvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// QMP speaks the QEMU Machine Protocol (docs/interop/qmp-spec in QEMU) over a connected socket.
type QMP struct {
	conn io.ReadWriteCloser
	done chan struct{}

	mu      sync.Mutex
	next    int
	waiting map[int]chan qmpReply
	err     error
	onEvent func(event string, data json.RawMessage)
}

type qmpReply struct {
	value json.RawMessage
	err   error
}

type qmpMessage struct {
	Greeting json.RawMessage `json:"QMP"`
	ID       int             `json:"id"`
	Return   json.RawMessage `json:"return"`
	Error    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

// NewQMP takes the connection over, awaits QEMU's greeting and leaves the negotiation mode. onEvent is called for every
// event, in order, and must not wait for QMP itself.
func NewQMP(ctx context.Context, conn io.ReadWriteCloser, onEvent func(string, json.RawMessage)) (*QMP, error) {
	q := &QMP{conn: conn, done: make(chan struct{}), waiting: map[int]chan qmpReply{}, onEvent: onEvent}
	greeted := make(chan struct{})
	go q.read(greeted)
	select {
	case <-greeted:
	case <-q.done:
		return nil, fmt.Errorf("speak to QEMU: %w", q.failure())
	case <-ctx.Done():
		q.Close()
		return nil, fmt.Errorf("speak to QEMU: it does not greet: %w", ctx.Err())
	}
	if err := q.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

func (q *QMP) read(greeted chan<- struct{}) {
	d := json.NewDecoder(q.conn)
	var err error
	for {
		var m qmpMessage
		if err = d.Decode(&m); err != nil {
			break
		}
		switch {
		case m.Greeting != nil:
			if greeted != nil {
				close(greeted)
				greeted = nil
			}
		case m.Event != "":
			q.onEvent(m.Event, m.Data)
		default:
			q.answer(m)
		}
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("QEMU closed the connection")
	}
	q.mu.Lock()
	q.err = err
	q.mu.Unlock()
	close(q.done)
}

func (q *QMP) answer(m qmpMessage) {
	q.mu.Lock()
	c := q.waiting[m.ID]
	delete(q.waiting, m.ID)
	q.mu.Unlock()
	if c == nil {
		return
	}
	if m.Error != nil {
		c <- qmpReply{err: fmt.Errorf("%s: %s", m.Error.Class, m.Error.Desc)}
		return
	}
	c <- qmpReply{value: m.Return}
}

func (q *QMP) failure() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// Execute runs a command. args is marshalled unless nil; the answer is unmarshalled into out unless nil.
func (q *QMP) Execute(ctx context.Context, command string, args, out any) error {
	c := make(chan qmpReply, 1)
	q.mu.Lock()
	q.next++
	id := q.next
	q.waiting[id] = c
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{command, args, id})
	if err == nil {
		_, err = q.conn.Write(append(b, '\n'))
	}
	q.mu.Unlock()
	if err != nil {
		return fmt.Errorf("send %s to QEMU: %w", command, err)
	}
	select {
	case r := <-c:
		return r.into(command, out)
	case <-q.done:
		// The answer may have come just before the end.
		select {
		case r := <-c:
			return r.into(command, out)
		default:
			return fmt.Errorf("await QEMU's answer to %s: %w", command, q.failure())
		}
	case <-ctx.Done():
		q.mu.Lock()
		delete(q.waiting, id)
		q.mu.Unlock()
		return fmt.Errorf("await QEMU's answer to %s: %w", command, ctx.Err())
	}
}

func (r qmpReply) into(command string, out any) error {
	if r.err != nil {
		return fmt.Errorf("QEMU refused %s: %w", command, r.err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(r.value, out); err != nil {
		return fmt.Errorf("read QEMU's answer to %s: %w", command, err)
	}
	return nil
}

// Close ends the conversation and waits for its reader.
func (q *QMP) Close() {
	q.conn.Close()
	<-q.done
}
