package api

import (
	"context"
	"net/http"

	"imgbuild/server/swarm"
)

// Swarm is what the API needs of who plans transfers.
type Swarm interface {
	View(image string) []swarm.View
	Rates() (r swarm.Rates, own bool)
	SetRates(ctx context.Context, r swarm.Rates) error
	ResetRates(ctx context.Context) error
}

// ratesView are the limits that hold.
type ratesView struct {
	swarm.Rates
	// Own is true if somebody has set them, and false if they are the configuration's.
	Own bool `json:"own"`
}

func (a *API) swarm(w http.ResponseWriter, r *http.Request) {
	q := query{values: r.URL.Query()}
	image := q.text("image")
	if err := q.problem(); err != nil {
		a.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, a.o.Swarm.View(image))
}

func (a *API) rates(w http.ResponseWriter, _ *http.Request) {
	rates, own := a.o.Swarm.Rates()
	writeJSON(w, http.StatusOK, ratesView{rates, own})
}

func (a *API) setRates(w http.ResponseWriter, r *http.Request) {
	var n swarm.Rates
	if err := decode(w, r, &n); err != nil {
		a.fail(w, r, err)
		return
	}
	for _, f := range []struct {
		name string
		rate int64
	}{{"global", n.Global}, {"per_subnet", n.PerSubnet}, {"per_machine", n.PerMachine}} {
		if err := swarm.CheckRate(f.rate); err != nil {
			a.fail(w, r, refuse(http.StatusUnprocessableEntity, f.name, "%s", err.Error()))
			return
		}
	}
	if err := a.o.Swarm.SetRates(r.Context(), n); err != nil {
		a.fail(w, r, err)
		return
	}
	a.o.Log.Info("rates set", "global", n.Global, "per_subnet", n.PerSubnet, "per_machine", n.PerMachine, "by", who(r).name)
	a.rates(w, r)
}

func (a *API) resetRates(w http.ResponseWriter, r *http.Request) {
	if err := a.o.Swarm.ResetRates(r.Context()); err != nil {
		a.fail(w, r, err)
		return
	}
	a.o.Log.Info("rates are the configuration's again", "by", who(r).name)
	a.rates(w, r)
}
