#!/usr/bin/env bash
# Environments of the peers that the benchmarks run beside recjax, each its own: torch is never a dependency of recjax.
#
#   experiments/benchmarks/peers/setup.sh [FOLDER] [torch|rectools|replay|faiss|texts|authors ...]
#
# FOLDER defaults to $RECJAX_PEERS, or ~/.cache/recjax-peers. PYTHON chooses the interpreter (3.11), TORCH the torch
# version. Packages come from whatever index pip is set up for; where that index serves the CUDA build of torch, set
# PIP_EXTRA_INDEX_URL or PIP_INDEX_URL to one that has the CPU build.
set -euo pipefail
folder="${1:-${RECJAX_PEERS:-$HOME/.cache/recjax-peers}}"
[ $# -gt 0 ] && shift
peers=("$@")
[ ${#peers[@]} -eq 0 ] && peers=(torch rectools replay faiss texts)
python="${PYTHON:-python3.11}"
torch="torch==${TORCH:-2.13.0}"

install() { # NAME REQUIREMENT...: torch first, so that the peer takes the one that is there
    local name="$1"
    shift
    echo "== $name: $*"
    "$python" -m venv "$folder/$name"
    "$folder/$name/bin/python" -m pip install --quiet "$torch" "numpy" "pandas"
    if [ $# -gt 0 ]; then "$folder/$name/bin/python" -m pip install --quiet "$torch" "$@"; fi
    "$folder/$name/bin/python" -m pip freeze >"$folder/$name/installed.txt"
}

mkdir -p "$folder"
for peer in "${peers[@]}"; do
    case "$peer" in
        torch) install torch ;;
        # RecTools 0.19 needs numpy below 2, and Lightning up to 2.5.2: later ones load checkpoints differently.
        rectools) install rectools "rectools[torch]==${RECTOOLS:-0.19.0}" "numpy<2" "pytorch-lightning<=2.5.2" ;;
        # The extra of 0.22 may come without Lightning, which its training needs.
        replay) install replay "replay-rec[torch]==${REPLAY:-0.22.0}" lightning ;;
        faiss) install faiss "faiss-cpu==${FAISS:-1.15.1}" ;;
        texts) install texts "sentence-transformers==${SENTENCE_TRANSFORMERS:-6.2.0}" "onnxruntime==${ONNXRUNTIME:-1.32.0}" onnx ;;
        # What the authors' code of official_speed.py imports; the code itself is fetched by hand, see that file.
        # Transformers up to 4.46 have what LETTER's model imports; of RecBole its layers alone, without its dependencies.
        authors)
            install authors "transformers==${TRANSFORMERS:-4.44.2}" "numpy<2" "pandas<3" "scipy<1.17" accelerate sentencepiece protobuf \
                "faiss-cpu==${FAISS:-1.15.1}" tqdm scikit-learn colorlog colorama pyyaml texttable tensorboard
            "$folder/authors/bin/python" -m pip install --quiet --no-deps "recbole==${RECBOLE:-1.2.1}"
            ;;
        *) echo "unknown peer '$peer', expected torch, rectools, replay, faiss, texts or authors" >&2; exit 2 ;;
    esac
done
echo "export RECJAX_PEERS=$folder"
