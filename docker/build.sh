#!/usr/bin/env bash
# Build the image on Debian and try it, without a Docker daemon and without a registry of images; as root:
#
#   apt-get install buildah podman runc debootstrap iptables podman-compose
#   docker/build.sh            gmrm-gpu, and in it the demo and a study
#   docker/build.sh cuda13     gmrm-gpu:cuda13 (or cuda12), for NVIDIA GPUs; several GB
#   docker/build.sh test       gmrm-gpu:test, and in it the whole test suite
#   docker/build.sh cluster    the study once more, by a scheduler and two workers (compose.yaml); same shards?
#   docker/build.sh remove     images, volume and base
#
# From the environment: SUITE, Debian's release (bookworm); WORK, a folder for what is tried (a temporary one); behind a
# proxy PIP_CONF, a pip.conf for the build, and CA, a file of certificates (/run/secrets/ca in that pip.conf). Neither ends
# in the image.
set -euo pipefail
case ${1:-cpu} in
    cpu | cuda12 | cuda13 | test | cluster | remove) ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
cd "$(dirname "$0")/.."
suite=${SUITE:-bookworm}
base=localhost/gmrm-base:$suite
work=${WORK:-$(mktemp -d)}

say() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }

# runc, as Debian has no other here; limits below what podman asks for, which a root without all rights may not raise.
settings() {
    mkdir -p "$work"
    export CONTAINERS_CONF=$work/containers.conf
    cat >"$CONTAINERS_CONF" <<END
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
END
}

# What python:slim has and this image needs: Debian's smallest system with python3 and venv.
import_base() {
    podman image exists "$base" && return
    say "base: Debian $suite by debootstrap"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$work/base" >"$work/base.log" ||
        { tail -5 "$work/base.log" >&2; return 1; }
    tar -C "$work/base" --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' -c . | podman import - "$base"
    rm -rf "$work/base"
}

# build TAG [further arguments of buildah]
build() {
    local tag=$1 pip=${PIP_CONF:-} secrets=()
    import_base
    if [[ -n ${CA:-} && -z $pip ]]; then
        pip=$work/pip.conf
        printf '[global]\ncert = /run/secrets/ca\n' >"$pip"
    fi
    [[ -z $pip ]] || secrets+=(--secret "id=pip,src=$pip")
    [[ -z ${CA:-} ]] || secrets+=(--secret "id=ca,src=$CA")
    say "image $tag"
    buildah build --isolation chroot --layers --build-arg "BASE=$base" "${secrets[@]}" "${@:2}" -f docker/Dockerfile -t "$tag" . \
        >"$work/build.log" 2>&1 || { tail -20 "$work/build.log" >&2; return 1; }
    podman images --format "{{.Repository}}:{{.Tag}} {{.Size}}" "$tag"
}

results() { install -d -o 1000 -g 1000 "$work/results" "$work/movies"; }
program() { podman run --rm -v "$work/results:/data" -v "$work/movies:/movies:ro" -v gmrm-cache:/cache gmrm-gpu "$@"; }
study=(/movies/simulated/movie.tif --rates "0.1,0.05" --replicates "4,8" --seed 1 --no-report)

try_program() {
    results
    say "a movie"
    podman run --rm -v "$work/movies:/data" gmrm-gpu simulate --size 96x96x8 --seed 1 --out simulated --overwrite
    say "demo"
    program demo --quick --out demo --overwrite
    say "study"
    program study "${study[@]}" --out alone --overwrite
}

try_cluster() {
    export MOVIES=$work/movies RESULTS=$work/results COMPOSE_PROFILES=study
    [[ -d $RESULTS/alone ]] || try_program
    say "scheduler and two workers"
    trap 'podman-compose -f docker/compose.yaml down' EXIT
    podman-compose -f docker/compose.yaml up -d --scale worker=2 worker
    podman-compose -f docker/compose.yaml run -T --rm study "${study[@]}" --out together --overwrite
    diff -r "$RESULTS/alone/shards" "$RESULTS/together/shards" && say "shards: the same bits"
}

try_tests() {
    say "tests"
    podman run --rm gmrm-gpu:test
}

settings
case ${1:-cpu} in
    cpu) build gmrm-gpu:latest && try_program ;;
    cuda12 | cuda13) build "gmrm-gpu:$1" --build-arg "EXTRA=$1" && podman run --rm "gmrm-gpu:$1" doctor ;;
    test) build gmrm-gpu:test --target test && try_tests ;;
    cluster) try_cluster ;;
    remove)
        for name in gmrm-gpu{,:test,:cuda12,:cuda13} "$base"; do podman rmi --ignore "$name"; done
        podman volume rm --force gmrm-cache
        ;;
esac
say "done; results in $work"
