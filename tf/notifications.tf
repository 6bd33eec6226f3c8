# The way through Pub/Sub, for the buckets with via = "pubsub": the bucket notifies a topic, whose
# subscription pushes to the function. Unlike the subscriptions of triggers, these are wholly declared.
locals {
  notified   = { for key, bucket in local.buckets : key => bucket if bucket.via == "pubsub" }
  new_topics = { for key, bucket in local.notified : key => "${local.name}-objects${local.key_suffixes[key]}" if bucket.topic == null }
  topics = merge(
    { for key, bucket in local.notified : key => bucket.topic if bucket.topic != null },
    { for key, topic in google_pubsub_topic.objects : key => topic.id },
  )

  # What Cloud Storage calls the types of events that triggers.tf lists.
  notification_types = { for event in local.events : event => {
    finalized       = "OBJECT_FINALIZE"
    deleted         = "OBJECT_DELETE"
    archived        = "OBJECT_ARCHIVE"
    metadataUpdated = "OBJECT_METADATA_UPDATE"
  }[event] }

  # One for each type: a notification cannot be changed, so with one for all, a new type would replace it.
  notifications = merge([for key, bucket in local.notified : {
    for event, type in local.notification_types : "${key}/${event}" => { bucket = key, type = type }
  } if !bucket.managed_elsewhere]...)
}

# One for each bucket, so that the agent of another project can publish to no other bucket's topic.
resource "google_pubsub_topic" "objects" {
  for_each = local.new_topics

  project      = var.project_id
  name         = each.value
  labels       = local.labels
  kms_key_name = var.kms_key

  dynamic "message_storage_policy" {
    for_each = var.topic_regions == null ? [] : [var.topic_regions]

    content {
      allowed_persistence_regions = message_storage_policy.value
    }
  }

  depends_on = [google_project_service.this, time_sleep.keys]
}

# The subscription exists before the first notification: a topic without one keeps nothing.
resource "google_storage_notification" "objects" {
  for_each = local.notifications

  bucket             = local.bucket_names[each.value.bucket]
  topic              = local.topics[each.value.bucket]
  payload_format     = "JSON_API_V1"
  event_types        = [each.value.type]
  object_name_prefix = local.buckets[each.value.bucket].prefix

  depends_on = [time_sleep.grants, google_pubsub_subscription.objects]
}

# Cloud Run takes pushes for internal traffic if they come from its own project, to the address at run.app.
resource "google_pubsub_subscription" "objects" {
  for_each = local.notified

  project                    = var.project_id
  name                       = coalesce(each.value.subscription, "${local.name}-objects${local.key_suffixes[each.key]}")
  topic                      = local.topics[each.key]
  labels                     = local.labels
  ack_deadline_seconds       = local.subscription_settings.ackDeadlineSeconds
  message_retention_duration = local.subscription_settings.messageRetentionDuration

  push_config {
    push_endpoint = google_cloudfunctions2_function.ingest.service_config[0].uri

    oidc_token {
      service_account_email = local.emails.trigger
      audience              = google_cloudfunctions2_function.ingest.service_config[0].uri
    }
  }

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = local.subscription_settings.retryPolicy.minimumBackoff
    maximum_backoff = local.subscription_settings.retryPolicy.maximumBackoff
  }

  dead_letter_policy {
    dead_letter_topic     = local.subscription_settings.deadLetterPolicy.deadLetterTopic
    max_delivery_attempts = local.subscription_settings.deadLetterPolicy.maxDeliveryAttempts
  }

  depends_on = [
    time_sleep.grants,
    google_cloud_run_v2_service_iam_member.trigger,
    google_pubsub_subscription.dead_letter,
  ]
}
