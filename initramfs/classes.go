package initramfs

// class is a set of modules, told as data. A module belongs to it if one of dirs or names has it and none of not does.
type class struct {
	name string
	// asked is a class that the caller chose: that it finds nothing is an error.
	asked bool
	// dirs are directories below the kernel release's directory (kernel/drivers/ata), with everything in them.
	dirs []string
	// names are module names; path.Match patterns; "-" and "_" are the same. A name that the kernel does not have is
	// tolerated: kernels differ.
	names []string
	// not are module names or directories that dirs would bring in although no server has the device, or although it
	// is a switch's, a test's or an infrastructure's that the installer has no use for.
	not []string
}

// virtualClass is the name of the classes for machines that are a hypervisor's.
const virtualClass = "virtual"

// baseClass is in every image: file systems, the platform, keyboard, watchdogs.
func baseClass() class {
	return class{
		name: "base",
		names: []string{
			// file systems: targets, the rootfs, the live image's layers, the ESP with the tables its names need
			"ext4", "xfs", "vfat", "nls_cp437", "nls_iso8859_1", "nls_ascii", "nls_utf8", "squashfs", "overlay", "loop", "isofs", "efivarfs",
			// checksums that file systems ask the crypto layer for by name
			"crc32c_generic", "crc32c_intel", "crct10dif_pclmul", "crc32_pclmul",
			// sockets of the DHCP client; a module in some kernels
			"af_packet", "ipv6",
			// the machine: SMBIOS, power button, clock
			"dmi_sysfs", "button", "rtc_cmos", "qemu_fw_cfg",
			// watchdogs of hypervisors
			"i6300esb", "ib700wdt", "xen_wdt",
			// keyboards: a person in front of the rack, a BMC's or a hypervisor's virtual one
			"ehci_pci", "ehci_hcd", "ohci_pci", "uhci_hcd", "xhci_pci", "xhci_pci_renesas", "usbhid", "hid_generic", "hid_hyperv", "hyperv_keyboard", "i8042", "atkbd",
			// hypervisors' buses
			"virtio_pci", "virtio_mmio", "virtio_rng", "virtio_console", "virtio_balloon", "hv_vmbus", "hv_utils",
		},
	}
}

// hardwareClass comes with every class but the virtual ones: what a server's board has beside disks and network.
func hardwareClass() class {
	return class{
		name: "hardware",
		names: []string{
			"ipmi_si", "ipmi_devintf", "ipmi_ssif", "acpi_ipmi", "tpm_tis", "tpm_crb",
			// watchdogs; lpc_ich and i2c_i801 make the device that iTCO_wdt drives
			"iTCO_wdt", "lpc_ich", "i2c_i801", "wdat_wdt", "hpwdt", "sp5100_tco", "ipmi_watchdog",
		},
	}
}

// softwareStorage are the block layers above disks, in both storage classes.
func softwareStorage() []string {
	return []string{"dm_mod", "dm_mirror", "dm_snapshot", "dm_thin_pool", "md_mod", "raid0", "raid1", "raid10"}
}

// virtualStorage are the disks that hypervisors offer, and the emulated ones.
func virtualStorage() []string {
	return []string{
		"virtio_blk", "virtio_scsi", "xen_blkfront", "xen_scsifront", "vmw_pvscsi", "hv_storvsc", "mptspi",
		"ahci", "ata_piix", "ata_generic", "nvme", "sd_mod", "sr_mod", "cdrom", "usb_storage", "uas",
	}
}

