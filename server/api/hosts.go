package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"imgbuild/server/registry"
)

// oldFields are those of the service that people come from; the first is the key.
func oldFields() []string { return []string{"sn", "hostname", "ip", "netmask", "gw"} }

// oldHost is a host as an old script sees it: five fields, always all of them.
type oldHost struct {
	SN       string `json:"sn"`
	Hostname string `json:"hostname"`
	IP       string `json:"ip"`
	Netmask  string `json:"netmask"`
	GW       string `json:"gw"`
}

// shown is a host as the caller may see it. No password leaves the server.
func shown(c caller, h *registry.Host) any {
	if c.legacy {
		return oldHost{h.SN, h.Hostname, h.IP, h.Netmask, h.GW}
	}
	return h.Redacted()
}

const noHost = "there is no host %s"

func hostETag(h *registry.Host) string { return `"` + strconv.FormatInt(h.Revision, 10) + `"` }

func writeHost(w http.ResponseWriter, r *http.Request, status int, h *registry.Host) {
	if c := who(r); !c.legacy {
		w.Header().Set("ETag", hostETag(h))
	}
	writeJSON(w, status, shown(who(r), h))
}

func (a *API) listHosts(w http.ResponseWriter, r *http.Request) {
	q := query{values: r.URL.Query()}
	f := registry.HostFilter{
		Rack: q.text("rack"), Owner: q.text("owner"), Image: q.text("image"), Match: q.text("match"), After: q.text("after"),
		Limit: q.number("limit", 0, 1, 100000), Inventory: q.flag("inventory"),
	}
	for _, s := range q.list("state") {
		f.States = append(f.States, registry.State(q.oneOf("state", s, states())))
	}
	for _, s := range q.list("live") {
		f.Live = append(f.Live, registry.LiveState(q.oneOf("live", s, liveStates())))
	}
	if err := q.problem(); err != nil {
		a.fail(w, r, err)
		return
	}
	ask := f
	if f.Limit > 0 {
		ask.Limit++ // one more says whether there is a next page
	}
	hosts, err := a.o.Store.Hosts(r.Context(), ask)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if f.Limit > 0 && len(hosts) > f.Limit {
		hosts = hosts[:f.Limit]
		nextPage(w, r, hosts[f.Limit-1].SN)
	}
	list := make([]any, len(hosts))
	for i := range hosts {
		list[i] = shown(who(r), &hosts[i])
	}
	writeJSON(w, http.StatusOK, list)
}

// nextPage names the page that follows (RFC 8288).
func nextPage(w http.ResponseWriter, r *http.Request, after string) {
	v := r.URL.Query()
	v.Set("after", after)
	next := url.URL{Path: r.URL.Path, RawQuery: v.Encode()}
	w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
}

func states() []string {
	return []string{
		string(registry.New), string(registry.Known), string(registry.Ordered), string(registry.Installing),
		string(registry.Installed), string(registry.Failed), string(registry.Lost),
	}
}

func liveStates() []string {
	return []string{string(registry.LiveStarting), string(registry.LiveRunning), string(registry.LiveFailed), string(registry.LiveLost)}
}

func (a *API) getHost(w http.ResponseWriter, r *http.Request) {
	sn := r.PathValue("sn")
	h, err := a.o.Store.Host(r.Context(), sn)
	if err != nil {
		a.fail(w, r, missing(err, noHost, sn))
		return
	}
	if !who(r).legacy && matchesAny(r.Header.Values("If-None-Match"), hostETag(h)) {
		w.Header().Set("ETag", hostETag(h))
		w.WriteHeader(http.StatusNotModified)
		return
	}
	writeHost(w, r, http.StatusOK, h)
}

