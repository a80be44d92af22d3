#!/bin/sh
# Installs PyTorch for the GPU engine, and what else its tests need, into .tiller/torch. Where pip's index has builds for CUDA only to offer, a smaller one
# without is at PIP_INDEX_URL=https://download.pytorch.org/whl/cpu.
set -eu
cd "$(dirname "$0")/../.."
rm -rf .tiller/torch
python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target .tiller/torch \
  torch==2.13.0 numpy==2.4.6 safetensors==0.8.0 modal==1.6.4
# The compiler of the GPU's kernels, which has an interpreter for machines without one; there is none for macOS.
python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --target .tiller/torch triton==3.7.1 ||
  echo "There is no Triton for this machine: the kernels of the PyTorch engine are not tested."
