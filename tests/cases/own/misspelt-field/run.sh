#!/bin/bash
cd "$(dirname "$0")" && . ../start.sh
$COPPICE check --spec work/spec.json
echo "rc $?"
