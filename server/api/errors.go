package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"imgbuild/server/registry"
	"imgbuild/server/releases"
)

// maxBody bounds a request's body: a host with its files.
const maxBody = 4 << 20

// fieldError is what is wrong with one field.
type fieldError struct {
	Field string `json:"field"`
	Error string `json:"error"`
}

// refusal is the body of every answer that is not what was asked for.
type refusal struct {
	Error string `json:"error"`
	// Field is there when one field is at fault, Fields when several are.
	Field  string       `json:"field,omitempty"`
	Fields []fieldError `json:"fields,omitempty"`
}

// httpError is a refusal with its status.
type httpError struct {
	status int
	refusal
}

func (e *httpError) Error() string { return e.refusal.Error }

// refuse makes a refusal about nothing in particular, or about one field.
func refuse(status int, field, format string, args ...any) error {
	return &httpError{status, refusal{Error: fmt.Sprintf(format, args...), Field: field}}
}

func writeError(w http.ResponseWriter, status int, sentence string) {
	writeJSON(w, status, refusal{Error: sentence})
}

// fail answers with what an error means to the client. What is the server's own fault is logged.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := meaning(err)
	if e.status >= 500 {
		if r.Context().Err() != nil {
			return // the client has gone
		}
		a.o.Log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if e.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	writeJSON(w, e.status, e.refusal)
}

// meaning turns an error of the packages below into a status (RFC 9110, 15.5) and a sentence.
func meaning(err error) *httpError {
	var e *httpError
	var invalid *registry.Invalid
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &invalid):
		return fromInvalid(invalid)
	case errors.As(err, &tooLarge):
		return &httpError{http.StatusRequestEntityTooLarge, refusal{Error: fmt.Sprintf("the request has more than %d bytes", tooLarge.Limit)}}
	case errors.Is(err, registry.ErrNotFound), errors.Is(err, releases.ErrNotFound):
		return &httpError{http.StatusNotFound, refusal{Error: err.Error()}}
	case errors.Is(err, registry.ErrConflict):
		return &httpError{http.StatusConflict, refusal{Error: err.Error()}}
	case errors.Is(err, registry.ErrInvalid):
		return &httpError{http.StatusUnprocessableEntity, refusal{Error: err.Error()}}
	case errors.Is(err, registry.ErrUnavailable):
		return &httpError{http.StatusServiceUnavailable, refusal{Error: "the server's database cannot be used now, and nothing was changed; the server's log says why"}}
	}
	return &httpError{http.StatusInternalServerError, refusal{Error: "this is a fault of the server; its log has more"}}
}

// missing says, in the words of who asked, what is not there.
func missing(err error, format string, args ...any) error {
	if errors.Is(err, registry.ErrNotFound) {
		return refuse(http.StatusNotFound, "", format, args...)
	}
	return err
}

// fromInvalid names the field, or the fields.
func fromInvalid(v *registry.Invalid) *httpError {
	e := &httpError{status: http.StatusUnprocessableEntity}
	var said []string
	for _, f := range v.Fields {
		e.Fields = append(e.Fields, fieldError{f.Field, f.Message})
		said = append(said, strings.TrimPrefix(f.Field+": "+f.Message, ": "))
	}
	e.refusal.Error = strings.Join(said, "; ")
	if len(v.Fields) == 1 {
		e.Field, e.Fields = v.Fields[0].Field, nil
		e.refusal.Error = v.Fields[0].Message
		if e.Field == "" && isSyntax(v.Fields[0].Message) {
			e.status = http.StatusBadRequest
		}
	}
	return e
}

// isSyntax says whether the registry refused a body because it is no JSON object at all.
func isSyntax(message string) bool { return strings.HasPrefix(message, "a JSON object is wanted") }

// readBody reads a request's body.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLarge) {
		return nil, refuse(http.StatusBadRequest, "", "the request's body cannot be read: %v", err)
	}
	return data, err
}

// decode reads a request's body into a value and refuses fields that there are not.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	data, err := readBody(w, r)
	if err != nil {
		return err
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	err = d.Decode(v)
	if err == nil {
		if _, err := d.Token(); err != io.EOF {
			return refuse(http.StatusBadRequest, "", "there is more after the JSON object")
		}
		return nil
	}
	var typed *json.UnmarshalTypeError
	switch {
	case errors.As(err, &typed) && typed.Field != "":
		return refuse(http.StatusUnprocessableEntity, typed.Field, "a %s is not what belongs here", typed.Value)
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		field := strings.Trim(strings.TrimPrefix(err.Error(), "json: unknown field "), `"`)
		return refuse(http.StatusUnprocessableEntity, field, "there is no such field")
	case errors.Is(err, io.EOF):
		return refuse(http.StatusBadRequest, "", "a JSON object is wanted, and the request has no body")
	}
	return refuse(http.StatusBadRequest, "", "a JSON object is wanted: %v", err)
}
