#!/bin/sh
# Compiles the workspace's crates with the planted bug that RINGLOAD_CANARY names; for
# RUSTC_WORKSPACE_WRAPPER, so that dependencies are not built again.
exec "$@" --cfg "ringload_canary=\"$RINGLOAD_CANARY\""
