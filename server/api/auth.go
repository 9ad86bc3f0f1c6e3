package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"imgbuild/server/registry"
)

// caller is who asks, once that is known.
type caller struct {
	name   string // for the diary
	legacy bool   // an old script without a token
	secret string // of the token
}

type callerKey struct{}

// who returns the caller that guard has let in.
func who(r *http.Request) caller {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c
}

// guard lets in who may use the route, and nobody else.
func (a *API) guard(route Route) http.Handler {
	if route.Access == Public || route.Access == Machine {
		return route.handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := a.admit(w, r, route)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		route.handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// admit finds out who asks and whether the route is open to them.
func (a *API) admit(w http.ResponseWriter, r *http.Request, route Route) (caller, error) {
	client := clientAddr(r)
	secret, given := bearer(r)
	switch {
	case !given && route.Legacy && a.isLegacy(client):
		return caller{name: "old script at " + client.String(), legacy: true}, nil
	case !given:
		w.Header().Set("WWW-Authenticate", `Bearer realm="imgserve"`)
		return caller{}, refuse(http.StatusUnauthorized, "", "this needs an API token: send Authorization: Bearer TOKEN (imgserve token create makes one)")
	case a.o.TokensOverTLS && r.TLS == nil && !client.IsLoopback():
		return caller{}, refuse(http.StatusForbidden, "", "tokens are taken over HTTPS only: use %s; this one has just crossed the network in the clear, so replace it", a.o.HTTPS)
	}
	if wait, blocked := a.limiter.blocked(client, secret); blocked {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())+1))
		return caller{}, refuse(http.StatusTooManyRequests, "", "too many wrong tokens came from %s; wait %d seconds", client, int(wait.Seconds())+1)
	}
	t, err := a.authenticate(r.Context(), secret)
	if errors.Is(err, errToken) {
		a.limiter.failed(client)
		a.o.Metrics.denied.Inc()
		w.Header().Set("WWW-Authenticate", `Bearer realm="imgserve", error="invalid_token"`)
		return caller{}, refuse(http.StatusUnauthorized, "", "the token is not known: it may have expired, been revoked or been cut off")
	}
	if err != nil {
		return caller{}, err
	}
	a.limiter.good(secret)
	if rank(Access(t.Role)) < rank(route.Access) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="imgserve", error="insufficient_scope", scope=%q`, route.Access))
		return caller{}, refuse(http.StatusForbidden, "", "the token %s has the role %s, and this needs %s", t.Name, t.Role, route.Access)
	}
	return caller{name: t.Name, secret: secret}, nil
}

// errToken is a token that nobody has, any more or ever.
var errToken = errors.New("there is no such token")

func (a *API) authenticate(ctx context.Context, secret string) (*registry.Token, error) {
	t, err := a.o.Store.Authenticate(ctx, secret)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, errToken
	}
	return t, err
}

// rank orders the roles; what is no role at all opens nothing.
func rank(a Access) int {
	switch a {
	case Read:
		return 1
	case Operate:
		return 2
	case Admin:
		return 3
	}
	return 0
}

// bearer returns the token of a request (RFC 6750, 2.1) and whether any credentials were given.
func bearer(r *http.Request) (secret string, given bool) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", false
	}
	scheme, secret, _ := strings.Cut(values[0], " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return "", true
	}
	return strings.TrimSpace(secret), true
}

// clientAddr is where a request comes from: the connection's other end, whatever headers say.
func clientAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

func (a *API) isLegacy(client netip.Addr) bool {
	for _, p := range a.o.LegacyClients {
		if p.Contains(client) {
			return true
		}
	}
	return false
}

func digest(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }
