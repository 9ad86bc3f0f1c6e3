package ctl

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"imgbuild/server/ctl/hostfile"
	"imgbuild/server/registry"
)

// change is one field that is to become another.
type change struct {
	Field string `json:"field"`
	Old   any    `json:"old"`
	New   any    `json:"new"`
}

func (c change) String() string {
	return fmt.Sprintf("%s: %s -> %s", c.Field, c.side(c.Old), c.side(c.New))
}

func (c change) side(v any) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case string:
		return v
	}
	j, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(j)
}

const secret = "(not shown)"

// difference is what has to be done to a host: the changes for people, and the merge patch (RFC 7396) for the server. Without
// a difference both are nil.
func difference(from, to *registry.Host, clearsPassword bool) ([]change, map[string]any, error) {
	a, err := fields(from)
	if err != nil {
		return nil, nil, err
	}
	b, err := fields(to)
	if err != nil {
		return nil, nil, err
	}
	patch := mergeDiff(a, b)
	if clearsPassword && from.OOB != nil && from.OOB.PasswordSet {
		if _, whole := patch["oob"]; !whole {
			patch["oob"] = map[string]any{"password": nil}
		} else if inner, ok := patch["oob"].(map[string]any); ok {
			inner["password"] = nil
		}
	}
	if len(patch) == 0 {
		return nil, nil, nil
	}
	return changes(a, b, patch), patch, nil
}

// changes lists a patch field by field; management controllers by theirs.
func changes(a, b, patch map[string]any) []change {
	var list []change
	for name, v := range patch {
		inner, isMap := v.(map[string]any)
		if name != "oob" || !isMap {
			list = append(list, change{name, a[name], b[name]})
			continue
		}
		was, _ := a[name].(map[string]any)
		is, _ := b[name].(map[string]any)
		for key, to := range inner {
			c := change{"oob." + key, was[key], is[key]}
			if key == "password" {
				c.Old, c.New = secret, secret
				if to == nil {
					c.New = nil
				}
			}
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(x, y change) int { return cmp.Compare(x.Field, y.Field) })
	return list
}

// fields is a host as JSON has it, without the server's fields and those that are empty.
func fields(h *registry.Host) (map[string]any, error) {
	data, err := json.Marshal(hostfile.Own(*h))
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", h.SN, err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("host %s: %w", h.SN, err)
	}
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == "" })
	return m, nil
}

// mergeDiff makes the merge patch that turns from into to. A null in to cannot be said by one; hosts have none.
func mergeDiff(from, to map[string]any) map[string]any {
	patch := map[string]any{}
	for name := range from {
		if _, there := to[name]; !there {
			patch[name] = nil
		}
	}
	for name, v := range to {
		old, there := from[name]
		was, isMap := old.(map[string]any)
		is, willBeMap := v.(map[string]any)
		switch {
		case isMap && willBeMap:
			if inner := mergeDiff(was, is); len(inner) > 0 {
				patch[name] = inner
			}
		case !there || !same(old, v):
			patch[name] = v
		}
	}
	return patch
}

func same(a, b any) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && bytes.Equal(x, y)
}
