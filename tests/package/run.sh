#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# run.sh CASE: installs $BUILD below a directory whose name has a space and uses it as an outside program would. Ends
# with the line "N passed, N failed, N skipped".
set -u
what=$1
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d "${TMPDIR:-/tmp}/nu package.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0

check() { # NAME COMMAND...: one test; its output is shown when it fails
	local name=$1
	shift
	if "$@" >"$tmp/out" 2>&1; then
		passed=$((passed + 1))
	else
		echo "FAIL $name (status $?)"
		sed 's/^/  /' "$tmp/out" | tail -40
		failed=$((failed + 1))
		return 1
	fi
}

finish() {
	echo "$passed passed, $failed failed, 0 skipped"
	[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
	exit
}

check "meson install" meson install -C "$BUILD" --no-rebuild --destdir "$tmp/root" || finish
pc=$(find "$tmp/root" -name nu.pc)
libdir=$(cd "$(dirname "$pc")/.." && pwd)
prefix=$(cd "$(dirname "$(find "$tmp/root" -name nu_launch)")/.." && pwd)
launch=$prefix/bin/nu_launch
export PKG_CONFIG_PATH="$libdir/pkgconfig"
expected=$("$BUILD/samples/accumulator") || { echo "the accumulator of the build directory fails"; exit 1; }
[ -n "$expected" ] || { echo "the accumulator says nothing"; exit 1; }

says_the_same() { # PROG: alone, and as two nodes
	local out
	out=$("$1") || { echo "alone: status $?"; return 1; }
	[ "$out" = "$expected" ] || { echo "alone: $out"; return 1; }
	out=$("$launch" -n 2 --no-prefix --time-out 60 "$1") || { echo "two nodes: status $?"; return 1; }
	[ "$out" = "$expected" ] || { echo "two nodes: $out"; return 1; }
}

links_to_shared() { ldd "$1" | grep -q 'libnu\.so\.0 => '; }
links_to_none() { ! ldd "$1" | grep -q "libnu\.so" && ldd "$1" | grep -q 'libucp\.so'; }

outside() { # DIR: a project with the accumulator and the mover
	mkdir -p "$1"
	cp "$here/outside.build" "$1/meson.build"
	cp "$here/outside.options" "$1/meson_options.txt"
	cp "$SRC/samples/accumulator.c" "$here/mover.c" "$1"
}

# Fourteen moves there and back of threads that compute, allocate, sort and lock.
moves() { "$launch" -n 2 --no-prefix --time-out 120 "$1"; }

exports() { # what libnu.so exports is what the headers declare and the C library's functions that it replaces
	nm -D --defined-only --with-symbol-versions "$libdir/libnu.so" | awk '$2 ~ /[TWVDBR]/ { print $3 }' |
		sed 's/@@\?/ /' | sort >"$tmp/exported"
	python3 - "$SRC/core" "$tmp/exported" <<-EOF
	import re, sys
	def declared(header):
	    text = open(f"{sys.argv[1]}/{header}").read().replace("__must_check", "")
	    return {re.search(r"\b(nu_\w+)\s*\(", d).group(1) for d in re.findall(r"^NU_API\b([^;]*);", text, re.M)}
	public = declared("nu.h") | declared("nu_class.h") | declared("nu_thread.h")
	private = declared("nu_testing.h")
	libc = set("""malloc calloc realloc reallocarray free posix_memalign aligned_alloc memalign valloc pvalloc
	    malloc_usable_size strdup strndup asprintf vasprintf getline getdelim __asprintf_chk __vasprintf_chk __getdelim
	    qsort qsort_r dlopen dlmopen pthread_mutex_lock pthread_mutex_unlock exit quick_exit raise pthread_exit thrd_exit
	    sleep usleep nanosleep clock_nanosleep poll ppoll __poll_chk __ppoll_chk select pselect epoll_wait epoll_pwait""".split())
	want = {(n, "NU_0.1") for n in public | libc} | {(n, "NU_PRIVATE") for n in private}
	have = {tuple(line.split()) for line in open(sys.argv[2])}
	print("exported, but in no header:", sorted(have - want))
	print("in a header, but not exported:", sorted(want - have))
	sys.exit(have != want or len(public) < 50)
	EOF
}

self_contained() { # the installed header, with nothing else in the search path
	printf '#include <nu/nu.h>\n' >"$tmp/one.c"
	eval "gcc -std=gnu17 -Wall -Wextra -Werror $(pkg-config --cflags nu) -c '$tmp/one.c' -o '$tmp/one.o'"
}

case $what in
install)
	for f in lib:libnu.so lib:libnu.so.0 lib:pkgconfig/nu.pc lib:pkgconfig/nu-static.pc lib:libnu.a prefix:include/nu/nu.h prefix:include/nu/nu_args.h \
		prefix:include/nu/nu_class.h prefix:include/nu/nu_thread.h prefix:bin/nu_launch prefix:bin/nu_ctl prefix:bin/nu_info \
		prefix:bin/nu_perf prefix:bin/kvstore prefix:bin/accumulator; do
		case $f in lib:*) path=$libdir/${f#*:} ;; *) path=$prefix/${f#*:} ;; esac
		check "installed: ${f#*:}" test -s "$path"
	done
	check "nu_testing.h is not installed" test ! -e "$prefix/include/nu/nu_testing.h"
	for page in "$SRC"/man/*.[137]; do
		check "man page ${page##*/}" test -s "$prefix/share/man/man${page##*.}/${page##*/}"
		check "man page ${page##*/} without warnings" \
			sh -c 'w=$(groff -man -ww -z -Tutf8 "$1" 2>&1) || exit 1; echo "$w"; [ -z "$w" ]' sh "$page"
	done
	check "exported symbols" exports
	check "the header is self-contained" self_contained
	check "the installed accumulator" says_the_same "$prefix/bin/accumulator"
	;;
gcc)
	cd "$tmp" || exit 1
	cp "$SRC/samples/accumulator.c" .
	check "gcc and pkg-config" sh -c 'eval gcc -std=gnu17 accumulator.c -o shared $(pkg-config --cflags --libs nu)' &&
		check "it links to libnu.so" sh -c 'readelf -d shared | grep -q "NEEDED.*libnu\.so\.0"' &&
		check "it runs alone" env LD_LIBRARY_PATH="$libdir" ./shared &&
		LD_LIBRARY_PATH="$libdir" check "it says what it must" says_the_same ./shared
	sed -n '/^```c$/,/^```$/p' "$SRC/README.md" | sed '/^```/d' >readme.c
	check "README's program compiles" \
		sh -c 'eval gcc -std=gnu17 -Wall -Werror readme.c -o readme $(pkg-config --cflags --libs nu)' &&
		LD_LIBRARY_PATH="$libdir" check "and runs on three nodes" "$launch" -n 3 --time-out 60 ./readme
	;;
