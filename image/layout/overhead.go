package layout

// Sizes of what md and LVM keep for themselves. mdadm and LVM have the last word when arrays and groups are made; what is here
// is never more than what they give.

const defaultChunk = 512 * kib // mdadm's

// mdUsable is what an array has of a member of size bytes, as mdadm reserves it (mdadm 4.2, super1.c: validate_geometry1 and
// choose_bm_space): a superblock, a bitmap, and with metadata at the beginning room for reshaping of about a thousandth.
func mdUsable(size int64, metadata string, chunk int64) int64 {
	const sector = 512
	sectors := size / sector
	var bitmap int64
	switch {
	case sectors < 64*2:
	case sectors-64*2 >= 200<<21:
		bitmap = 128 * 2
	case sectors-4*2 > 8<<21:
		bitmap = 64 * 2
	default:
		bitmap = 4 * 2
	}
	if metadata == "1.0" {
		return max(down(sectors, 8)-(8*2+8+bitmap), 0) * sector
	}
	headroom := int64(128 << 11)
	for headroom<<10 > sectors && headroom/2 >= chunk/kib*2*2 {
		headroom /= 2
	}
	return max(sectors-up(12*2+bitmap+headroom, 2*kib), 0) * sector
}

// arraySize is what an array of members of these sizes has, spares not counted.
func arraySize(level int, metadata string, chunk int64, members []int64, spares int) int64 {
	if chunk == 0 {
		chunk = defaultChunk
	}
	round := chunk
	if level == 1 {
		round = 64 * kib
	}
	n := int64(len(members) - spares)
	var sum, least int64
	for i, m := range members {
		each := down(mdUsable(m, metadata, chunk), round)
		sum += each
		if i == 0 || each < least {
			least = each
		}
	}
	switch level {
	case 0:
		return sum
	case 5:
		return least * (n - 1)
	case 6:
		return least * (n - 2)
	case 10:
		return down(least*n/2, round)
	}
	return least
}

// stripe is the width of an array's stripe in bytes, to which LVM aligns; 0 for none.
func stripe(a Array, members int) int64 {
	chunk := a.Chunk.fixed()
	if chunk == 0 {
		chunk = defaultChunk
	}
	n := int64(members - a.Spares)
	switch a.Level {
	case 0:
		return chunk * n
	case 5:
		return chunk * (n - 1)
	case 6:
		return chunk * (n - 2)
	case 10:
		return chunk * max(n/2, 1)
	}
	return 0
}

// physicalExtents are the extents of a physical volume of size bytes: LVM's metadata takes its first MiB, or what makes
// the extents begin with a stripe.
func physicalExtents(size, extent, stripe int64) int64 {
	begin := int64(mib)
	if stripe > 0 && begin%stripe != 0 {
		begin = up(begin, stripe)
	}
	return max(size-begin, 0) / extent
}

// poolMetadata is the size of a thin pool's metadata: 64 bytes for each chunk of 64 KiB, as lvmthin(7) counts, within bounds at which
// LVM takes larger chunks.
func poolMetadata(size, extent int64) int64 {
	return up(min(max(size/1024, 4*mib), 1<<30), extent)
}
