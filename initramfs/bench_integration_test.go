//go:build integration

package initramfs

import (
	"testing"

	"imgbuild/initramfs/installerbin"
)

// BenchmarkInitramfsWithTheInstaller makes the initramfs of a real kernel for each class, with the installer that a
// profile gets with it, as make build has embedded it, and reports its size.
func BenchmarkInitramfsWithTheInstaller(b *testing.B) {
	for class, limit := range map[string]float64{"server": 32, "virtual": 12} {
		b.Run(class, func(b *testing.B) {
			installer, err := installerbin.Get("x86_64", class == "server")
			if err != nil {
				b.Skip(err)
			}
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
