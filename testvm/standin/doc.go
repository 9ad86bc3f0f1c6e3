// Package standin makes the stand-in EL repository: a directory of real, signed RPMs with Enterprise Linux names, comps
// groups and metadata, for machines where no CentOS mirror can be reached.
//
// In comes the Debian archive, as the host's own apt client is configured to reach it. Out goes a dnf repository whose
// packages hold Debian's binaries: paths merged into /usr, dependencies translated, users, units and configuration set
// up by scriptlets the way EL's packages do it. recipe.txt says which Debian packages become which RPM and what
// is changed on the way; overlay/ holds the files that are ours; scriptlets/ what runs at installation.
//
// It never chooses a mirror, never changes the host's package database, never runs anything from the packages that it
// converts, and never pretends to be CentOS: /etc/os-release in the result says what it is.
package standin
