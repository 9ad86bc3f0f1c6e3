package profiles

// scriptList is one of a profile's lists of scripts.
type scriptList struct {
	key     string
	where   string // who shows the scripts' names
	scripts []MachineScript
}

// allScripts are the profile's scripts of all kinds, as far as they are the same.
func (p *Profile) allScripts() []scriptList {
	build := make([]MachineScript, 0, len(p.Scripts))
	for _, s := range p.Scripts {
		build = append(build, MachineScript{Name: s.Name, Run: s.Run, File: s.File})
	}
	return []scriptList{
		{"scripts", "the build", build},
		{"install_scripts", "the machine", p.InstallScripts},
		{"first_boot_scripts", "the machine", p.FirstBootScripts},
	}
}
