#!/bin/sh
# SPDX-License-Identifier: MIT
#
# archive.sh OUT.a LAYER.a...: libnu for static linking. All layers become one object, so that a program which needs any
# of it gets all of it, the constructor and the malloc family too. Its code is put into the section nu_text, by which
# core/image.c tells it from the program's own code: a thread that is interrupted in it must not be moved.
set -eu
out=$1
: "${LD:=ld}" "${OBJDUMP:=objdump}" "${OBJCOPY:=objcopy}" "${AR:=ar}"
shift
obj=${out%.a}.o
trap 'rm -f "$obj"' EXIT

code_sections() { # those of $obj, one a line
	"$OBJDUMP" -h -w "$obj" | awk '$1 ~ /^[0-9]+$/ && / CODE/ { print $2 }' | sort -u
}

"$LD" -r -o "$obj" --whole-archive "$@"
for section in $(code_sections); do
	"$OBJCOPY" --rename-section "$section=nu_text,contents,alloc,load,readonly,code" "$obj"
done
"$OBJCOPY" --localize-hidden "$obj"
[ "$(code_sections)" = nu_text ] || { echo "archive.sh: code outside nu_text: $(code_sections)" >&2; exit 1; }
rm -f "$out"
"$AR" crsD "$out" "$obj"