// postHost creates or replaces a host, as the old service does. Where only its five fields are given, the others stay: old
// scripts must not erase what they do not know.
func (a *API) postHost(w http.ResponseWriter, r *http.Request) {
	data, err := readBody(w, r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	wanted, err := registry.DecodeHost(data)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(data, &given); err != nil {
		a.fail(w, r, refuse(http.StatusBadRequest, "", "a JSON object is wanted: %v", err))
		return
	}
	old := true
	for name := range given {
		if slices.Contains(oldFields(), name) {
			continue
		}
		old = false
		if who(r).legacy {
			a.fail(w, r, refuse(http.StatusForbidden, name, "without a token only %s can be written", strings.Join(oldFields(), ", ")))
			return
		}
	}
	var h *registry.Host
	created := false
	if old {
		h, created, err = a.putOld(r, wanted)
	} else {
		h, created, err = a.o.Store.PutHost(r.Context(), wanted, who(r).name, 0)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.wroteHost(w, r, h, created)
}

func (a *API) wroteHost(w http.ResponseWriter, r *http.Request, h *registry.Host, created bool) {
	if !created {
		writeHost(w, r, http.StatusOK, h)
		return
	}
	w.Header().Set("Location", "/api/v1/servers/"+url.PathEscape(h.SN))
	writeHost(w, r, http.StatusCreated, h)
}

// putOld writes the five old fields of a host, which is made if there is none.
func (a *API) putOld(r *http.Request, h registry.Host) (*registry.Host, bool, error) {
	patch, err := json.Marshal(map[string]string{"hostname": h.Hostname, "ip": h.IP, "netmask": h.Netmask, "gw": h.GW})
	if err != nil {
		return nil, false, fmt.Errorf("encode host: %w", err)
	}
	if err := registry.ValidateHost(&h); err != nil {
		return nil, false, err
	}
	for {
		got, err := a.o.Store.PatchHost(r.Context(), h.SN, patch, who(r).name, 0)
		if !errors.Is(err, registry.ErrNotFound) {
			return got, false, err
		}
		got, created, err := a.o.Store.PutHost(r.Context(), h, who(r).name, registry.MustNotExist)
		if !errors.Is(err, registry.ErrConflict) {
			return got, created, err
		} // somebody has made it meanwhile
	}
}

// putHost replaces a host, or creates it. One that is there is replaced only by who has seen it.
func (a *API) putHost(w http.ResponseWriter, r *http.Request) {
	sn := r.PathValue("sn")
	data, err := readBody(w, r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	wanted, err := registry.DecodeHost(data)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if wanted.SN == "" {
		wanted.SN = sn
	}
	if wanted.SN != sn {
		a.fail(w, r, refuse(http.StatusUnprocessableEntity, "sn", "it is %q, and the address says %q", wanted.SN, sn))
		return
	}
	revision, err := a.precondition(r, sn, registry.MustNotExist)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	h, created, err := a.o.Store.PutHost(r.Context(), wanted, who(r).name, revision)
	if err != nil {
		a.fail(w, r, changed(r, err))
		return
	}
	a.wroteHost(w, r, h, created)
}

// changed turns a conflict into the status that the request's own condition asks for: 412, or 428 (RFC 6585, 3) where it
// had none and the host is there.
func changed(r *http.Request, err error) error {
	switch {
	case !errors.Is(err, registry.ErrConflict):
		return err
	case r.Header.Get("If-Match") != "":
		return refuse(http.StatusPreconditionFailed, "", "%s", err.Error())
	case r.Header.Get("If-None-Match") != "":
		return refuse(http.StatusPreconditionFailed, "", "the host is there already")
	}
	return refuse(http.StatusPreconditionRequired, "", "the host is there already: send If-Match with the ETag that it was read with, or change single fields with PATCH")
}

func (a *API) patchHost(w http.ResponseWriter, r *http.Request) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Header.Get("Content-Type") == "":
	case err == nil && slices.Contains([]string{"application/merge-patch+json", "application/json", "application/x-www-form-urlencoded"}, media):
		// the last is what curl -d says of anything
	default:
		w.Header().Set("Accept-Patch", "application/merge-patch+json")
		a.fail(w, r, refuse(http.StatusUnsupportedMediaType, "", "a change is a JSON merge patch (application/merge-patch+json, RFC 7396), not %s", media))
		return
	}
	data, err := readBody(w, r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	revision, err := a.precondition(r, r.PathValue("sn"), 0)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	h, err := a.o.Store.PatchHost(r.Context(), r.PathValue("sn"), data, who(r).name, revision)
	if err != nil {
		a.fail(w, r, missing(changed(r, err), noHost, r.PathValue("sn")))
		return
	}
	writeHost(w, r, http.StatusOK, h)
}

func (a *API) deleteHost(w http.ResponseWriter, r *http.Request) {
	sn := r.PathValue("sn")
	if len(r.Header.Values("If-Match")) > 0 && !who(r).legacy {
		revision, err := a.precondition(r, sn, 0)
		if err == nil && revision > 0 {
			var h *registry.Host
			if h, err = a.o.Store.Host(r.Context(), sn); err == nil && h.Revision != revision {
				err = refuse(http.StatusPreconditionFailed, "", "its revision is %d, and you have seen %d: read it again", h.Revision, revision)
			}
		}
		if err != nil {
			a.fail(w, r, missing(err, noHost, sn))
			return
		}
	}
	if err := a.o.Store.DeleteHost(r.Context(), sn, who(r).name); err != nil {
		a.fail(w, r, missing(err, noHost, sn))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// precondition turns If-Match and If-None-Match (RFC 9110, 13.1) into the revision that the registry is to demand; without
// either it is otherwise.
func (a *API) precondition(r *http.Request, sn string, otherwise int64) (int64, error) {
	match, none := r.Header.Values("If-Match"), r.Header.Values("If-None-Match")
	switch {
	case len(match) == 0 && len(none) == 0:
		return otherwise, nil
	case len(match) == 0:
		if strings.Join(none, ",") != "*" {
			return 0, refuse(http.StatusBadRequest, "", "If-None-Match can be * here: the host must not be there yet")
		}
		return registry.MustNotExist, nil
	}
	if revision, ok := single(match); ok {
		return revision, nil
	}
	h, err := a.o.Store.Host(r.Context(), sn)
	if errors.Is(err, registry.ErrNotFound) {
		return 0, refuse(http.StatusPreconditionFailed, "", noHost, sn)
	}
	if err != nil {
		return 0, err
	}
	if !matchesStrongly(match, hostETag(h)) {
		return 0, refuse(http.StatusPreconditionFailed, "", "its ETag is %s, and If-Match has another: read it again", hostETag(h))
	}
	return h.Revision, nil
}

// single reads If-Match with one ETag, which the registry can check by itself.
func single(match []string) (int64, bool) {
	text := strings.TrimSpace(strings.Join(match, ","))
	if len(text) < 3 || text[0] != '"' || text[len(text)-1] != '"' {
		return 0, false
	}
	n, err := strconv.ParseInt(text[1:len(text)-1], 10, 64)
	return n, err == nil && n > 0
}

// etags splits the values of a header into entity tags.
func etags(values []string) []string {
	var list []string
	for _, v := range values {
		for _, tag := range strings.Split(v, ",") {
			list = append(list, strings.TrimSpace(tag))
		}
	}
	return list
}

// matchesStrongly is the comparison of If-Match (RFC 9110, 13.1.1): a weak tag matches nothing.
func matchesStrongly(values []string, tag string) bool {
	return slices.ContainsFunc(etags(values), func(t string) bool { return t == "*" || t == tag })
}

// matchesAny is the comparison of If-None-Match (RFC 9110, 13.1.2), to which weak tags are as good.
func matchesAny(values []string, tag string) bool {
	return slices.ContainsFunc(etags(values), func(t string) bool { return t == "*" || strings.TrimPrefix(t, "W/") == tag })
}
