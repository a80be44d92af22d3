#!/bin/sh
# Installs Neuronpedia's Python clients for scripts/clients.test.ts, each into a folder of its own under .tiller/clients.
set -eu
cd "$(dirname "$0")/../.."
rm -rf .tiller/clients
into() { folder=$1; shift; python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target ".tiller/clients/$folder" "$@"; }
# 1.0.8 also declares what its notebooks use, gigabytes of it; its calls need two packages.
into 1.0.8 requests==2.32.5 python-dotenv==1.2.1
into 1.0.8 --no-deps neuronpedia==1.0.8
into 1.2.1 requests==2.32.5 python-dotenv==1.2.1 neuronpedia==1.2.1
