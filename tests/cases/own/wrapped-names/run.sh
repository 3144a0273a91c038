#!/bin/bash
cd "$(dirname "$0")" && . ../start.sh
ONE="--model ./work/model --data ./work/data $CLASSES"
$COPPICE check $ONE
$COPPICE run $ONE --out work/out
