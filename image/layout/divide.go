package layout

// want is how much something that shares a space is to get, in bytes.
type want struct {
	amount
	least int64 // never less
	most  int64 // never more; 0 for no bound
	// yields: a percentage that has a least of its own gives way down to it where the space is too small for all.
	yields bool
}

// divide gives parts of total to wants in whole units, percentages being of base. It returns false, and the least that would do, where
// they do not fit.
func divide(total, base, unit int64, wants []want) (sizes []int64, need int64, ok bool) {
	sizes = make([]int64, len(wants))
	rest, sum := -1, int64(0)
	slack := make([]int64, len(wants))
	for i, w := range wants {
		least := up(w.least, unit)
		switch {
		case w.rest:
			rest, sizes[i] = i, least
		case w.percent > 0:
			sizes[i] = down(share(base, w.percent), unit)
			if w.most > 0 {
				sizes[i] = min(sizes[i], down(w.most, unit))
			}
			sizes[i] = max(sizes[i], least)
			if w.yields {
				slack[i] = sizes[i] - least
			}
		default:
			sizes[i] = up(w.bytes, unit)
		}
		sum += sizes[i]
		need += sizes[i] - slack[i]
	}
	if need > total {
		return nil, need, false
	}
	if over := sum - total; over > 0 {
		squeeze(sizes, slack, up(over, unit), unit)
	} else if rest >= 0 {
		sizes[rest] += down(-over, unit)
		if most := down(wants[rest].most, unit); wants[rest].most > 0 {
			sizes[rest] = max(min(sizes[rest], most), up(wants[rest].least, unit))
		}
	}
	return sizes, need, true
}

// squeeze takes over bytes from sizes, from each in proportion to its slack.
func squeeze(sizes, slack []int64, over, unit int64) {
	var all int64
	for _, s := range slack {
		all += s
	}
	left := over
	for i, s := range slack {
		if s == 0 {
			continue
		}
		// over and s may be some 2⁵⁰ each.
		cut := min(up(int64(float64(over)*(float64(s)/float64(all))), unit), down(s, unit), left)
		sizes[i], slack[i], left = sizes[i]-cut, s-cut, left-cut
	}
	for i, s := range slack {
		cut := min(down(s, unit), left)
		sizes[i], left = sizes[i]-cut, left-cut
	}
}

// leastSize is the smallest file system in bytes that its mkfs makes: XFS refuses less than 300 MiB since xfsprogs 5.19, FAT32 has
// at least 65525 clusters of at least one sector, LVM needs its metadata and an extent.
func leastSize(fs string, sector int) int64 {
	switch fs {
	case "xfs":
		return 300 * mib
	case "vfat":
		return int64(65525+2048) * int64(sector)
	case "ext4":
		return 16 * mib
	}
	return mib
}
