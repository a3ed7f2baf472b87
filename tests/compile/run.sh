#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run.sh COMPILER INCLUDE_DIR: compiles each case of fail/, which must be refused with the first error that its
# "Expect:" line says (an extended regular expression), by the compiler's default flags; and each case of pass/,
# which must compile without a word under many warnings; and programs whose macros are named as words of our headers.
cc=$1 inc=$2 dir=$(dirname "$0")
command -v "${cc%% *}" >/dev/null 2>&1 || { echo "no $cc here: skipped"; exit 77; }
export LC_ALL=C
err=$(mktemp) && own=$(mktemp --suffix=.c) && trap 'rm -f "$err" "$own"' EXIT
ran=0 failed=0

complain()
{
	echo "$1: $2"
	sed -n 1,6p "$err"
	failed=$((failed + 1))
}

for f in "$dir"/fail/*.c; do
	expect=$(sed -n 's,^/\* Expect: \(.*\) \*/$,\1,p' "$f")
	ran=$((ran + 1))
	if [ -z "$expect" ]; then
		: >"$err"
		complain "$f" "has no Expect: line"
	elif $cc -std=gnu17 -I"$inc" -I"$dir" -S -o /dev/null "$f" 2>"$err"; then
		complain "$f" "compiled, but must not"
	elif ! grep -m1 -E '(^|: )(fatal )?error: ' "$err" | grep -q -E -e "$expect"; then
		complain "$f" "the first error is not '$expect' but"
	fi
done

warnings="-Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes
	-Wcast-qual -Wundef -Wpointer-arith -Wold-style-definition -Wredundant-decls -Wwrite-strings -Wpedantic"
# What is left of all that clang knows: it is about other languages, padding, and names that are the implementation's.
case $($cc --version) in
*clang*) warnings="$warnings -Weverything -Wno-c++98-compat -Wno-c++-compat -Wno-padded -Wno-assign-enum
	-Wno-used-but-marked-unused -Wno-reserved-identifier -Wno-reserved-macro-identifier" ;;
esac
for f in "$dir"/pass/*.c; do
	for level in -O0 -O2; do
		ran=$((ran + 1))
		# shellcheck disable=SC2086 # a list of flags
		$cc -std=gnu17 $warnings $level -I"$inc" -I"$dir" -S -o /dev/null "$f" >"$err" 2>&1 ||
			{ complain "$f $level" "does not compile"; continue; }
		[ -s "$err" ] && complain "$f $level" "warnings"
	done
done

# Each word of the headers as a macro with parameters, defined before nu.h, and after it: none is called like one.
words=$(cat "$inc"/nu/nu.h "$inc"/nu/nu_*.h | grep -oE '\b[a-z][a-z0-9_]*\b' | sort -u |
	grep -vE '^(nu_.*|bool|char|const|defined|do|double|else|enum|errno|extern|false|float|for|free|if|inline|int|long|offsetof|return|short|signed|sizeof|static|struct|true|typedef|union|unsigned|void|while)$')
for when in before after; do
	ran=$((ran + 1))
	include='#include <nu/nu.h>'
	{
		[ $when = before ] || echo "$include"
		printf '#include <stdlib.h>\n#include <stdatomic.h>\n'
		for w in $words; do echo "#define $w(a, b, c) this is $w"; done
		[ $when = after ] || echo "$include"
		echo '#include "own_macros_use.h"'
	} >"$own"
	$cc -std=gnu17 -Wall -Wextra -I"$inc" -I"$dir" -S -o /dev/null "$own" >"$err" 2>&1 || complain "macros $when" "does not compile"
	[ -s "$err" ] && complain "macros $when" "warnings"
done

echo "$cc: $ran compilations, $failed wrong"
[ "$ran" -gt 40 ] && [ "$failed" -eq 0 ]
