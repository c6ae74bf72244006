#!/bin/sh
# Pack the facts of the Kubernetes API into the form that the crate embeds:
#
#     data/pack.sh types.json protobuf.json
#
# types.json: one OpenAPI v3 schema per type, by the type's full name (io.k8s.api.core.v1.Pod), without prose; references
# as '#/components/schemas/<name>'. protobuf.json: per message, by its full name (k8s.io.api.core.v1.Pod), a list of
# [number, name, optional|repeated|map, type, extra]. `zstd -d` gives the plain files back; the tests of `schema` and
# `protobuf` read both.
set -eu
here=$(dirname "$0")
for file in "$@"; do
    zstd -q -19 -f -o "$here/$(basename "$file").zst" < "$file"
done
