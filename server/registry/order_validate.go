package registry

import (
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"imgbuild/image/identity"
	"imgbuild/image/layout"
)

// maxNamed bounds how many disks or seals an order names.
const maxNamed = 256

// validate checks an order that is to be made for the host.
func (o *Order) validate(h *stored, now time.Time) error {
	var e Invalid
	if o.By == "" {
		e.add("by", "an order is a person's: a name is wanted")
	}
	if o.Reason == "" {
		e.add("reason", "a reason is wanted")
	}
	for _, f := range []struct{ name, value string }{{"by", o.By}, {"reason", o.Reason}} {
		if problem := checkLine(f.value); problem != "" {
			e.add(f.name, "%s", problem)
		}
	}
	checkDisks(&e, "disks", o.Disks)
	checkDisks(&e, "wipe", o.Wipe)
	if len(o.Unseal) > maxNamed {
		e.add("unseal", "it names %d machines, and %d is the most", len(o.Unseal), maxNamed)
	}
	for i, sn := range o.Unseal {
		if problem := identity.Junk(sn); problem != "" {
			e.add(fmt.Sprintf("unseal[%d]", i), "%s", problem)
		}
	}
	switch {
	case o.Image == "":
		e.add("image", "neither the order nor the host names a release")
	case !imageText.MatchString(o.Image) || !strings.Contains(o.Image, "/"):
		e.add("image", "%q is not a release with its version, as web/1.2", o.Image)
	}
	switch o.Done {
	case "", "reboot", "kexec", "poweroff", "wait":
	default:
		e.add("done", "%q is none of reboot, kexec, poweroff and wait", o.Done)
	}
	if o.Transport != "" && !o.Transport.Valid() {
		e.add("transport", "%q is none of http, relay and torrent", o.Transport)
	}
	if o.Preview && o.Done != "" {
		e.add("done", "after a preview the machine boots its disk: leave it out")
	}
	if !now.Before(o.Expires) {
		e.add("expires", "%s has passed", o.Expires.UTC().Format(time.RFC3339))
	}
	if h.Protect && !o.Preview && o.Names < 2 {
		e.add("sn", "%s is protected: name it twice to have it installed", o.SN)
	}
	checkLayout(&e, o.Layout)
	if data, err := json.Marshal(o); err == nil && len(data) > maxHost {
		e.add("", "it has %d bytes, and %d is the most", len(data), maxHost)
	}
	return e.orNil()
}

// checkDisks checks what is to name disks. The same twice among disks would be two disks of a layout that are one.
func checkDisks(e *Invalid, field string, names []string) {
	if len(names) > maxNamed {
		e.add(field, "it names %d disks, and %d is the most", len(names), maxNamed)
	}
	seen := map[string]bool{}
	for i, d := range names {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch problem := checkLine(d); {
		case problem != "":
			e.add(at, "%s", problem)
		case strings.TrimSpace(d) != d || d == "":
			e.add(at, "it is not a disk's serial number, WWN or path")
		case strings.HasPrefix(d, "/") && path.Clean(d) != d:
			e.add(at, "%q is not a path", d)
		case seen[d] && field == "disks":
			e.add(at, "%q is named twice", d)
		}
		seen[d] = true
	}
}

// checkLayout checks a layout that is declared for a host or an order.
func checkLayout(e *Invalid, l *layout.Layout) {
	if l != nil {
		e.Fields = append(e.Fields, CheckLayout(*l)...)
	}
}

// CheckLayout returns all that is wrong with a layout, each by its field below layout.
func CheckLayout(l layout.Layout) []FieldError {
	var list []FieldError
	for _, p := range l.Problems() {
		field := "layout"
		for _, key := range p.Path {
			if _, err := strconv.Atoi(key); err == nil {
				field += "[" + key + "]"
			} else {
				field += "." + key
			}
		}
		list = append(list, FieldError{field, p.Text})
	}
	return list
}
