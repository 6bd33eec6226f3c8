locals {
  further_events = toset(concat(["deleted", "archived"], var.reindex_on_metadata_update ? ["metadataUpdated"] : []))

  # Each trigger's name, and what changes when it is made anew; with it comes a new subscription.
  triggers = merge(
    { finalized = { name = basename(google_cloudfunctions2_function.ingest.event_trigger[0].trigger), uid = null } },
    { for event, trigger in google_eventarc_trigger.further : event => { name = trigger.name, uid = trigger.uid } },
  )
}

resource "google_eventarc_trigger" "further" {
  for_each = local.further_events

  project         = var.project_id
  name            = "${local.name}-${lower(each.key)}"
  location        = local.bucket_location
  labels          = local.labels
  service_account = google_service_account.trigger.email

  matching_criteria {
    attribute = "type"
    value     = "google.cloud.storage.object.v1.${each.key}"
  }
  matching_criteria {
    attribute = "bucket"
    value     = local.bucket
  }

  destination {
    cloud_run_service {
      service = basename(google_cloudfunctions2_function.ingest.service_config[0].service)
      region  = google_cloudfunctions2_function.ingest.location
    }
  }

  depends_on = [time_sleep.grants, google_cloud_run_v2_service_iam_member.trigger]
}

# A trigger's subscription is Eventarc's: it waits for an answer for 10 seconds, and drops what fails
# for a day. No resource can change that, so gcloud does. 100 attempts last about 15.7 hours. Pub/Sub
# may take messages out of the subscription before it is told to.
resource "terraform_data" "subscription" {
  for_each = toset(concat(["finalized"], tolist(local.further_events)))

  triggers_replace = [
    local.triggers[each.key],
    google_pubsub_topic.dead_letter.id,
    google_project_service_identity.agent["pubsub"].member,
  ]

  provisioner "local-exec" {
    interpreter = ["/bin/sh", "-euc"]
    environment = {
      GCLOUD   = var.gcloud
      PROJECT  = var.project_id
      LOCATION = local.bucket_location
      TRIGGER  = local.triggers[each.key].name
      TOPIC    = google_pubsub_topic.dead_letter.id
      AGENT    = google_project_service_identity.agent["pubsub"].member
    }
    command = <<-EOT
      subscription=$("$GCLOUD" eventarc triggers describe "$TRIGGER" --project="$PROJECT" \
        --location="$LOCATION" --format='value(transport.pubsub.subscription)')
      if [ -z "$subscription" ]; then
        echo "the trigger $TRIGGER names no subscription yet: terraform apply again" >&2
        exit 1
      fi
      "$GCLOUD" pubsub subscriptions add-iam-policy-binding "$subscription" --project="$PROJECT" \
        --member="$AGENT" --role=roles/pubsub.subscriber --quiet
      "$GCLOUD" pubsub subscriptions update "$subscription" --project="$PROJECT" --ack-deadline=600 \
        --dead-letter-topic="$TOPIC" --max-delivery-attempts=100 --min-retry-delay=10s \
        --max-retry-delay=600s --message-retention-duration=7d --expiration-period=never --quiet
    EOT
  }

  lifecycle {
    # A new version of the function may bring its own trigger anew. (Its update_time would tell too
    # late: the provider plans the old one.)
    replace_triggered_by = [google_cloudfunctions2_function.ingest]
  }

  depends_on = [google_pubsub_topic_iam_member.dead_letter, google_pubsub_subscription.dead_letter]
}