// storageClasses are the values of Options.Storage.
func storageClasses() []class {
	return []class{
		{name: virtualClass, names: append(softwareStorage(), virtualStorage()...)},
		{
			name: "server",
			dirs: []string{
				"kernel/drivers/ata", "kernel/drivers/scsi", "kernel/drivers/message/fusion", "kernel/drivers/nvme/host", "kernel/drivers/usb/storage",
			},
			names: append(append(softwareStorage(), virtualStorage()...),
				// by name, for kernels and add-on packages that keep them elsewhere
				"megaraid_sas", "mpt2sas", "mpt3sas", "mpi3mr", "hpsa", "cciss", "smartpqi", "aacraid", "arcmsr", "3w_9xxx", "3w_sas", "lpfc", "qla2xxx", "bfa",
				"fnic", "snic", "isci", "mvsas", "mvumi", "hptiop", "ipr", "pm80xx", "esas2r", "stex", "be2iscsi", "qedf", "qedi", "mtip32xx", "rsxx", "skd",
				// NVMe drives behind Intel's volume management
				"vmd",
				// SD cards and eMMC that boot hypervisors and microservers
				"mmc_block", "sdhci_pci", "sdhci_acpi",
				// persistent memory as a disk
				"nfit", "nd_pmem",
				"dm_crypt", "dm_raid", "raid456", "dm_multipath", "dm_service_time", "dm_queue_length", "dm_round_robin",
			),
			not: []string{
				// devices that are not disks: tapes, media changers; tests; parallel-port and PC card adapters
				"st", "osst", "ch", "scsi_debug", "kernel/drivers/scsi/pcmcia", "pata_pcmcia", "pata_legacy", "pata_isapnp",
				// Fibre Channel over Ethernet and iSCSI in software are set up by daemons that the installer has not
				"fcoe", "bnx2fc", "nvme_rdma", "nvme_tcp",
				// card readers of the 1990s
				"ums_*",
			},
		},
	}
}

// virtualNetwork are the network cards that hypervisors offer, and the emulated ones.
func virtualNetwork() []string {
	return []string{"virtio_net", "vmxnet3", "hv_netvsc", "xen_netfront", "e1000", "e1000e", "igb", "igbvf", "ixgbevf", "iavf", "ena", "gve", "8139cp"}
}

// stackedLinks are links made of links: bonds, teams, VLANs.
func stackedLinks() []string {
	return []string{"bonding", "8021q"}
}

// networkClasses are the values of Options.Network.
func networkClasses() []class {
	return []class{
		{name: virtualClass, names: append(stackedLinks(), virtualNetwork()...)},
		{
			name: "server",
			dirs: []string{"kernel/drivers/net/ethernet", "kernel/drivers/net/phy", "kernel/drivers/net/mdio", "kernel/drivers/net/team"},
			names: append(append(stackedLinks(), virtualNetwork()...),
				"bnx2", "bnx2x", "bnxt_en", "tg3", "r8169", "igc", "ixgb", "ixgbe", "i40e", "ice", "fm10k", "idpf", "mlx4_en", "mlx5_core", "qede", "qlcnic", "netxen_nic",
				"cxgb4", "cxgb4vf", "enic", "be2net", "sfc", "nfp", "hns3", "hinic", "atlantic", "ionic", "mana", "amd_xgbe", "thunder_xgene", "ibmveth",
			),
			not: []string{
				// switches and their control planes
				"mlxsw_*", "prestera*", "kernel/drivers/net/ethernet/mellanox/mlxsw", "ocelot*", "mscc_*",
				// PC card, parallel and desktop cards of the 1990s
				"kernel/drivers/net/ethernet/8390", "kernel/drivers/net/ethernet/fujitsu", "kernel/drivers/net/ethernet/xircom",
				"kernel/drivers/net/ethernet/dec", "kernel/drivers/net/ethernet/3com", "kernel/drivers/net/ethernet/amd/pcnet32", "kernel/drivers/net/ethernet/smsc",
				"kernel/drivers/net/ethernet/packetengines", "kernel/drivers/net/ethernet/adaptec", "kernel/drivers/net/ethernet/sis", "kernel/drivers/net/ethernet/sun",
				"kernel/drivers/net/ethernet/natsemi", "kernel/drivers/net/ethernet/rdc", "kernel/drivers/net/ethernet/micrel", "kernel/drivers/net/ethernet/microchip",
				"nmclan_cs", "fealnx",
				// SPI, automotive and wireless-bridge parts
				"sfp_i2c", "spi_ks8995", "bcm87xx", "adin1100", "nxp_tja11xx", "nxp_c45_tja11xx",
			},
		},
	}
}

// companions are modules that another one only asks the kernel's usermode helper for (request_module). There is no
// helper in the initramfs, so modules.softdep is given what the source says.
func companions() map[string][]string {
	return map[string][]string{
		"mlx4_core": {"mlx4_en"}, // drivers/net/ethernet/mellanox/mlx4/main.c, mlx4_request_modules
	}
}
