#!/bin/bash
cd "$(dirname "$0")" && . ../start.sh
$COPPICE check --model ./work/model --data ./work/data $CLASSES
echo "rc $?"
