package api

import (
	"net/http"

	"imgbuild/image/plan"
	"imgbuild/image/torrent"
	"imgbuild/server/registry"
)

// Access says who may use a route.
type Access string

// Who may use a route. A role includes those before it.
const (
	Public  Access = "public"  // anybody
	Machine Access = "machine" // the handler asks for the boot's nonce, or the installation's token
	Read    Access = Access(registry.RoleRead)
	Operate Access = Access(registry.RoleOperate)
	Admin   Access = Access(registry.RoleAdmin)
)

// Route is one thing that is served.
type Route struct {
	Pattern string // as http.ServeMux takes it
	Access  Access
	// Legacy opens the route to old scripts without a token, from the networks that the configuration names.
	Legacy  bool
	handler http.Handler
}

// Routes is everything that is served.
func (a *API) Routes() []Route {
	h := a.o.Handlers
	legacy := true
	return []Route{
		{"GET /healthz", Public, false, http.HandlerFunc(a.health)},
		{"GET /readyz", Public, false, http.HandlerFunc(a.ready)},
		{"GET /openapi.json", Public, false, http.HandlerFunc(a.document)},
		{"GET /metrics", Read, false, a.o.Metrics.handler()},

		{"GET /boot/ipxe", Public, false, h.IPXE},
		{"GET /boot/grub.cfg", Public, false, h.GRUB},
		{"GET /boot/loader/{file}", Public, false, h.Loaders},
		{"GET /images/{name}/{version}/{file}", Public, false, h.Images},
		{"GET /torrent/{name}/{file}", Public, false, h.Torrent},
		{"GET " + torrent.AnnouncePath, Public, false, h.Announce},
		{"GET /scrape", Public, false, h.Scrape},
		{"POST " + plan.ClaimPath, Machine, false, h.Claim},
		{"POST " + plan.EventsPath, Machine, false, h.Events},
		{"POST " + plan.SwarmPath, Machine, false, h.Swarm},
		{"POST " + plan.BootedPath, Machine, false, h.Booted},

		{"GET /api/v1/servers", Read, legacy, http.HandlerFunc(a.listHosts)},
		{"POST /api/v1/servers", Operate, legacy, http.HandlerFunc(a.postHost)},
		{"GET /api/v1/servers/{sn}", Read, legacy, http.HandlerFunc(a.getHost)},
		{"PUT /api/v1/servers/{sn}", Operate, false, http.HandlerFunc(a.putHost)},
		{"PATCH /api/v1/servers/{sn}", Operate, false, http.HandlerFunc(a.patchHost)},
		{"DELETE /api/v1/servers/{sn}", Operate, legacy, http.HandlerFunc(a.deleteHost)},

		{"GET /api/v1/orders", Read, false, http.HandlerFunc(a.listOrders)},
		{"POST /api/v1/orders", Operate, false, http.HandlerFunc(a.createOrder)},
		{"GET /api/v1/orders/{id}", Read, false, http.HandlerFunc(a.getOrder)},
		{"GET /api/v1/orders/{id}/outlook", Read, false, http.HandlerFunc(a.outlook)},
		{"DELETE /api/v1/orders/{id}", Operate, false, http.HandlerFunc(a.cancelOrder)},
		{"GET /api/v1/queue", Read, false, http.HandlerFunc(a.queue)},
		{"GET /api/v1/events", Read, false, http.HandlerFunc(a.events)},
		{"GET /api/v1/images", Read, false, http.HandlerFunc(a.images)},
		{"GET /api/v1/swarm", Read, false, http.HandlerFunc(a.swarm)},
		{"GET /api/v1/rates", Read, false, http.HandlerFunc(a.rates)},
		{"PUT /api/v1/rates", Operate, false, http.HandlerFunc(a.setRates)},
		{"DELETE /api/v1/rates", Operate, false, http.HandlerFunc(a.resetRates)},
		{"GET /api/v1/leases", Read, false, http.HandlerFunc(a.leases)},

		{"GET /api/v1/tokens", Admin, false, http.HandlerFunc(a.listTokens)},
		{"POST /api/v1/tokens", Admin, false, http.HandlerFunc(a.createToken)},
		{"DELETE /api/v1/tokens/{name}", Admin, false, http.HandlerFunc(a.revokeToken)},
	}
}
