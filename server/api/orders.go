package api

import (
	"net/http"
	"net/url"
	"time"

	"imgbuild/server/registry"
)

// newOrder is what a person says when ordering.
type newOrder struct {
	SN     string   `json:"sn"`
	Image  string   `json:"image"`
	Reason string   `json:"reason"`
	Disk   string   `json:"disk"`
	Wipe   []string `json:"wipe"`
	Done   string   `json:"done"`
	// Expires is when nobody needs to come any more.
	Expires time.Time `json:"expires"`
	// Protected names a protected host for the second time.
	Protected string `json:"protected"`
}

func (a *API) createOrder(w http.ResponseWriter, r *http.Request) {
	var n newOrder
	if err := decode(w, r, &n); err != nil {
		a.fail(w, r, err)
		return
	}
	o, names, err := a.order(r, n)
	if err == nil {
		var made *registry.Order
		if made, err = a.o.Store.CreateOrder(r.Context(), o, names); err == nil {
			w.Header().Set("Location", "/api/v1/orders/"+url.PathEscape(made.ID))
			writeJSON(w, http.StatusCreated, made)
			return
		}
	}
	a.fail(w, r, err)
}

// order completes what a person says: the release by its whole name, when it expires, whose order it is.
func (a *API) order(r *http.Request, n newOrder) (registry.Order, int, error) {
	o := registry.Order{SN: n.SN, Image: n.Image, Reason: n.Reason, Disk: n.Disk, Wipe: n.Wipe, Done: n.Done, Expires: n.Expires, By: who(r).name}
	if n.SN == "" {
		return o, 0, refuse(http.StatusUnprocessableEntity, "sn", "it is missing: the serial number of the machine that is to be installed")
	}
	names := 1
	switch n.Protected {
	case "":
	case n.SN:
		names = 2
	default:
		return o, 0, refuse(http.StatusUnprocessableEntity, "protected", "it names another host than sn; a protected host is named twice")
	}
	h, err := a.o.Store.Host(r.Context(), n.SN)
	if err != nil {
		return o, 0, missing(err, noHost+": write it down first", n.SN)
	}
	if o.Image == "" {
		o.Image = h.Image
	}
	if o.Image == "" {
		return o, 0, refuse(http.StatusUnprocessableEntity, "image", "it is missing, and the host has none")
	}
	release, err := a.o.Catalogue.Resolve(r.Context(), o.Image)
	if err != nil {
		return o, 0, refuse(http.StatusUnprocessableEntity, "image", "%s", err.Error())
	}
	o.Image = release.Ref()
	if o.Expires.IsZero() {
		o.Expires = a.o.Now().Add(a.o.OrderExpiry)
	}
	return o, names, nil
}

func (a *API) listOrders(w http.ResponseWriter, r *http.Request) {
	q := query{values: r.URL.Query()}
	f := registry.OrderFilter{SN: q.text("sn"), Limit: q.number("limit", 1000, 1, 100000)}
	for _, s := range q.list("state") {
		f.States = append(f.States, registry.OrderState(q.oneOf("state", s, orderStates())))
	}
	if err := q.problem(); err != nil {
		a.fail(w, r, err)
		return
	}
	list, err := a.o.Store.Orders(r.Context(), f)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, notNil(list))
}

func orderStates() []string {
	return []string{
		string(registry.OrderOpen), string(registry.OrderConsumed), string(registry.OrderDone),
		string(registry.OrderFailed), string(registry.OrderCancelled), string(registry.OrderExpired),
	}
}

func (a *API) getOrder(w http.ResponseWriter, r *http.Request) {
	o, err := a.o.Store.Order(r.Context(), r.PathValue("id"))
	if err != nil {
		a.fail(w, r, missing(err, "there is no order %s", r.PathValue("id")))
		return
	}
	writeJSON(w, http.StatusOK, o)
}

func (a *API) cancelOrder(w http.ResponseWriter, r *http.Request) {
	q := query{values: r.URL.Query()}
	reason := q.text("reason")
	err := q.problem()
	if err == nil {
		err = a.o.Store.CancelOrder(r.Context(), r.PathValue("id"), who(r).name, reason)
	}
	if err != nil {
		a.fail(w, r, missing(err, "there is no order %s", r.PathValue("id")))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// notNil makes an empty list [] in JSON, not null.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
