#!/usr/bin/env bash
# The ablation on real photographs at CPU size: prepare, pre-train five recipes, evaluate six encoders on IDRiD.
# FUNDUS_DATA=FOLDER bash benchmarks/real_photographs.sh [prepare|pretrain|evaluate]...
# FUNDUS_DATA holds paired_odir/ and downstream_idrid/ in their official layouts and unpaired/ with any photographs.
# docs/results.md shows what it printed, and on which machine.
set -euo pipefail
DATA=${DATA:-data/real}
OUT=${OUT:-runs/real}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # two recipes run side by side, one core each

prepare() {
  python -m data_prep prepare odir5k --root "$FUNDUS_DATA/paired_odir" --out "$DATA/paired" --size 192
  python -m data_prep manifest --images "$FUNDUS_DATA/unpaired" --out "$DATA/unpaired" --size 192
  python -m data_prep prepare idrid --root "$FUNDUS_DATA/downstream_idrid" --out "$DATA/idrid" --target grade \
    --size 192
  python -m data_prep text-tower --shards "$DATA/paired" --out "$DATA/text" --width 128 --layers 2
}

# Every recipe sees 400 steps of 96 images: 48 paired and 48 unpaired, or 96 paired where there is no other stream.
SMALL=(image_encoder.name=vit_tiny_patch16_224 image_encoder.depth=4 data.image_size=112 data.num_workers=1
  text_encoder.name="$DATA/text" data.paired.remote="$DATA/paired" output="$OUT"
  optimizer.lr=1e-3 optimizer.text_lr_mult=1 optimizer.warmup=40ba trainer.max_duration=400ba
  checkpoint.interval=100ba tracking.picture_interval=100ba)
BOTH=(data.paired.batch_size=48 data.unpaired.batch_size=48 data.unpaired.remote="$DATA/unpaired")
MIM=(objectives.mim.dim=96 objectives.mim.depth=2 objectives.mim.num_heads=3)
CLIP=(objectives.lg_clip.embed_dim=128 objectives.lg_clip.weight=0.1)
MFD=(objectives.mfd.weight=0.1 objectives.mfd.momentum=0.99 objectives.mfd.depth=2)

pretrain() {
  (
    composer train.py yamls/ablation/maskedclip.yaml "${SMALL[@]}" "${BOTH[@]}" "${MIM[@]}" "${CLIP[@]}" "${MFD[@]}" \
      bridge.depth=2
    composer train.py yamls/ablation/mae.yaml "${SMALL[@]}" "${BOTH[@]}" "${MIM[@]}"
  ) &
  local lane=$!
  composer train.py yamls/ablation/bridge.yaml "${SMALL[@]}" "${BOTH[@]}" "${MIM[@]}" "${CLIP[@]}" bridge.depth=2
  composer train.py yamls/ablation/mae_clip.yaml "${SMALL[@]}" "${BOTH[@]}" "${MIM[@]}" "${CLIP[@]}"
  composer train.py yamls/ablation/clip.yaml "${SMALL[@]}" objectives.lg_clip.embed_dim=128 data.paired.batch_size=96
  wait "$lane"
}

evaluate() {
  each() {
    for name in "$@"; do
      checkpoint=$OUT/$name
      [ "$name" = random ] && checkpoint=random:$OUT/mae
      composer evaluate.py yamls/evaluate.yaml checkpoint="$checkpoint" data="$DATA/idrid" output="$OUT" \
        run_name="idrid-$name" "seeds=[0,1,2]" finetune.epochs=30 finetune.warmup_epochs=6 workers=1
    done
  }
  each random mae clip &
  local lane=$!
  each mae_clip bridge maskedclip
  wait "$lane"
  python -m maskedclip_composer.evaluation.compare "$OUT"/idrid-{random,mae,clip,mae_clip,bridge,maskedclip}
}

for step in "${@:-prepare pretrain evaluate}"; do
  for name in $step; do "$name"; done
done
