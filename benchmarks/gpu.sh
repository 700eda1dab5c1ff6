#!/usr/bin/env bash
# All that can be found out on a machine with one GPU in nine minutes, in order of value: `make gpu`.
# Needs no network. Each step has its own time limit and writes its result at once; a step that fails
# or is cut off does not keep the next from running. `benchmarks/gpu.sh --device cpu` rehearses it.
set -u
cd "$(dirname "$0")/.."
device=cuda
[ "${1:-}" = --device ] && device=${2:-cuda}
case $device in
  cuda) out=docs/data/gpu slower=1 ;;
  cpu) out=build/gpu slower=4 ;; # a rehearsal's results are nobody's figures, and it may take longer
  *) echo "device is '$device'; it must be cuda or cpu" >&2; exit 2 ;;
esac
python=${PYTHON:-python3}
export HF_HUB_OFFLINE=1 PYTHONPATH="$PWD/src:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"

# What the machine lacks comes from the packed wheels, beside its own packages and not over them.
if [ -d build/gpu-wheels ]; then
  "$python" -m pip install --quiet --no-index --no-deps --target build/gpu-packages \
    build/gpu-wheels/*.whl 2>build/gpu-wheels.log || tail -n 3 build/gpu-wheels.log
  # At the end of the path, so that what the machine has comes first.
  mkdir -p build/gpu-site
  cat > build/gpu-site/sitecustomize.py <<END
import sys
sys.path.append("$PWD/build/gpu-packages")
END
  PYTHONPATH="$PYTHONPATH:$PWD/build/gpu-site"
fi

end=$((SECONDS + 540 * slower))
failed=0
while read -r step limit; do
  left=$((end - SECONDS - 10)) limit=$((limit * slower))
  [ "$left" -lt "$limit" ] && limit=$left
  if [ "$limit" -lt 10 ]; then
    echo "$step: no time left"
    continue
  fi
  timeout --kill-after=5 "$limit" "$python" benchmarks/gpu_steps.py "$step" --device "$device" --out "$out"
  code=$?
  [ "$code" -eq 124 ] && echo "$step: cut off after $limit s; $out/$step.json has what was found till then"
  [ "$code" -ne 0 ] && failed=1
done < <("$python" benchmarks/gpu_steps.py)
[ "$device" = cuda ] && "$python" benchmarks/gpu_page.py
exit "$failed"
