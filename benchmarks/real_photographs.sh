#!/usr/bin/env bash
# The ablation on real photographs at CPU size: prepare, pre-train five recipes, evaluate six encoders on three tasks.
# FUNDUS_DATA=FOLDER bash benchmarks/real_photographs.sh [prepare|pretrain|evaluate]...
# FUNDUS_DATA holds paired_odir/ and downstream_idrid/ in their official layouts and unpaired/ with any photographs.
# docs/results.md shows what it printed, and on which machine.
set -euo pipefail
DATA=${DATA:-data/real}
OUT=${OUT:-runs/real}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # two processes run side by side, one core each

# One half of ODIR's patients is for pre-training, the other for evaluation.
prepare() {
  python benchmarks/odir_halves.py "$FUNDUS_DATA/paired_odir" "$DATA/halves"
  python -m data_prep manifest --csv "$DATA/halves/pairs.csv" --images "$FUNDUS_DATA/paired_odir" --separator '|' \
    --out "$DATA/paired" --size 192
  python -m data_prep manifest --images "$FUNDUS_DATA/unpaired" --out "$DATA/unpaired" --size 192
  python -m data_prep text-tower --shards "$DATA/paired" --out "$DATA/text" --width 128 --layers 2
  python -m data_prep prepare idrid --root "$FUNDUS_DATA/downstream_idrid" --out "$DATA/downstream/idrid" \
    --target grade --size 192
  python -m data_prep prepare idrid --root "$FUNDUS_DATA/downstream_idrid" --out "$DATA/downstream/idrid-dme" \
    --target dme --size 192
  python -m data_prep prepare odir5k --root "$FUNDUS_DATA/paired_odir" --kind multilabel --target disease \
    --patients "$DATA/halves/downstream.txt" --out "$DATA/downstream/odir5k-disease" --size 192
}

# Every recipe sees 300 steps of 96 images: 48 paired and 48 unpaired, or 96 paired where there is no other stream.
SMALL=(image_encoder.name=vit_tiny_patch16_224 image_encoder.depth=4 data.image_size=112 data.num_workers=1
  text_encoder.name="$DATA/text" data.paired.remote="$DATA/paired" output="$OUT"
  optimizer.lr=5e-4 optimizer.text_lr_mult=1 optimizer.warmup=30ba trainer.max_duration=300ba
  checkpoint.interval=100ba tracking.picture_interval=100ba)
BOTH=(data.paired.batch_size=48 data.unpaired.batch_size=48 data.unpaired.remote="$DATA/unpaired")
MIM=(objectives.mim.dim=96 objectives.mim.depth=2 objectives.mim.num_heads=3)
CLIP=(objectives.lg_clip.embed_dim=128 objectives.lg_clip.weight=0.1)
MFD=(objectives.mfd.weight=0.1 teacher.momentum=0.99 objectives.mfd.depth=2)

pretrain() {
  (
    composer train.py yamls/pretrain/maskedclip.yaml "${SMALL[@]}" "${BOTH[@]}" "${MIM[@]}" "${CLIP[@]}" "${MFD[@]}" \
      bridge.depth=2
    composer train.py yamls/pretrain/mae.yaml "${SMALL[@]}" "${BOTH[@]}" "${MIM[@]}"
  ) &
  local lane=$!
  composer train.py yamls/pretrain/bridge.yaml "${SMALL[@]}" "${BOTH[@]}" "${MIM[@]}" "${CLIP[@]}" bridge.depth=2
  composer train.py yamls/pretrain/mae_clip.yaml "${SMALL[@]}" "${BOTH[@]}" "${MIM[@]}" "${CLIP[@]}"
  composer train.py yamls/pretrain/clip.yaml "${SMALL[@]}" objectives.lg_clip.embed_dim=128 data.paired.batch_size=96
  wait "$lane"
}

# Two processes share the cells; a third joins them, adds few-shot and zero-shot, and writes the report.
evaluate() {
  local trained="linear_probe,benchmarks/protocols/finetune_8_epochs.yaml"
  run() {
    composer evaluate.py yamls/evaluate.yaml "tasks=[idrid,idrid_dme,odir]" data_root="$DATA/downstream" seeds=5 \
      workers=0 output="$OUT" run_name=evaluation "$@"
  }
  local name some=("checkpoints.random=random:$OUT/mae") others=()
  for name in maskedclip mae; do some+=("checkpoints.$name=$OUT/$name"); done
  for name in clip bridge mae_clip; do others+=("checkpoints.$name=$OUT/$name"); done
  local all=("${some[@]}" "${others[@]}")  # the first is the baseline
  run "${some[@]}" "protocols=[$trained]" "fractions=[0.1,0.25,0.5,1.0]" tracking.mlflow=false &
  local lane=$!
  sleep 60
  run "${others[@]}" "protocols=[$trained]" "fractions=[0.1,0.25,0.5,1.0]" tracking.mlflow=false
  wait "$lane"
  run "${all[@]}" "protocols=[$trained]" "fractions=[0.1,0.25,0.5,1.0]"
  run "${all[@]}" "protocols=[linear_probe,knn,zero_shot]" "fractions=[]" "shots=[1,5,10]"
}

for step in "${@:-prepare pretrain evaluate}"; do
  for name in $step; do "$name"; done
done
