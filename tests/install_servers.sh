#!/bin/sh
# Install Redis, PostgreSQL, PgBouncer, Prometheus, Chromium and bubblewrap from the distribution's packages where that is possible. Where it is not, the tests that
# need them say that they were skipped; nothing fails here.
set -u
missing=""
command -v redis-server >/dev/null 2>&1 || missing="redis-server"
command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
command -v promtool >/dev/null 2>&1 || missing="$missing prometheus"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v bwrap >/dev/null 2>&1 || missing="$missing bubblewrap"
command -v pgbouncer >/dev/null 2>&1 || [ -x /usr/sbin/pgbouncer ] || missing="$missing pgbouncer"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing$missing for the integration tests" >&2
  if { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >/dev/null 2>&1; then
    exit 0
  fi
fi
echo "could not install: $missing; the tests on them will be skipped" >&2
exit 0
