//go:build integration

package initramfs

import (
	"testing"

	"imgbuild/initramfs/installerbin"
)

// BenchmarkInitramfsWithTheInstaller makes the initramfs of a real kernel for each class, with the installer that make
// build has embedded, and reports its size.
func BenchmarkInitramfsWithTheInstaller(b *testing.B) {
	installer, err := installerbin.Get("x86_64")
	if err != nil {
		b.Skip(err)
	}
	for class, limit := range map[string]float64{"server": 32, "virtual": 12} {
		b.Run(class, func(b *testing.B) {
			o := realOptions(b, class)
			o.Installer = installer
			var report Report
			for b.Loop() {
				_, report = buildTo(b, o)
			}
			b.ReportMetric(mib(report.Packed), "MiB")
			b.ReportMetric(limit, "limit-MiB")
			b.ReportMetric(mib(int64(len(installer))), "installer-MiB")
			b.ReportMetric(mib(report.Raw), "unpacked-MiB")
			b.ReportMetric(float64(len(report.Modules)), "modules")
		})
	}
}
