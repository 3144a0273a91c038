#!/usr/bin/env bash
# A chat model for llama.cpp: pruned, with its chat template, in one file of 8 bits.
#   chat_to_gguf.sh MODEL TEXTS OUT      MODEL: a decoder such as SmolLM2-135M-Instruct; TEXTS: rows with "text"
set -euo pipefail
model=$1 texts=$2 out=$3

coppice run --model "$model" --task text-generation --data "$texts" --text text --macs-keep 0.8 \
  --format gguf --gguf Q8_0 --strict --out "$out" # strict: without the file, the job fails and says why

ls -l "$out"/gguf
# What llama.cpp finds in the file is in the report, where the engine is here (coppice engines).
if command -v llama-cli > /dev/null; then
  llama-cli -m "$out"/gguf/model-Q8_0.gguf -p "What is coppicing?" -n 64 --no-conversation
else
  echo "llama-cli is not installed; the file is ready for it, for Ollama and for LM Studio"
fi
