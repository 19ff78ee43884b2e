#!/bin/sh
# Writes the fixtures anew with the clients that Debian 12 packages, and compares them with the packed ones, byte by
# byte: python3-prometheus-client 0.16.0 and ruby-prometheus-client-mmap 0.16.2. Other versions: README.md.
# usage: generate.sh [OUT]   OUT is a new directory; without it the result is thrown away after the comparison.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -gt 0 ]; then
	mkdir "$1" && out=$(cd "$1" && pwd)
else
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
fi

python=client_python-0.16.0
ruby=ruby-prometheus-client-mmap-0.16.2
PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$here/gen_python.py" all --out "$out/$python"
/usr/bin/ruby "$here/gen_ruby_mmap.rb" "$out/$ruby" 2>"$out/ruby.log" || { cat "$out/ruby.log" >&2; exit 1; }
/usr/bin/python3 "$here/gen_corrupt.py" "$out/corrupt"

packed=$out/packed
mkdir "$packed"
cp -R "$here/$python" "$here/$ruby" "$here/corrupt" "$here/unpack.sh" "$packed"
"$packed/unpack.sh"
status=0
compare() { # the directory of the packed fixture, and of the new one
	if diff -r "$packed/$1" "$out/$1" >"$out/diff.txt"; then
		echo "same: $1"
	else
		echo "differs: $1" && head -5 "$out/diff.txt" && status=1
	fi
}
for d in "$packed/$python"/*/ "$packed/$ruby"/*/; do
	rm -f "$d"/*.gz
	case $d in */gunicorn-*) continue ;; esac # recordings: README.md
	compare "$(basename "$(dirname "$d")")/$(basename "$d")"
done
rm -f "$packed/corrupt/cases.json" "$packed/corrupt/cases.tar.gz"
compare corrupt
exit "$status"
