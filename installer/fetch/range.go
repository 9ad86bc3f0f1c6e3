package fetch

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// contentRange is what a 206 says it brings (RFC 9110, section 14.4).
type contentRange struct {
	first, last int64
	total       int64 // -1 if the server does not say
}

func parseContentRange(s string) (contentRange, error) {
	bad := fmt.Errorf("the server answers with the Content-Range %.60q, which makes no sense", s)
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), "bytes ")
	if !ok {
		return contentRange{}, bad
	}
	span, total, ok := strings.Cut(rest, "/")
	first, last, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 {
		return contentRange{}, bad
	}
	c := contentRange{total: -1}
	var err error
	if c.first, err = parseOffset(first); err != nil {
		return contentRange{}, bad
	}
	if c.last, err = parseOffset(last); err != nil || c.last < c.first {
		return contentRange{}, bad
	}
	if total != "*" {
		if c.total, err = parseOffset(total); err != nil || c.total <= c.last {
			return contentRange{}, bad
		}
	}
	return c, nil
}

// parseOffset takes digits only: no sign, no blank.
func parseOffset(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

// checkPartial checks that a 206 starts where it was asked to, and belongs to a file of the right size.
func checkPartial(r *http.Response, pos, size int64) (contentRange, error) {
	c, err := parseContentRange(r.Header.Get("Content-Range"))
	if err != nil {
		return c, &answer{text: err.Error()}
	}
	if c.total >= 0 && c.total != size {
		return c, sizeError(c.total, size)
	}
	if c.first != pos {
		return c, &answer{text: fmt.Sprintf("the server was asked for bytes from %d on and sends those from %d on", pos, c.first)}
	}
	if r.ContentLength >= 0 && r.ContentLength > c.last-c.first+1 {
		return c, &answer{text: fmt.Sprintf("the server announces %d bytes and a range of %d", r.ContentLength, c.last-c.first+1)}
	}
	return c, nil
}

// unsatisfiable explains a 416: the server thinks that the file ends before the byte that was asked for.
func unsatisfiable(r *http.Response, pos, size int64) error {
	if total, ok := strings.CutPrefix(r.Header.Get("Content-Range"), "bytes */"); ok {
		if n, err := parseOffset(total); err == nil && n != size {
			return sizeError(n, size)
		}
	}
	return &answer{text: fmt.Sprintf("the server says that the file has no byte %d, though the signed manifest says that it has %d", pos, size)}
}

func sizeError(found, want int64) error {
	return final("the file has %d bytes there and %d in the signed manifest: publish the release again, whole", found, want)
}
