package image

// Where an image keeps its profile's scripts for the machine, below its root: those that the installer runs in the
// installed tree, and those that run when the system starts for the first time. They run in the order of their names, and
// are vouched for by the image's signature as every other file is.
const (
	InstallScripts   = "usr/lib/imgbuild/install.d"
	FirstBootScripts = "usr/lib/imgbuild/first-boot.d"
)
