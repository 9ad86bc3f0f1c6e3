package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Error is the server's refusal.
type Error struct {
	Status int // HTTP status
	// Message is the server's sentence.
	Message string
	// Fields are those that the server found wrong; empty if it was not about a field.
	Fields []FieldError

	retryAfter time.Duration
}

// FieldError is what is wrong with one field.
type FieldError struct {
	Field string `json:"field"`
	Error string `json:"error"`
}

// Error names the fields; what the server says is a sentence already.
func (e *Error) Error() string {
	var said []string
	for _, f := range e.Fields {
		switch {
		case f.Error == "":
			said = append(said, "field "+f.Field)
		default:
			said = append(said, f.Field+": "+f.Error)
		}
	}
	switch {
	case len(said) == 0:
		return e.Message
	case e.Message == "" || strings.Contains(said[0], e.Message) && len(said) == 1:
		return strings.Join(said, "; ")
	default:
		return e.Message + " (" + strings.Join(said, "; ") + ")"
	}
}

// NotFound reports whether the server said that there is no such thing.
func NotFound(err error) bool { return status(err) == http.StatusNotFound }

// Changed reports whether the server said that the host is not any more as it was read.
func Changed(err error) bool { return status(err) == http.StatusPreconditionFailed }

// Denied reports whether the token was missing, wrong or too weak.
func Denied(err error) bool {
	s := status(err)
	return s == http.StatusUnauthorized || s == http.StatusForbidden
}

func status(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// maxError bounds the body of a refusal that is read.
const maxError = 1 << 20

func (c *Client) readError(r call, resp *http.Response) error {
	e := &Error{Status: resp.StatusCode, retryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxError)) // what came is what there is to tell
	var said struct {
		Error  string       `json:"error"`
		Field  string       `json:"field"`
		Fields []FieldError `json:"fields"`
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if (media == "application/json" || media == "application/problem+json") && json.Unmarshal(data, &said) == nil && (said.Error != "" || len(said.Fields) > 0) {
		e.Message, e.Fields = said.Error, said.Fields
		if said.Field != "" && len(e.Fields) == 0 {
			e.Fields = []FieldError{{Field: said.Field, Error: said.Error}}
		}
		return e
	}
	code := strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode)
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		e.Message = "the server does not know the token, or none was given"
	case http.StatusForbidden:
		e.Message = "the token's role does not allow this"
	default:
		e.Message = fmt.Sprintf("%s: %s answered %s, and not in the way of an imgserve", r.what(), c.base.Host, code)
	}
	return e
}

// retryAfter reads seconds or a date (RFC 9110, 10.2.3).
func retryAfter(s string) time.Duration {
	var d time.Duration
	if n, err := strconv.Atoi(s); err == nil {
		d = time.Duration(min(max(n, 0), 3600)) * time.Second
	} else if at, err := http.ParseTime(s); err == nil {
		d = time.Until(at)
	}
	return min(max(d, 0), maxWait)
}
