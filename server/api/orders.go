package api

import (
	"errors"
	"net/http"
	"net/url"
	"time"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// newOrder is what a person says when ordering.
type newOrder struct {
	SN     string   `json:"sn"`
	Image  string   `json:"image"`
	Reason string   `json:"reason"`
	Disks  []string `json:"disks"`
	// Disk is disks with one, as older clients say it.
	Disk    string         `json:"disk"`
	Wipe    []string       `json:"wipe"`
	Unseal  []string       `json:"unseal"`
	Fresh   bool           `json:"fresh"`
	Layout  *layout.Layout `json:"layout"`
	Preview bool           `json:"preview"`
	Done    string         `json:"done"`
	// Transport is the way the root file system is to come; empty is the server's.
	Transport plan.Transport `json:"transport"`
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
	o := registry.Order{SN: n.SN, Image: n.Image, Reason: n.Reason, Disks: n.Disks, Wipe: n.Wipe, Unseal: n.Unseal, Fresh: n.Fresh, Layout: n.Layout,
		Preview: n.Preview, Done: n.Done, Transport: n.Transport, Expires: n.Expires, By: who(r).name}
	switch {
	case n.Disk != "" && len(n.Disks) > 0:
		return o, 0, refuse(http.StatusUnprocessableEntity, "disk", "disks names them already")
	case n.Disk != "":
		o.Disks = []string{n.Disk}
	}
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
	var firmware layout.Firmware
	if h.Inventory != nil {
		firmware = layout.Firmware(h.Inventory.Firmware)
	}
	declared := o.LayoutFor(h)
	if declared != nil && declared.Validate() != nil {
		return o, names, nil // the registry says what is wrong with it, field by field
	}
	if err := release.CanMake(declared, firmware); err != nil {
		return o, 0, refuse(http.StatusUnprocessableEntity, "layout", "%s", err.Error())
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

// outlook answers with what a preview has found: 404 without such an order, 409 for one that has found nothing (yet).
func (a *API) outlook(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	o, err := a.o.Store.Order(r.Context(), id)
	if err != nil {
		a.fail(w, r, missing(err, "there is no order %s", id))
		return
	}
	found, err := a.o.Store.Outlook(r.Context(), id)
	switch {
	case errors.Is(err, registry.ErrNotFound) && !o.Preview:
		err = refuse(http.StatusConflict, "", "order %s is for an installation, not for a preview", id)
	case errors.Is(err, registry.ErrNotFound) && o.Live():
		err = refuse(http.StatusConflict, "", "the machine has not made the preview of order %s yet: it is %s", id, o.State)
	case errors.Is(err, registry.ErrNotFound):
		err = refuse(http.StatusConflict, "", "there is no preview of order %s: it is %s", id, o.State)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, found)
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
