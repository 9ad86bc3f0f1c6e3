//go:build integration

package storage

import (
	"testing"

	"imgbuild/installer/looptest"
)

func TestMain(m *testing.M) { looptest.Main(m) }
