# What each run.sh here begins with: its files are made, in ./work. COPPICE: the command; PY: its interpreter.
export PYTHONPATH=..:${PYTHONPATH:-} OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
PY=${PY:-python}
COPPICE=${COPPICE:-coppice}
rm -rf work
mkdir work
$PY make.py >work/make.log 2>&1 || { cat work/make.log; exit 9; }
CLASSES="--task text-classification --text text --label label --macs-keep 0.6 --samples 16"
LM="--task text-generation --text text --macs-keep 0.6 --samples 16"
