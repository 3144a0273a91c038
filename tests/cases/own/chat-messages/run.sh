#!/bin/bash
cd "$(dirname "$0")" && . ../start.sh
ONE="--model ./work/model --data ./work/data ${LM/--text text/--text messages}"
$COPPICE check $ONE && $COPPICE run $ONE --out work/out || true
