package plan

// Inventory is what a machine says of itself.
type Inventory struct {
	// Serial identifies the machine: SMBIOS's system, else chassis, else baseboard serial number; SerialSource says which.
	// Where none identifies it, Serial is empty and SerialProblem says why.
	Serial        string `json:"serial"`
	SerialSource  string `json:"serial_source,omitempty"` // system, chassis or baseboard
	SerialProblem string `json:"serial_problem,omitempty"`
	UUID          string `json:"uuid,omitempty"` // small letters; empty if unset or a known placeholder
	Vendor        string `json:"vendor,omitempty"`
	Product       string `json:"product,omitempty"`
	Firmware      string `json:"firmware"` // bios or uefi
	SecureBoot    bool   `json:"secure_boot,omitempty"`
	CPUs          int    `json:"cpus"`
	CPUModel      string `json:"cpu_model,omitempty"`
	MemoryBytes   int64  `json:"memory_bytes"`
	Disks         []Disk `json:"disks"`
	NICs          []NIC  `json:"nics"`
	BMC           *BMC   `json:"bmc,omitempty"`
	Kernel        string `json:"kernel,omitempty"`    // uname -r of the initramfs
	Installer     string `json:"installer,omitempty"` // the installer's version
}

// Disk is one disk of a machine.
type Disk struct {
	Path       string `json:"path"` // /dev/sda
	Model      string `json:"model,omitempty"`
	Serial     string `json:"serial,omitempty"`
	WWN        string `json:"wwn,omitempty"`
	SizeBytes  int64  `json:"size_bytes"`
	Transport  string `json:"transport,omitempty"` // nvme, sata, sas, usb, virtio, …
	Rotational bool   `json:"rotational,omitempty"`
	// Holds says what is on it, one line each: "partition 1: ext4, 1 GiB, label data". Empty is an empty disk.
	Holds []string `json:"holds,omitempty"`
}

// NIC is one network card of a machine.
type NIC struct {
	Name      string     `json:"name"`
	MAC       string     `json:"mac"`
	Driver    string     `json:"driver,omitempty"`
	PCI       string     `json:"pci,omitempty"` // 0000:00:03.0
	Link      bool       `json:"link"`
	SpeedMbit int        `json:"speed_mbit,omitempty"`
	Neighbour *Neighbour `json:"neighbour,omitempty"`
}

// Neighbour is what a switch says of the port by LLDP (IEEE 802.1AB).
type Neighbour struct {
	Chassis     string `json:"chassis"` // chassis ID
	Port        string `json:"port"`    // port ID
	System      string `json:"system,omitempty"`
	Description string `json:"description,omitempty"` // of the port
	VLAN        int    `json:"vlan,omitempty"`        // port VLAN ID (802.1Q)
}

// BMC is a machine's management controller.
type BMC struct {
	Address string `json:"address,omitempty"`
	Netmask string `json:"netmask,omitempty"`
	Gateway string `json:"gateway,omitempty"`
	MAC     string `json:"mac,omitempty"`
}
