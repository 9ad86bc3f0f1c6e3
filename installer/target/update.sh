# The boot loader of this machine does not read the entries of /boot/loader/entries by itself. So this program runs whenever a
# kernel was added or is removed, and writes from them /boot/extlinux/extlinux.conf, but for what stands there before the first
# LABEL, and in /boot/grub2/grub.cfg what stands between "### BEGIN imgbuild entries ###" and "### END imgbuild entries ###".
# The newest kernel comes first. A file that is there is replaced whole or not at all.
#
# Above: root is empty; prefix is the directory of kernels as the boot loader sees it; from says whether kernels are those of
# the entries, or, where the system makes no entries, those in /boot.

set -eu
LC_ALL=C
export LC_ALL
boot=$root/boot
tab=$(printf '\t')

say() { printf 'imgbuild: %s\n' "$*" >&2; }

# What runs it: kernel-install as "add|remove VERSION …", or the scripts of EL7's kernel package as "VERSION FILE" in postinst.d
# or prerm.d. A kernel that is being removed may still be there.
gone=
case $0 in
*/prerm.d/*) gone=${1-} ;;
*/postinst.d/*) ;;
*)
    case ${1-} in
    add) ;;
    remove) gone=${2-} ;;
    *) exit 0 ;;
    esac
    ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work" "$boot/extlinux/extlinux.conf.imgbuild" "$boot/grub2/grub.cfg.imgbuild"' EXIT

# values FILE KEY prints the values of a key of an entry in one line.
values() {
    sed -n "s/^[[:space:]]*$2[[:space:]][[:space:]]*//p" "$1" | tr '\n\r' '  ' | sed 's/[[:space:]]*$//'
}

# variable NAME prints what GRUB has for a variable.
variable() {
    value=
    if [ -f "$boot/grub2/grubenv" ]; then
        value=$(sed -n "s/^$1=//p" "$boot/grub2/grubenv" | head -n 1)
    fi
    if [ -z "$value" ] && [ "$1" = kernelopts ] && [ -f "$root/etc/kernel/cmdline" ]; then
        value=$(tr '\n' ' ' <"$root/etc/kernel/cmdline" | sed 's/ *$//')
    fi
    printf '%s' "$value"
}

# expand TEXT prints a text with GRUB's variables replaced, as in "options $kernelopts".
expand() {
    rest=$1
    while :; do
        case $rest in
        *\$*) ;;
        *) break ;;
        esac
        printf '%s' "${rest%%\$*}"
        rest=${rest#*\$}
        case $rest in
        '{'*'}'*)
            name=${rest#?}
            name=${name%%\}*}
            rest=${rest#*\}}
            ;;
        *)
            name=${rest%%[!A-Za-z0-9_]*}
            rest=${rest#"$name"}
            ;;
        esac
        case $name in
        '' | *[!A-Za-z0-9_]*) ;;
        *) variable "$name" ;;
        esac
    done
    printf '%s' "$rest"
}

