//go:build !integration

package registry

import "testing"

// postgresDSN skips: PostgreSQL is an integration test's.
func postgresDSN(t testing.TB) string {
	t.Helper()
	t.Skip("go test -tags integration runs this on PostgreSQL too")
	return ""
}

func stopCluster() {}
