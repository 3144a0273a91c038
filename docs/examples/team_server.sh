#!/usr/bin/env bash
# A team's server: people sign in by the provider that they have, programs by keys, each tenant sees its own.
#   team_server.sh ISSUER PORT FOLDER      ISSUER: an OpenID provider; FOLDER: models and data that jobs may name
set -euo pipefail
issuer=$1 port=$2 folder=$3
export COPPICE_AUTH=true COPPICE_URL=http://127.0.0.1:$port
export COPPICE_SECRET=${COPPICE_SECRET:-$(openssl rand -hex 32)} # keep it: keys and sessions are worth nothing without it
export COPPICE_OIDC_ISSUER=$issuer COPPICE_OIDC_CLIENT_ID=coppice COPPICE_OIDC_NAME="Example"
export COPPICE_OIDC_ROLES='[{"group": "ml", "tenant": "acme", "role": "runner"}, {"group": "leads", "tenant": "acme", "role": "admin"}]'
export COPPICE_PUBLIC_URL=$COPPICE_URL

coppice serve --port "$port" --allow-root "$folder" &
trap 'kill $!; wait' EXIT
until curl -sf "$COPPICE_URL/readyz" > /dev/null; do sleep 1; done

# A key for the nightly pipeline of the team: printed once. Without one, nothing is told.
test "$(curl -s -o /dev/null -w '%{http_code}' "$COPPICE_URL/v1/jobs")" = 401
COPPICE_API_KEY=$(coppice keys create --tenant acme --name nightly)
export COPPICE_API_KEY
coppice jobs list

# People: the page sends them to the provider, and `coppice login` does the same for a terminal.
curl -s "$COPPICE_URL/sign-in" | grep -o 'Sign in with Example'
if [ -t 0 ]; then wait; fi
