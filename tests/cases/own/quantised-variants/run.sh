#!/bin/bash
cd "$(dirname "$0")" && . ../start.sh
for method in fp8 hqq quanto aqlm; do
  echo "== $method"
  $COPPICE check --model ./work/$method --data ./work/data $LM
  echo "rc $?"
done
