#!/usr/bin/env bash
# Cloud Scheduler starts a Cloud Run job that runs `capt retrain`. Its preparation runs on Dataflow if retrain.yaml
# contains the options in docs/how_to/retraining.md. The image is that of examples/dataflow/Dockerfile.
set -euo pipefail
: "${PROJECT:?}" "${REGION:?}" "${IMAGE:?the image of examples/dataflow/Dockerfile}" "${BUCKET:?with retrain.yaml and the store}"

gcloud run jobs deploy capt-retrain --project "$PROJECT" --region "$REGION" --image "$IMAGE" \
  --cpu 8 --memory 32Gi --task-timeout 24h --max-retries 3 --parallelism 1 \
  --add-volume name=data,type=cloud-storage,bucket="$BUCKET" --add-volume-mount volume=data,mount-path=/data \
  --command capt --args retrain,/data/retrain.yaml,--json

gcloud scheduler jobs create http capt-retrain --project "$PROJECT" --location "$REGION" \
  --schedule "0 3 * * 1" --http-method POST \
  --uri "https://run.googleapis.com/v2/projects/$PROJECT/locations/$REGION/jobs/capt-retrain:run" \
  --oauth-service-account-email "capt-scheduler@$PROJECT.iam.gserviceaccount.com"