# place FILE prints a file of /boot as the boot loader sees it, and nothing if it is not there.
place() {
    for file in "$1" "${1#"$boot"}"; do
        case $file in
        /*)
            if [ -f "$boot$file" ]; then
                printf '%s' "$prefix$file"
                return
            fi
            ;;
        esac
    done
}

# words TEXT prints kernel arguments as words of GRUB's shell. GRUB gives an argument with blanks its double quotes back.
words() {
    printf '%s\n' "$1" | awk '
        function flush() {
            if (word == "") return
            if (word ~ /[^A-Za-z0-9_.,:=@%\/+-]/) { gsub(/\047/, "\047\\\047\047", word); word = "\047" word "\047" }
            out = out " " word
            word = ""
        }
        {
            for (i = 1; i <= length($0); i++) {
                c = substr($0, i, 1)
                if (c == "\"") quoted = !quoted
                else if ((c == " " || c == "\t") && !quoted) flush()
                else word = word c
            }
            flush()
        }
        END { print out }'
}

first=
linux=linux
: >"$work/extlinux"
: >"$work/grub"

# add ID TITLE KERNEL INITRDS OPTIONS takes a kernel in. What could not start is left out, and said.
add() {
    kernel=$(place "$3")
    if [ -z "$kernel" ]; then
        say "$1 is left out: $3 is not in /boot"
        return
    fi
    initrds=
    for i in $4; do
        initrd=$(place "$i")
        if [ -z "$initrd" ]; then
            say "$1 is left out: $i is not in /boot"
            return
        fi
        initrds="$initrds $initrd"
    done
    initrds=${initrds# }
    title=$(printf '%s' "$2" | tr -d '\047"\\$')
    {
        printf '\nLABEL %s\n  MENU LABEL %s\n  LINUX %s\n' "$1" "$title" "$kernel"
        [ -z "$initrds" ] || printf '  INITRD %s\n' "$(printf '%s' "$initrds" | tr ' ' ',')"
        printf '  APPEND %s\n' "$5"
    } >>"$work/extlinux"
    {
        printf "menuentry '%s' --class gnu-linux --unrestricted --id '%s' {\n  %s %s%s\n" "$title" "$1" "$linux" "$kernel" "$(words "$5")"
        [ -z "$initrds" ] || printf '  initrd%s %s\n' "${linux#linux}" "$initrds"
        printf '}\n'
    } >>"$work/grub"
    [ -n "$first" ] || first=$1
}

# list prints what there is, the newest first, as VERSION, a tab, and the entry's or kernel's file.
list() {
    if [ "$from" = entries ]; then
        set -- "$boot"/loader/entries/*.conf
    else
        set -- "$boot"/vmlinuz-*
    fi
    for file; do
        [ -f "$file" ] || continue
        if [ "$from" = entries ]; then
            version=$(values "$file" version)
        else
            version=${file##*/vmlinuz-}
        fi
        case ${file##*/} in
        *[!A-Za-z0-9._+~-]*) say "${file##*/} is left out: its name is unusual" ;;
        *) printf '%s\t%s\n' "$version" "$file" ;;
        esac
    done | sort -t "$tab" -k 1,1Vr -k 2,2Vr
}

# replace FILE puts $work/new in its place.
replace() {
    if cmp -s "$work/new" "$1"; then
        return
    fi
    cp -p "$1" "$1.imgbuild"
    cat "$work/new" >"$1.imgbuild"
    sync
    mv -f "$1.imgbuild" "$1"
    sync
}

grub=
if [ -f "$boot/grub2/grub.cfg" ] && grep -q '^### BEGIN imgbuild entries ###$' "$boot/grub2/grub.cfg" &&
    grep -q '^### END imgbuild entries ###$' "$boot/grub2/grub.cfg"; then
    grub=$boot/grub2/grub.cfg
    # Some GRUBs start kernels with linuxefi; what was written first knows.
    word=$(sed -n '/^### BEGIN imgbuild entries ###$/,/^### END imgbuild entries ###$/s/^[[:space:]]*\(linux[a-z0-9]*\)[[:space:]].*/\1/p' "$grub" | head -n 1)
    linux=${word:-linux}
fi

list >"$work/list"
while IFS=$tab read -r version file; do
    [ -n "$gone" ] && [ "$version" = "$gone" ] && continue
    if [ "$from" = entries ]; then
        id=${file##*/}
        add "${id%.conf}" "$(values "$file" title)" "$(values "$file" linux)" "$(expand "$(values "$file" initrd)")" "$(expand "$(values "$file" options)")"
    else
        name=$(sed -n 's/^PRETTY_NAME=//p' "$root/etc/os-release" | tr -d '"')
        add "linux-$version" "$name ($version)" "/vmlinuz-$version" "/initramfs-$version.img" "$(variable kernelopts)"
    fi
done <"$work/list"

if [ -z "$first" ]; then
    say "no kernel could be started, so the boot loader's configuration stays as it is"
    exit 1
fi
if [ -f "$boot/extlinux/extlinux.conf" ]; then
    sed -n '/^[[:space:]]*[Ll][Aa][Bb][Ee][Ll][[:space:]]/q
        /^[[:space:]]*[Dd][Ee][Ff][Aa][Uu][Ll][Tt][[:space:]]/d
        /^[[:space:]]*$/d
        p' "$boot/extlinux/extlinux.conf" >"$work/new"
    printf 'DEFAULT %s\n' "$first" >>"$work/new"
    cat "$work/extlinux" >>"$work/new"
    replace "$boot/extlinux/extlinux.conf"
fi
if [ -n "$grub" ]; then
    awk -v part="$work/grub" '
        /^### END imgbuild entries ###$/ { skip = 0 }
        !skip { print }
        /^### BEGIN imgbuild entries ###$/ { while ((getline line <part) > 0) print line; skip = 1 }' "$grub" >"$work/new"
    replace "$grub"
fi