static)
	cd "$tmp" || exit 1
	cp "$SRC/samples/accumulator.c" "$here/mover.c" .
	for p in accumulator mover; do
		check "gcc links $p with libnu.a" \
			sh -c 'eval gcc -std=gnu17 -O2 $1.c -o $1 $(pkg-config --cflags --libs nu-static)' sh $p || finish
		check "$p needs no libnu.so" links_to_none ./$p
	done
	check "it says what it must" says_the_same ./accumulator
	check "running threads move" moves ./mover
	outside project
	check "meson, static" sh -c 'meson setup b project -Dstatic=true && ninja -C b' &&
		check "that one needs no libnu.so" links_to_none b/accumulator &&
		check "that one says what it must" says_the_same b/accumulator &&
		check "its running threads move" moves b/mover
	;;
meson)
	cd "$tmp" || exit 1
	outside project
	check "meson" sh -c 'meson setup b project && ninja -C b' &&
		check "it links to libnu.so" links_to_shared b/accumulator &&
		check "it says what it must" says_the_same b/accumulator &&
		check "running threads move" moves b/mover
	;;
subproject)
	cd "$tmp" || exit 1
	outside project
	mkdir project/subprojects
	ln -s "$SRC" project/subprojects/nu
	unset PKG_CONFIG_PATH
	check "as a subproject" sh -c 'meson setup b project --force-fallback-for=nu && ninja -C b accumulator mover' &&
		check "it says what it must" says_the_same b/accumulator &&
		check "running threads move" moves b/mover
	;;
*)
	echo "run.sh: no case '$what'" >&2
	exit 2
	;;
esac
finish
