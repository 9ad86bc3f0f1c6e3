package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"imgbuild/image"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
)

// health says that the program runs: what else is wrong, a restart would not mend.
func (a *API) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// ready says whether machines and people can be served: the database answers, and the server is not stopping. The catalogue
// was read before the server began to listen.
func (a *API) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	select {
	case <-a.drained:
		a.fail(w, r, refuse(http.StatusServiceUnavailable, "", "the server is stopping"))
		return
	default:
	}
	if err := a.o.Store.Ping(ctx); err != nil {
		a.o.Log.Warn("not ready", "err", err)
		a.fail(w, r, refuse(http.StatusServiceUnavailable, "", "the database does not answer; the server's log says why"))
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}

func (a *API) document(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(a.openapi) // a client that has gone needs no answer
}

// imageView is a release as the API shows it.
type imageView struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Arch    string    `json:"arch,omitempty"`
	Distro  string    `json:"distro,omitempty"`
	Kernel  string    `json:"kernel,omitempty"`
	Bytes   int64     `json:"bytes,omitempty"` // of the root file system
	Built   time.Time `json:"built,omitzero"`
	Key     string    `json:"key,omitempty"`
	// Verified is true when every file has been read and is as the manifest says.
	Verified bool `json:"verified"`
	// Tools are the programs for disk layouts that its installer has.
	Tools   []string `json:"tools,omitempty"`
	Problem string   `json:"problem,omitempty"`
}

func viewOf(r releases.Release) imageView {
	v := imageView{
		Name: r.Name, Version: r.Version, Arch: r.Arch, Distro: r.Distro, Kernel: r.KernelRelease, Built: r.Created,
		Key: r.Key, Verified: r.Verified, Tools: r.Tools, Problem: r.Problem,
	}
	for _, f := range r.Files {
		if f.Name == image.RootfsFile {
			v.Bytes = f.Size
		}
	}
	return v
}

func (a *API) images(w http.ResponseWriter, _ *http.Request) {
	list := []imageView{}
	for _, r := range a.o.Catalogue.List() {
		list = append(list, viewOf(r))
	}
	writeJSON(w, http.StatusOK, list)
}

// queueView is who installs and who waits for it.
type queueView struct {
	Limits  registry.SlotLimits `json:"limits"`
	Running []registry.Order    `json:"running"`
	Waiting []registry.Order    `json:"waiting"` // in the order in which they will run
}

func (a *API) queue(w http.ResponseWriter, r *http.Request) {
	list, err := a.o.Store.Queue(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	v := queueView{a.o.Limits, []registry.Order{}, []registry.Order{}}
	for _, o := range list {
		if o.Place > 0 {
			v.Waiting = append(v.Waiting, o)
		} else {
			v.Running = append(v.Running, o)
		}
	}
	writeJSON(w, http.StatusOK, v)
}

func (a *API) leases(w http.ResponseWriter, r *http.Request) {
	list, err := a.o.Store.Leases(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, notNil(list))
}

// newToken is what a token is made of.
type newToken struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Expires time.Time `json:"expires"`
}

// madeToken is a token and, this once, its secret.
type madeToken struct {
	registry.Token
	Secret string `json:"secret"`
}

func (a *API) listTokens(w http.ResponseWriter, r *http.Request) {
	list, err := a.o.Store.Tokens(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, notNil(list))
}

func (a *API) createToken(w http.ResponseWriter, r *http.Request) {
	var n newToken
	if err := decode(w, r, &n); err != nil {
		a.fail(w, r, err)
		return
	}
	secret, t, err := a.o.Store.CreateToken(r.Context(), n.Name, registry.Role(n.Role), n.Expires)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.o.Log.Info("token made", "name", t.Name, "role", t.Role, "by", who(r).name)
	w.Header().Set("Location", "/api/v1/tokens/"+url.PathEscape(t.Name))
	writeJSON(w, http.StatusCreated, madeToken{*t, secret})
}

func (a *API) revokeToken(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if err := a.o.Store.RevokeToken(r.Context(), name); err != nil {
		a.fail(w, r, missing(err, "there is no token %s", name))
		return
	}
	a.o.Log.Info("token revoked", "name", name, "by", who(r).name)
	w.WriteHeader(http.StatusNoContent)
}
