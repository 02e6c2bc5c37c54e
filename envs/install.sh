#!/bin/sh
# What both recipes for a container run, as root, in a Debian 12: Python, and the locked packages with their hashes.
# The package itself is not installed: jobs import it from the checkout, which the container sees.
set -eu
lock=$1
environment=/opt/robust-transfer
apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates python3 python3-venv
python3 -m venv $environment
$environment/bin/python -m pip install --no-cache-dir --require-hashes --requirement "$lock"
rm -rf /var/lib/apt/lists/*
