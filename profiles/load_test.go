package profiles

import (
	"testing"
)

func TestEveryShippedProfileLoads(t *testing.T) {
	for _, name := range Shipped() {
		t.Run(name, func(t *testing.T) {
			p, err := Load(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if p.Name != name {
				t.Errorf("its name is %s", p.Name)
			}
		})
	}
}
