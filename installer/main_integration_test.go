//go:build integration

package installer

import (
	"testing"

	"imgbuild/installer/looptest"
)

func TestMain(m *testing.M) { looptest.Main(m) }
