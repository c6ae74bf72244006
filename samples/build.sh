#!/usr/bin/env bash
# Builds the guests of the samples from source.
#
#   samples/build.sh [NAME...]      all of them, or only those named; output: samples/NAME/build/NAME.wasm
#
# Needs what `make samples` installs: clang with lld and wasi-libc for C; a Rust that can build for Wasm: rustup's wasm32-wasip2
# target where it is there, else Debian's rustc-web with rust-web-src; Go for go-cron-like; componentize-py and npm for
# python-function and js-function. A guest whose tools are missing is skipped with a word; one that is named must build.
set -euo pipefail
cd "$(dirname "$0")"
samples=$PWD
named=("$@")
skipped=()

wanted() { # NAME
    [ ${#named[@]} -eq 0 ] && return 0
    local name
    for name in "${named[@]}"; do [ "$name" = "$1" ] && return 0; done
    return 1
}

missing() { # NAME WHAT
    [ ${#named[@]} -gt 0 ] && { echo "samples/$1: cannot be built here: $2" >&2; exit 1; }
    echo "samples/$1: skipped: $2" >&2
    skipped+=("$1")
}

done_with() { printf '%s: %s bytes\n' "samples/$1/build/$1.wasm" "$(stat -c %s "$1/build/$1.wasm")"; }

clang=$(command -v clang-14 || command -v clang || true)
c_guest() { # NAME
    wanted "$1" || return 0
    if [ -z "$clang" ] || [ ! -d /usr/include/wasm32-wasi ]; then
        missing "$1" "clang, lld or wasi-libc is missing"
        return 0
    fi
    mkdir -p "$1/build"
    "$clang" --target=wasm32-wasi --sysroot=/usr -O2 -s "$1/$1.c" -o "$1/build/$1.wasm"
    done_with "$1"
}

# Debian's Rust builds its own standard library for wasm32-wasip1; a reactor is then wrapped as a component.
rust_guest() { # NAME
    wanted "$1" || return 0
    mkdir -p "$1/build"
    local target_dir=${WHERRY_SAMPLES_TARGET:-$samples/componentize/target}
    local crate=${1//-/_}
    if [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/wasm32-wasip2" ]; then
        cargo build --quiet --release --target wasm32-wasip2 --manifest-path "$1/Cargo.toml" --target-dir "$target_dir/guests"
        cp "$target_dir/guests/wasm32-wasip2/release/$crate.wasm" "$1/build/$1.wasm"
    elif [ -d /usr/lib/wasm32-wasi ] && [ -d "$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library" ]; then
        cargo build --quiet --release --manifest-path componentize/Cargo.toml --target-dir "$target_dir"
        RUSTFLAGS="-C link-self-contained=no -L /usr/lib/wasm32-wasi -C link-arg=/usr/lib/wasm32-wasi/crt1-reactor.o" \
        RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_WASIP1_LINKER=$(command -v wasm-ld || command -v wasm-ld-14) \
            /usr/bin/cargo build --quiet -Zbuild-std=std,panic_abort --target wasm32-wasip1 --release \
            --manifest-path "$1/Cargo.toml" --target-dir "$target_dir/guests"
        "$target_dir/release/componentize" "$target_dir/guests/wasm32-wasip1/release/$crate.wasm" "$1/build/$1.wasm"
    else
        missing "$1" "neither rustup's wasm32-wasip2 target nor Debian's rustc-web, rust-web-src, wasi-libc are here"
        return 0
    fi
    done_with "$1"
}

go_guest() { # NAME
    wanted "$1" || return 0
    local go
    go=$(command -v go || ls "$samples/../.venv/bin/go" 2>/dev/null || true)
    if [ -z "$go" ]; then
        missing "$1" "go is missing"
        return 0
    fi
    mkdir -p "$1/build"
    (cd "$1" && GOOS=wasip1 GOARCH=wasm GOFLAGS=-trimpath "$go" build -ldflags=-s -o "build/$1.wasm" .)
    done_with "$1"
}

# The WIT files of wasi:http come with the source of the crate wasmtime-wasi-http, which the workspace uses.
wit_of_wasi_http() { # OUT
    local manifest
    manifest=$(cargo metadata --format-version 1 --manifest-path "$samples/../Cargo.toml" |
        python3 -c 'import json,sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "wasmtime-wasi-http"))')
    rm -rf "$1" && cp -r "$(dirname "$manifest")/wit" "$1" && chmod -R u+w "$1"
}

python_guest() { # NAME
    wanted "$1" || return 0
    local tool
    tool=$(command -v componentize-py || ls "$samples/../.venv/bin/componentize-py" 2>/dev/null || true)
    if [ -z "$tool" ]; then
        missing "$1" "componentize-py is missing"
        return 0
    fi
    mkdir -p "$1/build"
    wit_of_wasi_http "$samples/$1/build/wit"
    (cd "$1" && "$tool" -d build/wit -w wasi:http/proxy componentize -p . app -o "build/$1.wasm")
    done_with "$1"
}

js_guest() { # NAME
    wanted "$1" || return 0
    if ! command -v npm >/dev/null; then
        missing "$1" "npm is missing"
        return 0
    fi
    mkdir -p "$1/build"
    wit_of_wasi_http "$samples/$1/build/wit"
    (cd "$1" && npm install --silent --no-audit --no-fund --no-package-lock >/dev/null && node build.mjs)
    done_with "$1"
}

c_guest batch
c_guest crash
c_guest debug-me
c_guest memory-hog
c_guest stateful-volume
rust_guest hello-http
rust_guest greeter-config
go_guest go-cron-like
python_guest python-function
js_guest js-function
if [ ${#skipped[@]} -gt 0 ]; then
    echo "skipped: ${skipped[*]}" >&2
fi
