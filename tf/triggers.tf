locals {
  events = toset(concat(["finalized", "deleted", "archived"], var.reindex_on_metadata_update ? ["metadataUpdated"] : []))

  # One for each bucket with via = "eventarc" and each type of event. Eventarc allows names of 63
  # characters; with the longest suffix (10) and key (20) they have 54.
  triggers = merge([for key, bucket in local.buckets : {
    for event in local.events : "${key}/${event}" => { bucket = key, event = event, name = "${local.name}-${lower(event)}${local.key_suffixes[key]}" }
  } if bucket.via == "eventarc"]...)

  # Eventarc makes a subscription for each trigger. Where a trigger names none, nothing has this name,
  # and the step below says so.
  trigger_subscriptions = { for key, trigger in google_eventarc_trigger.event :
    key => try(basename(trigger.transport[0].pubsub[0].subscription), "none-of-${trigger.name}")
  }

  # Of both ways: by bucket and type of event, or by bucket alone.
  subscriptions = merge(
    local.trigger_subscriptions,
    { for key, subscription in google_pubsub_subscription.objects : key => subscription.name },
  )
}

# All triggers are separate resources: deploying the function leaves them, their subscriptions and the
# events that wait in these alone. Without a retry policy Eventarc retries.
resource "google_eventarc_trigger" "event" {
  for_each = local.triggers

  project         = var.project_id
  name            = each.value.name
  location        = local.bucket_locations[each.value.bucket]
  labels          = local.labels
  service_account = local.emails.trigger

  matching_criteria {
    attribute = "type"
    value     = "google.cloud.storage.object.v1.${each.value.event}"
  }
  matching_criteria {
    attribute = "bucket"
    value     = local.bucket_names[each.value.bucket]
  }

  destination {
    cloud_run_service {
      service = basename(google_cloudfunctions2_function.ingest.service_config[0].service)
      region  = google_cloudfunctions2_function.ingest.location
    }
  }

  depends_on = [
    time_sleep.grants,
    google_cloud_run_v2_service_iam_member.trigger,
    google_eventarc_google_channel_config.this,
  ]
}

# Eventarc gives its subscriptions an acknowledgement deadline of 10 seconds, a retention of one day and
# no dead-letter topic. No resource can change the subscription of another, so a step patches these
# settings, and a data source reads them back: a plan shows what differs, an apply restores it.
locals {
  subscription_settings = {
    ackDeadlineSeconds       = 600 # the longest that Pub/Sub allows; the function's timeout is below it
    messageRetentionDuration = "604800s"
    expirationPolicy         = {} # never: a bucket may be idle for longer than the default of 31 days
    retryPolicy              = { minimumBackoff = "10s", maximumBackoff = "600s" }
    deadLetterPolicy = {
      deadLetterTopic     = google_pubsub_topic.dead_letter.id
      maxDeliveryAttempts = 100 # the most that Pub/Sub allows: about 15.7 hours
    }
  }

  # The same settings as they are, and the names of those that differ.
  subscription_found = { for key, subscription in data.google_pubsub_subscription.event : key => {
    ackDeadlineSeconds       = subscription.ack_deadline_seconds
    messageRetentionDuration = subscription.message_retention_duration
    expirationPolicy         = { for ttl in subscription.expiration_policy[*].ttl : "ttl" => ttl if ttl != "" }
    retryPolicy              = one([for policy in subscription.retry_policy : { minimumBackoff = policy.minimum_backoff, maximumBackoff = policy.maximum_backoff }])
    deadLetterPolicy         = one([for policy in subscription.dead_letter_policy : { deadLetterTopic = policy.dead_letter_topic, maxDeliveryAttempts = policy.max_delivery_attempts }])
  } }
  drift = { for key, found in local.subscription_found : key => [
    for name, value in local.subscription_settings : name if jsonencode(value) != jsonencode(found[name])
  ] }
}

data "google_pubsub_subscription" "event" {
  for_each = local.triggers

  project = var.project_id
  name    = local.trigger_subscriptions[each.key]
}

resource "terraform_data" "subscription" {
  for_each = local.triggers

  triggers_replace = {
    subscription = local.trigger_subscriptions[each.key]

    # timestamp() is unknown in a plan: a setting that has drifted is "known after apply" there, and the
    # step runs again. What is stored is the same as ever, so that the next plan is empty.
    settings = { for name, value in local.subscription_settings : name =>
      contains(local.drift[each.key], name) ? (timestamp() == "" ? "" : jsonencode(value)) : jsonencode(value)
    }
  }

  provisioner "local-exec" {
    interpreter = [var.python]
    command     = "${path.module}/steps/subscription.py"
    environment = {
      DCM2BQ_TOKEN        = ephemeral.google_client_config.this.access_token
      DCM2BQ_SUBSCRIPTION = "projects/${var.project_id}/subscriptions/${local.trigger_subscriptions[each.key]}"
      DCM2BQ_SETTINGS     = jsonencode(local.subscription_settings)
    }
  }

  depends_on = [
    google_pubsub_subscription_iam_member.dead_letter,
    google_pubsub_topic_iam_member.dead_letter,
    google_pubsub_subscription.dead_letter,
  ]
}

# A new trigger can take two minutes to deliver its first event, and a new notification half a minute to
# be sent; all wait at once. What is uploaded before that has no event, and no row: `dcm2bq verify
# --repair` finds it.
resource "time_sleep" "ready" {
  create_duration = "120s"

  triggers = merge(
    { for key, trigger in google_eventarc_trigger.event : key => trigger.uid },
    { for key, notification in google_storage_notification.objects : key => notification.id },
  )
}
